"""Fits on a Ray cluster, or on a Ray that is started here: tasks with the cores and GPUs that each of them needs."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import ray

from kg4d.errors import InputError
from kg4d.sweeps.attempt import End, Outcome, attempt, one_line
from kg4d.sweeps.engine import Report
from kg4d.sweeps.jobs import Job
from kg4d.sweeps.settings import SweepSettings

_FITS_PER_PROCESS = 10  # then Ray takes a new one, as its memory grows
_TIME_TO_STOP = 120.0  # seconds for a step and a checkpoint


class RayEngine:
    """Does jobs as tasks of Ray.

    Args:
        settings: Which cluster, and what each fit needs.
        most: Jobs at a time; as many as there is room for when None.
        local_cpus: Cores of a Ray that is started here; all when None.
    """

    def __init__(self, settings: SweepSettings, most: int | None = None, local_cpus: int | None = None) -> None:
        self._settings, self._most, self._local_cpus = settings, most, local_cpus
        self._running: dict[Any, Job] = {}
        self._places = 0

    def __enter__(self) -> "RayEngine":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        address = self._settings.address
        here: dict[str, Any] = {} if address else {"num_cpus": self._local_cpus, "include_dashboard": False}
        try:
            ray.init(address=address, log_to_driver=False, logging_level="error", **here)
        except (ConnectionError, ValueError, RuntimeError) as error:
            what = f"no Ray cluster answers: {one_line(error)[:200]}"
            raise InputError(f"sweep.address: {address}", what, "start it, or leave the address away") from error
        self._mailbox = ray.remote(_Mailbox).options(num_cpus=0).remote()
        self._letter = self._mailbox.take.remote()
        self._places = self._room()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._running:
                for task in self._running:
                    ray.cancel(task, force=False)  # as ctrl-C: a checkpoint is written
                ray.wait(list(self._running), num_returns=len(self._running), timeout=_TIME_TO_STOP)
        finally:
            ray.shutdown()

    @property
    def free(self) -> int:
        """How many more jobs may be started now."""
        return self._places - len(self._running)

    def start(self, job: Job) -> None:
        """Hand a job to Ray."""
        settings, cpus = self._settings, self._settings.cpus_per_run
        needs = {"num_cpus": cpus, "num_gpus": self._gpus(), "max_retries": 0, "max_calls": _FITS_PER_PROCESS}
        work = ray.remote(**needs)(_fit)
        task = work.remote(job.on(int(settings.gpus_per_run)), self._mailbox, cpus, str(Path.cwd()))
        self._running[task] = job

    def wait(self) -> list[Report | Outcome]:
        """What the tasks say, and what has come of them."""
        ready, _ = ray.wait([self._letter, *self._running], num_returns=1)
        return [self._read() if task == self._letter else self._ended(task) for task in ready]

    def answer(self, job: Job, goes_on: bool) -> None:
        """Tell a fit that has reported whether it goes on."""
        ray.get(self._mailbox.answer.remote(job.label, goes_on))

    def _gpus(self) -> float:
        """GPUs of each fit: none on a cluster that has none."""
        return self._settings.gpus_per_run if ray.cluster_resources().get("GPU", 0) else 0.0

    def _room(self) -> int:
        there, gpus = ray.cluster_resources(), self._gpus()
        room = int(there.get("CPU", 0) // self._settings.cpus_per_run)
        if gpus:
            room = min(room, int(there["GPU"] / gpus + 1e-9))
        if room < 1:
            has = f"has {there.get('CPU', 0):g} cores and {there.get('GPU', 0):g} GPUs"
            what = f"{has}, which is too little for one fit"
            raise InputError("sweep.cpus_per_run", what, "lower it, or sweep.gpus_per_run")
        return room if self._most is None else min(room, self._most)

    def _read(self) -> Report:
        label, step, value = ray.get(self._letter)
        self._letter = self._mailbox.take.remote()
        job = next(job for job in self._running.values() if job.label == label)
        return Report(job, step, value)

    def _ended(self, task: Any) -> Outcome:
        job = self._running.pop(task)
        try:
            end, *rest = ray.get(task)
            return Outcome(job, end, *rest)
        except ray.exceptions.RayError as error:  # the process or the machine is gone
            return Outcome(job, End.FAILED, error=one_line(error)[:500], log=job.folder.log)


class _Mailbox:
    """Where fits leave what they have to say, and wait for an answer."""

    def __init__(self) -> None:
        self._letters: asyncio.Queue[tuple[str, int, float]] = asyncio.Queue()
        self._answers: dict[str, asyncio.Future[bool]] = {}

    async def ask(self, label: str, step: int, value: float) -> bool:
        """Leave a letter; returns the answer."""
        self._answers[label] = asyncio.get_running_loop().create_future()
        await self._letters.put((label, step, value))
        return await self._answers[label]

    async def take(self) -> tuple[str, int, float]:
        """The next letter, once there is one."""
        return await self._letters.get()

    async def answer(self, label: str, goes_on: bool) -> None:
        """Answer the one who has asked."""
        self._answers.pop(label).set_result(goes_on)


def _fit(job: Job, mailbox: Any, threads: int, folder: str) -> tuple[Any, ...]:
    """A job, in a process of Ray; what an `Outcome` holds besides the job."""
    import torch

    os.chdir(folder)
    torch.set_num_threads(threads)
    done = attempt(job, _asking(mailbox, job.label))
    return done.end, done.seconds, done.error, done.log, done.request


def _asking(mailbox: Any, label: str) -> Callable[[int, float], bool]:
    def goes_on(step: int, value: float) -> bool:
        return bool(ray.get(mailbox.ask.remote(label, step, value)))

    return goes_on
