"""What is shown while many fits go on: a table that changes in a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.table import Table

from kg4d.metrics.keys import HELD_OUT
from kg4d.sweeps.attempt import End, Outcome
from kg4d.sweeps.engine import Report
from kg4d.sweeps.jobs import Job
from kg4d.utils.console import console as console_of_stdout
from kg4d.utils.logs import is_watched

QUALITIES = ("test/psnr", HELD_OUT, "train/psnr")  # the first one that a run has is shown
_LAST = 8  # fits that have ended and are still shown


def quality_of(metrics: dict[str, float]) -> tuple[str, float] | None:
    """What a run is shown by: its key and value."""
    return next(((key, metrics[key]) for key in QUALITIES if key in metrics), None)


@dataclass
class Progress:
    """What goes on and what has ended.

    Attributes:
        total: How many jobs there are; None where nobody knows yet.
        console: Where it is shown.
    """

    total: int | None
    console: Console = field(default_factory=console_of_stdout)
    _running: dict[str, tuple[float, str]] = field(default_factory=dict)
    _ended: list[tuple[str, str]] = field(default_factory=list)
    _begin: float = field(default_factory=time.perf_counter)
    _live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator["Progress"]:
        """Show the table while the block runs, if this is a terminal."""
        if not is_watched():
            yield self
            return
        with Live(get_renderable=self._table, console=self.console, refresh_per_second=2) as self._live:
            yield self
        self._live = None

    def begun(self, job: Job) -> None:
        """A job has been started."""
        self._running[job.label] = (time.perf_counter(), "")
        self._line(job.label, "begins")

    def said(self, report: Report) -> None:
        """A fit has said how it does."""
        since, _ = self._running[report.job.label]
        said = f"{HELD_OUT} {report.value:.2f} at step {report.step}"
        self._running[report.job.label] = (since, said)
        self._line(report.job.label, said)

    def ended(self, outcome: Outcome) -> None:
        """A job has ended."""
        self._running.pop(outcome.job.label, None)
        said = _summary(outcome)
        self._ended.append((outcome.job.label, said))
        self._line(outcome.job.label, said)

    def _line(self, label: str, said: str) -> None:
        if self._live is None:
            self.console.print(f"[{self._state()}] {label}: {said}", markup=False, soft_wrap=True)

    def _state(self) -> str:
        minutes = (time.perf_counter() - self._begin) / 60
        return f"{len(self._ended)}{'' if self.total is None else f'/{self.total}'} {minutes:.1f} min"

    def _table(self) -> Table:
        table = Table("fit", "", title=self._state())
        for label, said in self._ended[-_LAST:]:
            table.add_row(label, said)
        for label, (since, said) in self._running.items():
            table.add_row(label, f"{time.perf_counter() - since:.0f} s {said}")
        return table


def _summary(outcome: Outcome) -> str:
    if outcome.end is not End.DONE:
        said = f"{outcome.end.value} after {outcome.seconds:.0f} s"
        return f"{said}: {outcome.error}" if outcome.error else said
    reached = outcome.job.folder.read_metrics()
    quality = quality_of(reached["metrics"]) if reached else None
    return f"done in {outcome.seconds:.0f} s" + ("" if quality is None else f", {quality[0]} {quality[1]:.2f}")
