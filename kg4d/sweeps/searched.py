"""A search's fits in their order, and what the search is told of them: how they do on held-out frames, nothing else."""

from collections.abc import Callable
from dataclasses import dataclass

from kg4d.config.load import Run
from kg4d.config.schema import ExperimentConfig
from kg4d.errors import InputError
from kg4d.runs.folder import RunFolder
from kg4d.runs.measure import HELD_OUT
from kg4d.runs.validation import Validation
from kg4d.sweeps.attempt import End, Outcome
from kg4d.sweeps.engine import Report
from kg4d.sweeps.jobs import Job, State, label_of, state_of
from kg4d.sweeps.points import Points
from kg4d.sweeps.search import Point, Search
from kg4d.sweeps.sources import with_held_out_frames

RunsOf = Callable[[Points], list[Run[ExperimentConfig]]]
"""The runs of some points: of each with every scene and seed."""


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
