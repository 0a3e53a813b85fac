"""The content of files of weights, by which the identities of providers name them."""

import hashlib
import re
from functools import cache
from pathlib import Path


def hash_of_weights(path: Path) -> str:
    """SHA-256 of a file, which is read once in a process; the hub's cache names its large files by it already."""
    file = path.resolve()
    if file.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", file.name):
        return file.name
    status = file.stat()
    return _read(file, status.st_size, status.st_mtime_ns)


@cache
def _read(file: Path, size: int, changed: int) -> str:
    """Size and time of change are only there to be looked up by."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
