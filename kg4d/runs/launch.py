"""The processes of one fit: how many, on which devices, who starts them, and what happens when one of them ends.

They are started here, or by torchrun or SLURM. Here one process watches the others: when one fails or is killed, the
others are ended, and its reason is the reason.
"""

import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch.distributed import FileStore, PrefixStore, TCPStore  # type: ignore[attr-defined]

from kg4d.config.schema import ExperimentConfig
from kg4d.errors import InputError
from kg4d.render.build import gpu_missing_reason
from kg4d.render.settings import RendererKind
from kg4d.stages.settings import Accelerator
from kg4d.utils.interrupts import Interrupted
from kg4d.utils.logs import TRACEBACK_NOTE, is_debugging, log_to_console
from kg4d.utils.processes import end_with_parent, environment_of, threads_of_each
from kg4d.utils.ranks import ALONE, LostRankError, Ranks

_log = logging.getLogger(__name__)

_FOREVER = timedelta(days=7)  # others may wait while one prepares a video; a process that is lost is noticed otherwise
_GRACE = 5.0  # seconds that a process has to end after another one did
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_INTERRUPTS = (KeyboardInterrupt.__name__, Interrupted.__name__)


@dataclass(frozen=True)
class Crew:
    """The processes that a fit asks for.

    Attributes:
        count: How many.
        on_gpu: Whether each computes on a GPU of its own.
        started: Whether they run already, and this is one of them.
        chosen: Whether `trainer.accelerator` chooses between CPU and GPU, and not the renderer.
    """

    count: int
    on_gpu: bool
    started: bool
    chosen: bool = False

    def device(self, local_rank: int, wanted: str) -> str:
        """`renderer.device` of one of them: its own GPU, where there are several."""
        if self.count == 1 and not self.chosen:
            return wanted
        own = f"cuda:{local_rank}" if self.count > 1 or wanted == "auto" else wanted
        return own if self.on_gpu else "cpu"


class FailedRankError(RuntimeError):
    """One of the processes of a fit failed or was killed."""


def crew_of(config: ExperimentConfig) -> Crew:
    """Check how many processes a fit asks for, and on what, before anything is built.

    Raises:
        InputError: There are fewer GPUs, or settings contradict each other.
    """
    asked, running = config.trainer.devices, _outside()
    on_gpu = _on_gpu(config, several=asked != "1")
    if asked in ("auto", "-1"):
        count = running.world_size() if running else max(1, torch.cuda.device_count()) if on_gpu else 1
    else:
        count = int(asked)
    if running and running.world_size() != count:
        what = f"is {asked}, but {running.world_size()} processes were started"
        raise InputError("trainer.devices", what, "start as many, or set it to auto")
    if count > 1 and ":" in config.renderer.device:
        what = f"names one GPU, and trainer.devices={asked} asks for {count}"
        raise InputError("renderer.device", what, "leave it at auto, and choose GPUs with CUDA_VISIBLE_DEVICES")
    here = torch.cuda.device_count()
    if on_gpu and not running and count > 1 and count > here:
        what = f"is {asked}, but this process may use {here} GPU{'s' * (here != 1)}"
        raise InputError("trainer.devices", what, "set it to auto, or to fewer")
    return Crew(count, on_gpu, running is not None, config.trainer.accelerator is not Accelerator.AUTO)


def _on_gpu(config: ExperimentConfig, several: bool) -> bool:
    """Whether a fit computes on GPUs; looked into only where several processes are asked for, or it is said."""
    accelerator, renderer = config.trainer.accelerator, config.renderer
    says_gpu = renderer.kind is RendererKind.cuda or renderer.device.startswith("cuda")
    says_cpu = renderer.kind is RendererKind.cpu or renderer.device == "cpu"
    if accelerator is Accelerator.CPU and says_gpu:
        raise InputError("trainer.accelerator", "is cpu, and the renderer is to use a GPU", "set one of them to auto")
    if accelerator is Accelerator.GPU and says_cpu:
        raise InputError("trainer.accelerator", "is gpu, and the renderer is to use the CPU", "set one of them to auto")
    if accelerator is Accelerator.CPU or not (several or accelerator is Accelerator.GPU):
        return says_gpu
    missing = "the renderer is to use the CPU" if says_cpu else gpu_missing_reason()
    if missing is None or says_gpu or config.trainer.devices in ("auto", "-1", "1"):
        if missing is not None and accelerator is Accelerator.GPU:
            raise InputError("trainer.accelerator", f"is gpu, but {missing}", "see docs/gpu.md")
        return missing is None or says_gpu
    what = f"{config.trainer.devices} processes need as many GPUs, but {missing}"
    raise InputError("trainer.devices", what, "set it to 1; trainer.accelerator=cpu shares a fit out on the CPU")


def _outside() -> TorchElasticEnvironment | SLURMEnvironment | None:
    """Who has started several processes already: torchrun or srun; None where nobody has."""
    if TorchElasticEnvironment.detect() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return TorchElasticEnvironment()
    if "SLURM_PROCID" in os.environ and "SLURM_STEP_ID" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        try:
            return SLURMEnvironment()
        except RuntimeError as error:
            raise InputError("SLURM", str(error), "start a fit with srun --ntasks-per-node=<GPUs of a node>") from error
    return None


def is_first() -> bool:
    """Whether this process is the one that reports, or the only one."""
    running = _outside()
    return running is None or running.global_rank() == 0


@contextmanager
def joined(crew: Crew) -> Iterator[tuple[Ranks, int]]:
    """Join the processes that torchrun or SLURM has started; yields them and this one's number on its machine."""
    running = _outside()
    if running is None or crew.count == 1:
        yield ALONE, 0
        return
    ranks = Ranks(running.global_rank(), crew.count)
    store = _store(running.main_address, running.main_port, ranks)
    with _together(ranks, crew.on_gpu, running.local_rank(), PrefixStore(f"fit{next(_fits)}", store)):
        yield ranks, running.local_rank()


