"""Fits side by side in processes of this machine.

A process does one fit after the other, so that what it takes to load is loaded once; after some fits it is replaced,
because its memory grows by about 100 MB a fit.
"""

import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType

from kg4d.sweeps.attempt import End, Outcome
from kg4d.sweeps.cards import Place
from kg4d.sweeps.engine import Report
from kg4d.sweeps.jobs import Job
from kg4d.sweeps.worker import work
from kg4d.utils.processes import environment_of

_FITS_PER_PROCESS = 10
_LAST_WORDS = 2000  # characters of what a process that was killed has printed


@dataclass
class _Worker:
    """One process, and what it does just now."""

    process: BaseProcess
    pipe: Connection
    printed: Path
    place: int
    job: Job | None = None
    since: float = 0.0
    fits: int = 0


@dataclass
class LocalEngine:
    """Does jobs in processes of this machine.

    Attributes:
        places: Where; as many jobs are done at a time.
    """

    places: Sequence[Place]
    _workers: list[_Worker] = field(default_factory=list)
    _folder: "tempfile.TemporaryDirectory[str] | None" = None

    def __enter__(self) -> "LocalEngine":
        self._folder = tempfile.TemporaryDirectory(prefix="kg4d-")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for worker in self._workers:
                if kind is None:
                    self._say(worker, None)
                elif worker.process.is_alive():
                    worker.process.terminate()
                    self._say(worker, True)  # it may wait for an answer
            for worker in self._workers:
                worker.process.join()
        finally:  # after a second signal, too
            for worker in self._workers:
                worker.process.kill()
            if self._folder is not None:
                self._folder.cleanup()

    @property
    def free(self) -> int:
        """How many more jobs may be started now."""
        return len(self.places) - sum(worker.job is not None for worker in self._workers)

    def start(self, job: Job) -> None:
        """Give a job to a process that waits, or to a new one."""
        worker = next((one for one in self._workers if one.job is None), None)
        if worker is not None and (worker.fits >= _FITS_PER_PROCESS or not self._say(worker, job)):
            self._say(worker, None)
            self._workers.remove(worker)
            worker = None
        if worker is None:
            worker = self._begin()
            self._say(worker, job)
        worker.job, worker.since, worker.fits = job, time.perf_counter(), worker.fits + 1

    def wait(self) -> list[Report | Outcome]:
        """What the processes say; what has come of a job whose process has died without a word."""
        busy = {worker.pipe: worker for worker in self._workers if worker.job is not None}
        return [self._heard(busy[pipe]) for pipe in wait(list(busy)) if isinstance(pipe, Connection)]

    def answer(self, job: Job, goes_on: bool) -> None:
        """Tell a fit that has reported whether it goes on."""
        for worker in self._workers:
            if worker.job is job:
                self._say(worker, goes_on)

    def _begin(self) -> _Worker:
        assert self._folder is not None
        taken = {worker.place for worker in self._workers}
        number = next(number for number in range(len(self.places)) if number not in taken)
        place = self.places[number]
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        handle, printed = tempfile.mkstemp(dir=self._folder.name)
        os.close(handle)
        with environment_of(place.environment):
            process = context.Process(target=work, args=(there, Path(printed), place.gpus), name="kg4d fits")
            worker = _Worker(process, here, Path(printed), number)
            self._workers.append(worker)
            process.start()
        there.close()
        return worker

    def _say(self, worker: _Worker, what: Job | bool | None) -> bool:
        """Send something; whether it can have arrived."""
        try:
            worker.pipe.send(what)
        except OSError:
            return False
        return True

    def _heard(self, worker: _Worker) -> Report | Outcome:
        job = worker.job
        assert job is not None
        try:
            said = worker.pipe.recv()
        except (EOFError, OSError):
            self._workers.remove(worker)
            return self._died(worker, job)
        if isinstance(said, Outcome):
            worker.job = None
            return replace(said, job=job)
        return Report(job, *said)

    def _died(self, worker: _Worker, job: Job) -> Outcome:
        """The end of a process that said nothing: killed for its memory, say; its log gets what it has printed."""
        worker.process.join()
        code = worker.process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        words = worker.printed.read_text(encoding="utf-8", errors="replace")[-_LAST_WORDS:]
        job.folder.path.mkdir(parents=True, exist_ok=True)
        with job.folder.log.open("a", encoding="utf-8") as log:
            log.write(f"the process of this fit {how}; it printed last:\n{words}\n")
        seconds = time.perf_counter() - worker.since
        return Outcome(job, End.FAILED, seconds, f"its process {how}", job.folder.log)
