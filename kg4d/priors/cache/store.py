"""Results of providers on disk: computed once for each provider, identity and input, shared by runs side by side.

The scenes that were prepared of them lie there too, and are listed, verified and pruned with them.

An entry that was damaged, or written in another format, is named in the log and computed again, never read.
"""

import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from torch import Tensor

from kg4d.priors.base import Provider
from kg4d.priors.cache.entries import (
    SCENES,
    BrokenEntryError,
    Request,
    check,
    created_and_description,
    read_entry,
    write_entry,
)
from kg4d.utils.files import cache_folder, content_hash

_log = logging.getLogger(__name__)


class PriorCache:
    """The results of providers, kept below one folder.

    Args:
        root: That folder; `priors` in the cache folder when None.

    Attributes:
        root: That folder.
        used: Keys of the results that this object gave, by provider, for the record of a run.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = cache_folder() / "priors" if root is None else Path(root)
        self.used: dict[str, list[str]] = {}

    def get_or_make(
        self, provider: Provider, inputs: Mapping[str, Tensor], make: Callable[[], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """The kept result for these inputs; made and kept where there is none.

        Args:
            provider: Whose result; only its name and identity are read.
            inputs: What it is given.
            make: Computes the result. For one key it runs in one process at a time; the others wait and read.

        Returns:
            CPU tensors, the same bits whether made or read.
        """
        request = Request(provider.name, dict(provider.identity()), content_hash(inputs))
        folder = self.root / request.folder_name
        with self.locked(folder):
            found = _intact(folder)
            if found is None:
                found = {name: tensor.detach().cpu().contiguous() for name, tensor in make().items()}
                write_entry(self.root, request, found)
        keys = self.used.setdefault(provider.name, [])
        if request.key not in keys:
            keys.append(request.key)
        return found

    @property
    def scenes(self) -> Path:
        """The folder of the scenes that were prepared."""
        return self.root / SCENES

    def entries(self) -> list[Path]:
        """The folders of all results by name, then those of all scenes."""
        return [
            path
            for folder in (self.root, self.scenes)
            for path in sorted(folder.glob("[!.]*"))
            if path.is_dir() and path != self.scenes
        ]

    def verify(self) -> dict[Path, str | None]:
        """Read every entry; what is wrong with each, None where it is intact."""
        report: dict[Path, str | None] = {}
        for folder in self.entries():
            try:
                check(folder)
                report[folder] = None
            except BrokenEntryError as error:
                report[folder] = str(error)
        return report

    def prune(self, older_than: float | None = None, max_bytes: int | None = None) -> list[Path]:
        """Remove what is broken or left half-written, then what is old, then the oldest until the rest is small enough.

        What another process is making or reading stays, but a scene only while it is checked, before a fit reads it.

        Args:
            older_than: Age in seconds; None keeps all ages.
            max_bytes: What may stay in all; None keeps all.

        Returns:
            The entries that were removed.
        """
        born = {folder: _born(folder) for folder in self.entries()}
        for partial in [*self.root.glob(".*.partial"), *self.scenes.glob(".*.partial")]:
            # a scene's has the number of its process before the suffix
            self._remove(partial, partial.with_name(re.sub(r"^\.|(\.\d+)?\.partial$", "", partial.name)))
        limit = float("-inf") if older_than is None else time.time() - older_than
        left = sum(size_of(folder) for folder in born)
        removed = []
        for folder in sorted(born, key=lambda path: born[path]):
            size = size_of(folder)
            too_much = max_bytes is not None and left > max_bytes
            if (born[folder] == float("-inf") or born[folder] < limit or too_much) and self._remove(folder, folder):
                left -= size
                removed.append(folder)
        return removed

    def _remove(self, path: Path, entry: Path) -> bool:
        try:
            with FileLock(self._lock_path(entry), timeout=0):
                if not path.exists():  # another process has removed it
                    return False
                shutil.rmtree(path)
        except Timeout:
            return False
        return True

    def _lock_path(self, entry: Path) -> Path:
        path = self.root / ".locks" / f"{entry.name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @contextmanager
    def locked(self, entry: Path) -> Iterator[None]:
        """Let no other process make, read or remove a result or a scene meanwhile."""
        lock = FileLock(self._lock_path(entry))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _log.info("waiting for another run that computes %s", entry.name)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def _intact(folder: Path) -> dict[str, Tensor] | None:
    if not folder.exists():
        return None
    try:
        return read_entry(folder)
    except BrokenEntryError as error:
        _log.warning("%s: %s: computed again", folder, error)
        return None


def _born(folder: Path) -> float:
    """When an entry was made; before all times where it is broken, or was removed meanwhile."""
    try:
        check(folder)
        return created_and_description(folder)[0]
    except BrokenEntryError:
        return float("-inf")


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder, which another process may be removing."""
    size = 0
    for above, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                size += (Path(above) / name).stat().st_size
    return size
