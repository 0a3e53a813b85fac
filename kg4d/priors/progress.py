"""Progress of providers: they count their steps, and a listener, such as a bar on the terminal, is told."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias, TypeVar

T = TypeVar("T")
Report: TypeAlias = Callable[[str, int, int], None]  # what is being counted, how many are done, of how many

_listener: ContextVar[Report | None] = ContextVar("listener", default=None)


@contextmanager
def listening(report: Report) -> Iterator[None]:
    """Call `report` for the steps that are taken inside the block."""
    token = _listener.set(report)
    try:
        yield
    finally:
        _listener.reset(token)


def counted(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield the items; each counts as done when the next one is requested.

    Args:
        items: What to iterate over.
        total: How many items there are.
        what: What they are called, in the plural.

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