_fits = iter(range(2**62))  # each fit of this process gets a part of the store of its own


@cache
def _store(address: str, port: int, ranks: Ranks) -> Any:
    own = ranks.first and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    return TCPStore(address, port, ranks.count, is_master=own, timeout=_FOREVER)


@contextmanager
def _together(ranks: Ranks, on_gpu: bool, local_rank: int, store: Any) -> Iterator[None]:
    """A process group while the block runs; on GPUs one for what lies there, and one for what does not."""
    if on_gpu:
        torch.cuda.set_device(local_rank)
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.count, timeout=_FOREVER)
    try:
        yield
    finally:
        leave()


def leave() -> None:
    """End what this process has to do with the others; again does nothing."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


Work = Callable[[Ranks, int], Any]
"""What each process does, told the processes and its number on its machine."""


def launch(crew: Crew, work: Work, log: Path) -> None:
    """Start the processes, and wait until they are done.

    Args:
        crew: How many, on what.
        work: What each does; importable, as it is pickled.
        log: Gets the traceback of a process that fails.

    Raises:
        InputError: One of them says that the request is wrong.
        FailedRankError: One of them failed or was killed; the others were ended.
        Interrupted: A signal came, and was passed on.
    """
    context = multiprocessing.get_context("spawn")
    threads = {} if crew.on_gpu else threads_of_each(crew.count)
    with tempfile.TemporaryDirectory(prefix="kg4d-") as folder, environment_of(threads):
        members = []
        for rank in range(crew.count):
            here, there = context.Pipe(duplex=False)
            arguments = (crew, rank, Path(folder) / "store", work, there, is_debugging())
            process = context.Process(target=_member, args=arguments, name=f"kg4d rank {rank}")
            members.append(_Member(rank, process, here))
            process.start()
            there.close()
        with _passed_on(members) as signals:
            _watch(members)
        _raise_reason(members, signals, log)


class _Report(NamedTuple):
    """How a process has failed."""

    kind: str  # name of the class of its exception
    message: str
    trace: str
    request: InputError | None = None


@dataclass
class _Member:
    """One process, and what it has said at its end: nothing where it was done, or was killed."""

    rank: int
    process: BaseProcess
    said: Connection
    report: _Report | None = None

    def collect(self) -> None:
        """Read its report, once it has ended."""
        self.process.join()
        try:
            if self.report is None and self.said.poll():
                self.report = self.said.recv()
        except EOFError:
            pass

    @property
    def urgency(self) -> int:
        """How likely this one is the reason why the others ended: 0 is not at all."""
        if self.report is None:
            return 0 if self.process.exitcode == 0 else 3
        return {LostRankError.__name__: 1, **dict.fromkeys(_INTERRUPTS, 2)}.get(self.report.kind, 4)


def _watch(members: list[_Member]) -> None:
    """Wait for all of them; after one has ended badly, the others have little time."""
    running, patience = {member.process.sentinel: member for member in members}, None
    while running:
        left = None if patience is None else max(0.0, patience - time.monotonic())
        ended = wait(list(running), timeout=left)
        for sentinel in ended:
            member = running.pop(int(sentinel))  # type: ignore[arg-type]
            member.collect()
            if member.process.exitcode != 0 and patience is None:
                patience = time.monotonic() + _GRACE
        if not ended:
            for member in running.values():
                member.process.kill()


def _raise_reason(members: list[_Member], signals: list[int], log: Path) -> None:
    worst = max(members, key=lambda member: member.urgency)
    if worst.urgency == 0:
        return
    if signals:
        raise Interrupted(signals[0])
    if worst.report is None:
        code = worst.process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        trace = "it left no traceback\n"
    else:
        if worst.report.request is not None:
            raise worst.report.request
        if worst.report.kind in _INTERRUPTS:
            raise KeyboardInterrupt(worst.report.message)
        how, trace = f"failed with {worst.report.kind}: {worst.report.message}", worst.report.trace
    error = FailedRankError(f"process {worst.rank} of {len(members)} {how}")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{error}\n{trace}")
    error.add_note(f"{TRACEBACK_NOTE}{log}")
    raise error


@contextmanager
def _passed_on(members: list[_Member]) -> Iterator[list[int]]:
    """Pass signals on, which the processes do not get from a terminal; the second one kills them."""
    got: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        got.append(number)
        for member in members:
            if member.process.is_alive():
                member.process.terminate() if len(got) == 1 else member.process.kill()

    if threading.current_thread() is not threading.main_thread():
        yield got
        return
    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield got
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _member(crew: Crew, rank: int, store: Path, work: Work, say: Connection, debug: bool | None) -> None:
    """What a process does that `launch` has started."""
    os.setsid()  # ctrl-C reaches the one that watches, which passes it on once
    signal.signal(signal.SIGTERM, _interrupt)
    end_with_parent()
    if rank > 0:
        for stream in (sys.stdout, sys.stderr):  # the first one says what all would say
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    elif debug is not None:
        log_to_console(debug)
    ranks = Ranks(rank, crew.count)
    try:
        with _together(ranks, crew.on_gpu, rank, FileStore(str(store), crew.count)):
            work(ranks, rank)
    except BaseException as error:
        cause = error.__context__ if isinstance(error, SystemExit) and error.__context__ else error  # as cli.run does
        request = cause if isinstance(cause, InputError) else None
        say.send(_Report(type(cause).__name__, str(cause), traceback.format_exc(), request))
        say.close()
        sys.stdout.flush()
        os._exit(1)  # threads of torch may still wait for the others


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
