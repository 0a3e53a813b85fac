"""Optuna's part: which point comes next, and which one is given up. What it knows lies in a file beside the runs.

It is told how fits do on held-out times of the reference video, and nothing else.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from kg4d.config.load import Run
from kg4d.config.schema import ExperimentConfig
from kg4d.errors import InputError
from kg4d.metrics.keys import HELD_OUT
from kg4d.runs.folder import RunFolder
from kg4d.runs.validation import Validation
from kg4d.sweeps.attempt import End, Outcome
from kg4d.sweeps.engine import Report
from kg4d.sweeps.jobs import Job, State, label_of, state_of
from kg4d.sweeps.points import Points, rounded, settings_of
from kg4d.sweeps.settings import Method, Parameter, SweepSettings
from kg4d.sweeps.sources import with_held_out_frames

RunsOf = Callable[[Points], list[Run[ExperimentConfig]]]
"""The runs of some points: of each with every scene and seed."""

_HALVING = 2  # of the points that get so far, the better one in two goes on
_NAME, _WORDS = "name", "settings"
_FEWEST = 5  # points drawn at random before the search begins


@dataclass
class Point:
    """One point that is being tried.

    Attributes:
        name: Also of its folder.
        settings: As variants are written.
        trial: Optuna's.
    """

    name: str
    settings: list[str]
    trial: Trial
    reached: list[float] = field(default_factory=list)  # of its fits that are done


class Search:
    """Asks Optuna.

    Args:
        settings: Of the sweep.
        points: Known from the start; Optuna proposes them when empty.
        file: Of what it knows; it goes on from there.
    """

    def __init__(self, settings: SweepSettings, points: Points, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = JournalStorage(JournalFileBackend(str(file)))
        tried = sum(study.n_trials for study in optuna.study.get_all_study_summaries(storage))
        self._settings, self._points = settings, points
        self._study = optuna.create_study(
            storage=storage,
            study_name=file.stem,
            direction="maximize",
            load_if_exists=True,
            pruner=_pruner(settings),
            sampler=optuna.samplers.TPESampler(seed=settings.seed + tried, n_startup_trials=_FEWEST),
        )
        self._cut_short = [trial for trial in self._study.trials if trial.state is TrialState.RUNNING]

    @property
    def trials(self) -> int:
        """How many points are tried in all."""
        return len(self._points) or self._settings.trials

    def next(self) -> Point | None:
        """A point that an earlier call has begun, else a new one; None when all have been given out."""
        if self._cut_short:
            begun = self._cut_short.pop(0)
            trial = Trial(self._study, begun._trial_id)
        else:
            left = self._left()
            if left is None:
                return None
            trial = self._study.ask()
            self._name(trial, left)
        about = trial.user_attrs
        return Point(about[_NAME], list(about[_WORDS]), trial)

    def goes_on(self, point: Point, stage: int, value: float) -> bool:
        """Whether a point goes on.

        Args:
            point: The point.
            stage: How far it is, in reports: the same for all points at the same place.
            value: Of the fit that goes on just now; those that are done count, too.
        """
        point.trial.report(statistics.fmean([*point.reached, value]), stage)
        return not point.trial.should_prune()

    def done(self, point: Point) -> None:
        """All fits of a point are done."""
        self._study.tell(point.trial, statistics.fmean(point.reached))

    def given_up(self, point: Point) -> None:
        """A point has been given up."""
        self._study.tell(point.trial, state=TrialState.PRUNED)

    def failed(self, point: Point) -> None:
        """A fit of a point has failed for good."""
        self._study.tell(point.trial, state=TrialState.FAIL)

    def decisions(self) -> list[tuple[str, str, float | None]]:
        """Of each point its name, what has become of it and its value, in the order in which they were begun."""
        return [
            (trial.user_attrs.get(_NAME, ""), trial.state.name.lower(), trial.value) for trial in self._study.trials
        ]

    def settings_by_name(self) -> Points:
        """What each point sets that has been begun."""
        return {trial.user_attrs[_NAME]: list(trial.user_attrs[_WORDS]) for trial in self._study.trials}

    def _left(self) -> str | None:
        """Name of the point to begin with; empty where Optuna proposes one, None where there is none left."""
        tried = self.settings_by_name()
        if self._settings.method is Method.OPTUNA:
            return "" if len(tried) < self._settings.trials else None
        return next((name for name in self._points if name not in tried), None)

    def _name(self, trial: Trial, name: str) -> None:
        if name:
            words = self._points[name]
        else:
            name, words = f"trial{trial.number:03d}", settings_of(_proposed(trial, self._settings.parameters))
        trial.set_user_attr(_NAME, name)
        trial.set_user_attr(_WORDS, words)


def _pruner(settings: SweepSettings) -> BasePruner:
    if not settings.early_stopping:
        return NopPruner()
    return SuccessiveHalvingPruner(min_resource=1, reduction_factor=_HALVING)


def _proposed(trial: Trial, parameters: Mapping[str, Parameter]) -> dict[str, Any]:
    return {key: _value(trial, key, parameter) for key, parameter in parameters.items()}


def _value(trial: Trial, key: str, parameter: Parameter) -> Any:
    low, high = parameter.low, parameter.high
    if low is None or high is None:
        choices: Sequence[Any] = parameter.values
        return trial.suggest_categorical(key, choices)
    if parameter.whole:
        return trial.suggest_int(key, round(low), round(high), log=parameter.log)
    return rounded(trial.suggest_float(key, low, high, log=parameter.log), parameter)


@dataclass
class _Tried:
    """A point and its fits, one of which runs at a time: later ones are spared where the point is given up."""

    point: Point
    jobs: list[Job]
    number: int = 0  # of the fit that is next or runs
    running: bool = False


class Searched:
    """Fits of points that a search asks for.

    Args:
        search: Asked for points, and told how they do.
        runs_of: Makes runs of a point.
        reports: How often a fit says how it does; 0 for never.
        before: Called before each fit.
    """

    def __init__(
        self, search: Search, runs_of: RunsOf, reports: int, before: Callable[[ExperimentConfig], None] | None = None
    ) -> None:
        self._search, self._runs_of, self._reports, self._before = search, runs_of, reports, before
        self._tried: list[_Tried] = []
        self._begun = 0

    def next(self) -> Job | None:
        """The next fit of a point that waits, or the first one of a new point."""
        while True:
            waiting = next((one for one in self._tried if not one.running), None)
            if waiting is None:
                point = self._search.next()
                if point is None:
                    return None
                waiting = self._begin(point)
            job = waiting.jobs[waiting.number]
            if state_of(job.run) is not State.DONE:
                waiting.running = True
                return job
            self._done(waiting)

    def goes_on(self, report: Report) -> bool:
        """What the search says."""
        tried = self._of(report.job)
        place = sum(report.step > step for step in self._steps(report.job)) + 1
        return self._search.goes_on(tried.point, tried.number * (self._reports + 1) + place, report.value)

    def ended(self, outcome: Outcome) -> None:
        """Tell the search."""
        tried = self._of(outcome.job)
        tried.running = False
        if outcome.end is End.DONE:
            self._done(tried)
            return
        self._tried.remove(tried)
        if outcome.end is End.GIVEN_UP:
            self._search.given_up(tried.point)
        else:
            self._search.failed(tried.point)

    def _begin(self, point: Point) -> _Tried:
        runs = self._runs_of({point.name: point.settings})
        with_held_out_frames(runs)
        first, total = self._begun * len(runs) + 1, self._search.trials * len(runs)
        self._begun += 1
        jobs = [
            Job(one, label_of(one, number, total), True, before=self._before, reports=self._reports)
            for number, one in enumerate(runs, start=first)
        ]
        self._tried.append(_Tried(point, jobs))
        return self._tried[-1]

    def _done(self, tried: _Tried) -> None:
        """A fit of a point is done: take its value, and see whether the point goes on."""
        job, point = tried.jobs[tried.number], tried.point
        value = held_out_psnr(job.folder)
        tried.number += 1
        goes_on = self._search.goes_on(point, tried.number * (self._reports + 1), value) if self._reports else True
        point.reached.append(value)
        if tried.number == len(tried.jobs):
            self._search.done(point)
        elif not goes_on:
            self._search.given_up(point)
        else:
            return
        self._tried.remove(tried)

    def _of(self, job: Job) -> _Tried:
        return next(one for one in self._tried if one.running and one.jobs[one.number].label == job.label)

    def _steps(self, job: Job) -> list[int]:
        return Validation(self._reports, lambda step, value: True).steps(job.run.config.dynamic.steps)


def held_out_psnr(folder: RunFolder) -> float:
    """What a finished fit has reached on times of the reference video that it did not see.

    Raises:
        InputError: It has not been measured.
    """
    reached = folder.read_metrics()
    if reached is None or HELD_OUT not in reached["metrics"]:
        raise InputError(folder.metrics, f"has no {HELD_OUT}", "set frames.hold_out, and fit again")
    return float(reached["metrics"][HELD_OUT])
