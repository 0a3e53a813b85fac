"""The one door to matplotlib: pictures as PNG, without a window or a global state."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kg4d.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def require() -> None:
    """Say at once, and not after the work, that pictures cannot be drawn.

    Raises:
        InputError: matplotlib is missing.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise InputError("pictures", "matplotlib is not installed", 'pip install "kg4d[flows]"') from error


@contextmanager
def canvas(path: Path, columns: int, rows: int = 1, width: float = 3.2, height: float = 3.0) -> Iterator[list["Axes"]]:
    """Axes to draw on, row by row; written to `path` afterwards.

    Args:
        path: The PNG file; its folder is made.
        columns: How many beside one another.
        rows: How many below one another.
        width: Of each, inches.
        height: Of each, inches.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    yield list(axes.flatten())
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Software": None})  # the same bytes whatever the version is called
