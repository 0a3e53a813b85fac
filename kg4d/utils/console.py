"""Rich's console, as everything here prints tables with it."""

from rich.console import Console
from rich.table import Column, Table

from kg4d.utils.logs import is_watched

_WIDE = 10_000  # columns: a file or a pipe has no edge to wrap at


def console() -> Console:
    """Of stdout: as wide as the terminal, and elsewhere as wide as what is printed.

    NO_COLOR leaves bold letters out too, and so every escape sequence but those of a table that changes.
    """
    made = Console(highlight=False, width=None if is_watched() else _WIDE)
    return Console(highlight=False, width=made.width, color_system=None) if made.no_color else made


def table(*headers: str) -> Table:
    """A table whose words are never cut off: where a terminal is too narrow they go on in the next line."""
    return Table(*(Column(header, overflow="fold") for header in headers))
