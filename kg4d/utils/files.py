"""Atomic writing of files, the cache folder, and hashes of tensors."""

import glob
import hashlib
import os
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; it replaces `path` when the block ends, and is deleted when it raises.

    The new file is on the disk before it gets its name, and the name before this returns: after a power cut there is
    the old file or the new one. Parent folders are created. The temporary name keeps the suffix, because some writers
    choose the format by it. What a killed process has left of an earlier try is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _temporary(path, f".part{path.suffix}", path.stem)
    try:
        yield part
        flush_to_disk(part)
        part.replace(path)
        flush_to_disk(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: str | Path, over: bool = False) -> Iterator[Path]:
    """Yield a temporary folder next to `folder`, which becomes `folder` when the block ends; it is deleted on an error.

    As durable as `replacing`.

    Args:
        folder: Its parents are created.
        over: Remove what is there just before; else it must not be there, or be empty.
    """
    folder = Path(folder)
    part = _temporary(folder, ".partial", folder.name)
    part.mkdir(parents=True)
    try:
        yield part
        for inside in sorted(part.rglob("*")):
            flush_to_disk(inside)
        flush_to_disk(part)
        if over and folder.exists():
            shutil.rmtree(folder)
        try:
            part.replace(folder)
        except OSError as error:  # it would name the temporary folder, which nobody knows
            raise type(error)(error.errno, error.strerror, str(folder)) from error
        flush_to_disk(folder.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def flush_to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _temporary(path: Path, suffix: str, stem: str) -> Path:
    """A name beside `path` that is this process's own; what dead processes of this machine have left there goes."""
    begin = f".{stem}.{socket.gethostname().replace('.', '_')}-"
    for other in path.parent.glob(f"{glob.escape(begin)}*{suffix}"):
        number = other.name.removeprefix(begin).removesuffix(suffix)
        if number.isdigit() and (int(number) == os.getpid() or not _alive(int(number))):
            shutil.rmtree(other) if other.is_dir() else other.unlink(missing_ok=True)
    return path.with_name(f"{begin}{os.getpid()}{suffix}")


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return True


def cache_folder() -> Path:
    """The folder for weights, features and priors: `$KG4D_CACHE`, else `~/.cache/kg4d`."""
    given = os.environ.get("KG4D_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "kg4d"


def tree_hash(tree: Any) -> str:
    """SHA-256 over nested dicts, lists, tensors and plain values: equal for equal ones, whatever file they were in."""
    digest = hashlib.sha256()
    loaded = sys.modules.get("torch")  # without it there are no tensors

    def add(value: Any) -> None:
        if loaded is not None and isinstance(value, loaded.Tensor):
            digest.update(content_hash({"": value}).encode())
        elif isinstance(value, Mapping):
            digest.update(f"{{{len(value)}".encode())
            for key in sorted(value, key=repr):
                add(key)
                add(value[key])
        elif isinstance(value, list | tuple):
            digest.update(f"[{len(value)}".encode())
            for item in value:
                add(item)
        else:
            digest.update(f"{type(value).__name__} {value!r}\n".encode())

    add(tree)
    return digest.hexdigest()


def content_hash(tensors: "Mapping[str, torch.Tensor]") -> str:
    """SHA-256 over names, shapes, types and values: equal for equal tensors, independent of any file format."""
    import torch  # here, so that what needs no tensor begins at once

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
