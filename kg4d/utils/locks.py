"""One process at a time: locks on folders that name their holder."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from kg4d.errors import InputError


@contextmanager
def held_alone(lock: Path, folder: Path, remedy: str) -> Iterator[None]:
    """Hold `lock` while the block runs; the system gives it back when this process dies, however it does.

    Args:
        lock: The lock file; its parents are created, and the name of the holder stands beside it.
        folder: What it guards, for the message.
        remedy: What a person can do who finds it held.

    Raises:
        InputError: Another process holds it, or the folder cannot be written to.
    """
    holder = lock.with_name(f"{lock.name}.holder")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        guard = FileLock(lock, timeout=0)
        guard.acquire()
    except Timeout as error:
        with suppress(OSError):
            raise InputError(folder, f"is in use by {holder.read_text(encoding='utf-8').strip()}", remedy) from error
        raise InputError(folder, "is in use by another process", remedy) from error
    except OSError as error:
        raise InputError(folder, f"cannot be written to: {error.strerror or error}", "choose another folder") from error
    try:
        since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()} since {since}\n", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        guard.release()
