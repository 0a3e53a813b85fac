"""Who does the jobs: processes of this machine, or a cluster. One protocol, so that the rest need not know."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, runtime_checkable

from kg4d.sweeps.attempt import Outcome
from kg4d.sweeps.jobs import Job


@dataclass(frozen=True)
class Report:
    """A fit says how it does, and waits for an answer.

    Attributes:
        job: The fit.
        step: Of the dynamic stage.
        value: PSNR of held-out frames, dB.
    """

    job: Job
    step: int
    value: float


@runtime_checkable  # for the tests, which check arguments at run time
class Engine(Protocol):
    """Does jobs, several at a time.

    Left by an exception, it lets its fits write a checkpoint and end; left by a second one, it ends them at once.
    """

    def __enter__(self) -> "Engine": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @property
    def free(self) -> int:
        """How many more jobs may be started now."""
        ...

    def start(self, job: Job) -> None:
        """Begin a job; there is a place free."""
        ...

    def wait(self) -> Sequence[Report | Outcome]:
        """What has happened, once something has."""
        ...

    def answer(self, job: Job, goes_on: bool) -> None:
        """Tell a fit that has reported whether it goes on."""
        ...
