"""Optuna's part: which point comes next, and which one is given up. What it knows lies in a file beside the runs.

It is told how fits do on held-out times of the reference video, and nothing else.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from kg4d.sweeps.points import Points, rounded, settings_of
from kg4d.sweeps.settings import Method, Parameter, SweepSettings

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
