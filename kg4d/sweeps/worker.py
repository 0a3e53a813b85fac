"""A process that does one job after the other. Nothing heavy is loaded before it has its own session and output."""

import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import kg4d.utils.before_torch  # noqa: F401  (before torch)
from kg4d.utils.interrupts import signals_as_interrupts
from kg4d.utils.processes import end_with_parent


def work(pipe: Connection, printed: Path, gpus: int) -> None:
    """Do jobs until there are no more, or a signal comes.

    Args:
        pipe: Gives jobs and answers; takes reports, as step and value, and outcomes.
        printed: Gets what would be printed.
        gpus: How many this process sees, which each fit uses; 0 leaves it to the fit.
    """
    os.setsid()  # ctrl-C reaches the one that has started this, which passes it on once
    end_with_parent()
    output = os.open(printed, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    with signals_as_interrupts() as received:
        try:
            from kg4d.sweeps.attempt import attempt
            from kg4d.sweeps.jobs import Job

            while isinstance(job := pipe.recv(), Job):
                pipe.send(attempt(job.on(gpus), _asking(pipe)))
        except (EOFError, KeyboardInterrupt, SystemExit):
            if not received:
                raise
            for number in (signal.SIGINT, signal.SIGTERM):  # what ends anyway takes no further signal
                signal.signal(number, signal.SIG_IGN)


def _asking(pipe: Connection) -> Callable[[int, float], bool]:
    def goes_on(step: int, value: float) -> bool:
        pipe.send((step, value))
        return bool(pipe.recv())

    return goes_on
