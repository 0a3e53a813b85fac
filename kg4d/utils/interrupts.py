"""SIGINT and SIGTERM as an exception that knows which it was, and that no half-loaded library swallows."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_IMPORTING = "<frozen importlib._bootstrap>"  # the file of the frames that load a module
_AGAIN = 0.05  # seconds


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to end.

    Attributes:
        number: Of the signal.
    """

    def __init__(self, number: int, what: str = "") -> None:
        super().__init__(what)
        self.number = number


@contextmanager
def signals_as_interrupts() -> Iterator[list[int]]:
    """Raise `Interrupted` on SIGINT and SIGTERM, which schedulers send, while the block runs.

    Not while a module loads: libraries turn an exception that comes then into others, or drop it. It comes after.

    Yields:
        The numbers of the signals that have come.
    """
    received: list[int] = []
    waiting: list[threading.Timer] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append(number)
        while frame is not None:
            if frame.f_code.co_filename == _IMPORTING:
                waiting.append(threading.Timer(_AGAIN, os.kill, (os.getpid(), number)))
                waiting[-1].daemon = True
                waiting[-1].start()
                return
            frame = frame.f_back
        raise Interrupted(number)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for timer in waiting:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
