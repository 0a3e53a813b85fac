"""Atomic writing of files, the cache folder, and hashes of tensors."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; it replaces `path` when the block ends, and is deleted when it raises.

    Parent folders are created. The temporary name keeps the suffix, because some writers choose the format by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def cache_folder() -> Path:
    """The folder for weights, features and priors: `$KG4D_CACHE`, else `~/.cache/kg4d`."""
    given = os.environ.get("KG4D_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "kg4d"


def content_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, types and values: equal for equal tensors, independent of any file format."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
