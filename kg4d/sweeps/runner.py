"""Jobs from where they come to what has come of them: who starts, who is asked, who tries again, what failed."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from kg4d.errors import InputError
from kg4d.sweeps.attempt import End, Outcome, attempt
from kg4d.sweeps.engine import Engine, Report
from kg4d.sweeps.jobs import Job
from kg4d.utils.logs import TRACEBACK_NOTE

_log = logging.getLogger(__name__)

FAILURES = (End.FAILED, End.WRONG)


class FailedFitsError(RuntimeError):
    """Some of several fits failed."""


@runtime_checkable  # for the tests, which check arguments at run time
class Source(Protocol):
    """Where jobs come from."""

    def next(self) -> Job | None:
        """The next job; None where there is none now."""
        ...

    def goes_on(self, report: Report) -> bool:
        """Whether a fit that does so goes on."""
        ...

    def ended(self, outcome: Outcome) -> None:
        """Take note of what has come of a job, for good."""
        ...


@dataclass
class Fixed:
    """Jobs that are known from the start, none of which is given up."""

    jobs: Iterator[Job]

    def next(self) -> Job | None:
        """The next one."""
        return next(self.jobs, None)

    def goes_on(self, report: Report) -> bool:
        """Always."""
        return True

    def ended(self, outcome: Outcome) -> None:
        """Nothing follows from it."""


@runtime_checkable  # for the tests, which check arguments at run time
class Board(Protocol):
    """Who is told what goes on."""

    def begun(self, job: Job) -> None:
        """A job has been started."""
        ...

    def said(self, report: Report) -> None:
        """A fit has said how it does."""
        ...

    def ended(self, outcome: Outcome) -> None:
        """A job has ended."""
        ...


def carry_out(source: Source, engine: Engine, board: Board, retries: int = 0) -> list[Outcome]:
    """Do all jobs, several at a time; one that fails stops no other.

    Args:
        source: Gives the jobs.
        engine: Does them.
        board: Is told.
        retries: How often a job that fails is tried again, from where it got to; wrong requests are not.

    Returns:
        What has come of each, in the order in which they ended.
    """
    outcomes: list[Outcome] = []
    again: list[Job] = []
    tries: dict[str, int] = {}
    running = 0
    while True:
        while engine.free > 0 and (job := again.pop(0) if again else source.next()) is not None:
            engine.start(job)
            board.begun(job)
            running += 1
        if running == 0:
            return outcomes
        for event in engine.wait():
            if isinstance(event, Report):
                board.said(event)
                engine.answer(event.job, source.goes_on(event))
                continue
            running -= 1
            tries[event.job.label] = tries.get(event.job.label, 0) + 1
            if event.end is End.FAILED and tries[event.job.label] <= retries:
                _log.warning("%s: %s; it is tried again", event.job.label, event.error)
                again.append(replace(event.job, resume=True, overwrite=False))
                continue
            outcomes.append(event)
            source.ended(event)
            board.ended(event)


def one_after_another(jobs: Iterable[Job]) -> list[Outcome]:
    """Do jobs in this process; one that fails stops no other."""
    outcomes = []
    for job in jobs:
        outcome = attempt(job, lambda step, value: True)
        if outcome.end in FAILURES:
            _log.error("%s: %s", job.label, outcome.error)
        outcomes.append(outcome)
    return outcomes


def raise_failures(outcomes: Sequence[Outcome]) -> None:
    """Say which jobs failed.

    Raises:
        InputError: All that failed were wrong requests.
        FailedFitsError: Others failed; names the log of the first of them.
    """
    failed = [outcome for outcome in outcomes if outcome.end in FAILURES]
    if not failed:
        return
    labels = "; ".join(outcome.job.label for outcome in failed)
    many = f"{len(failed)} of {len(outcomes)} fits failed"
    requests = [outcome.request for outcome in failed if outcome.request is not None]
    if len(requests) == len(failed):
        if len({str(request) for request in requests}) == 1:
            raise requests[0]
        what = "; ".join(f"{outcome.job.label}: {outcome.request}" for outcome in failed)
        raise InputError(many, what, "correct what is said of each")
    worst = next(outcome for outcome in failed if outcome.request is None)
    error = FailedFitsError(f"{many}: {labels}; {worst.job.label}: {worst.error}")
    if worst.log is not None:
        error.add_note(f"{TRACEBACK_NOTE}{worst.log}")
    raise error
