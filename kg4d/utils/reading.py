"""Reading files that may be anything: looked at before memory or time is spent on them.

What is wrong is raised as OSError or ValueError, which every reader turns into a line of its own.
"""

import errno
import json
import math
import stat
from pathlib import Path
from typing import Any

MEGABYTE = 1 << 20
LARGEST_TABLE = 64 * MEGABYTE  # JSON and YAML: a scene of a hundred thousand images has less
LARGEST_FILE = 4096 * MEGABYTE  # read whole


def regular(path: str | Path, most: int = LARGEST_FILE) -> Path:
    """The same path, if it leads to a regular file of at most `most` bytes: no FIFO, device or folder.

    Raises:
        OSError: It does not.
    """
    found = Path(path).stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    if found.st_size > most:
        raise OSError(errno.EFBIG, f"Larger than {most // MEGABYTE} MB", str(path))
    return Path(path)


def is_there(path: str | Path) -> bool:
    """Whether anything has that name, a link that leads nowhere too: what is there is meant to be read."""
    return Path(path).exists() or Path(path).is_symlink()


def is_finite(value: object) -> bool:
    """Whether a value from JSON is a number that a float can hold: no NaN, infinity, truth or number of 400 digits."""
    try:
        return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
    except OverflowError:
        return False


def shown(value: object) -> str:
    """A value from JSON for an error message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def read_table(path: str | Path, most: int = LARGEST_TABLE) -> str:
    """The text of a file, in UTF-8.

    Raises:
        OSError: It is missing, no regular file, or too large.
        ValueError: It is not UTF-8.
    """
    return regular(path, most).read_text(encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: It is missing, no regular file, or too large.
        ValueError: It is not JSON, or is nested or has numbers beyond all reason.
    """
    try:
        return json.loads(read_table(path))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
