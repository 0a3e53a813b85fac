"""How far a provider is. Providers count their steps; whoever listens (a bar on the terminal) hears of them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias, TypeVar

T = TypeVar("T")
Report: TypeAlias = Callable[[str, int, int], None]  # what is being done, how much of it is done, of how much

_listener: ContextVar[Report | None] = ContextVar("listener", default=None)


@contextmanager
def listening(report: Report) -> Iterator[None]:
    """Hear of the steps that are taken inside the block."""
    token = _listener.set(report)
    try:
        yield
    finally:
        _listener.reset(token)


def counted(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Pass the items on; each counts as done when the next one is asked for.

    >>> with listening(print):
    ...     frames = list(counted("ab", 2, "frames"))
    frames 0 2
    frames 1 2
    frames 2 2
    """
    report = _listener.get()
    for done, item in enumerate(items):
        if report is not None:
            report(what, done, total)
        yield item
    if report is not None:
        report(what, total, total)
