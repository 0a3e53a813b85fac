"""Hashes of weight files, by which the identities of providers name their weights."""

import hashlib
import re
from functools import cache
from pathlib import Path


def hash_of_weights(path: Path) -> str:
    """SHA-256 of a file, read once per process; large files in the hub's cache are named by it and not read at all."""
    file = path.resolve()
    if file.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", file.name):
        return file.name
    status = file.stat()
    return _read(file, status.st_size, status.st_mtime_ns)


@cache
def _read(file: Path, size: int, changed: int) -> str:
    """SHA-256 of a file; size and time of change are arguments so that a changed file is read again."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
