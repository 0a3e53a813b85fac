"""The cache: results are computed once per provider, identity and input, and shared by concurrent runs.

The scenes prepared from them are kept in the same place, and are listed, verified and pruned together with them.
An entry that is damaged or written in another format is named in the log and computed again, never used.
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
from kg4d.utils.files import cache_folder, content_hash, replacing_folder
from kg4d.utils.object_storage import DamagedError, StoredFolder, is_url, place_of

_log = logging.getLogger(__name__)


class PriorCache:
    """The cached results of providers, below one folder.

    Args:
        root: The folder; `priors` in the cache folder when None. It may be an fsspec URL: what is not in a folder of
            this machine is then looked up there, and what is made is put there too.

    Attributes:
        root: The folder, on this machine.
        used: Keys of the results that this object returned, by provider, for the record of a run.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        self._url = str(root) if root is not None and is_url(root) else None
        if self._url is not None:
            self.root = cache_folder() / "priors" / "copies" / place_of(self._url)
        else:
            self.root = cache_folder() / "priors" if root is None else Path(root)
        self.used: dict[str, list[str]] = {}

    def get_or_make(
        self, provider: Provider, inputs: Mapping[str, Tensor], make: Callable[[], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return the cached result for these inputs; compute and store it if there is none.

        Args:
            provider: Whose result it is; only its name and identity are used.
            inputs: The tensors that the provider is given, by name.
            make: Computes the result. Only one process at a time does so for a key; the others wait, and read it then.

        Returns:
            CPU tensors by name, bit for bit the same whether computed or read.
        """
        request = Request(provider.name, dict(provider.identity()), content_hash(inputs))
        folder = self.root / request.folder_name
        with self.locked(folder):
            found = _intact(folder)
            if found is None and self.fetch(folder):
                found = _intact(folder)
            if found is None:
                found = {name: tensor.detach().cpu().contiguous() for name, tensor in make().items()}
                write_entry(self.root, request, found)
                self.share(folder)
        keys = self.used.setdefault(provider.name, [])
        if request.key not in keys:
            keys.append(request.key)
        return found

    def fetch(self, entry: Path) -> bool:
        """Fetch a result or a scene that this machine has not, or has damaged; the caller must hold its lock.

        Returns:
            Whether it was there, and whole.

        Raises:
            InputError: The storage cannot be reached.
        """
        stored = self._stored(entry)
        if stored is None:
            return False
        try:
            if stored.listing() is None:
                return False
            with replacing_folder(entry, over=True) as part:
                stored.fetch(part)
        except DamagedError as error:
            _log.warning("%s: made again", error)
            return False
        return True

    def share(self, entry: Path) -> None:
        """Put a result or a scene that was made here where other machines find it.

        Raises:
            InputError: The storage cannot be reached.
        """
        stored = self._stored(entry)
        if stored is not None:
            stored.put(entry, anew=True)

    def _stored(self, entry: Path) -> StoredFolder | None:
        if self._url is None:
            return None
        return StoredFolder(f"{self._url.rstrip('/')}/{entry.relative_to(self.root).as_posix()}")

    @property
    def scenes(self) -> Path:
        """The folder of the prepared scenes."""
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
        """Read every entry, and report what is wrong with each; None where it is intact."""
        report: dict[Path, str | None] = {}
        for folder in self.entries():
            try:
                check(folder)
                report[folder] = None
            except BrokenEntryError as error:
                report[folder] = str(error)
        return report

    def prune(self, older_than: float | None = None, max_bytes: int | None = None) -> list[Path]:
        """Remove broken and half-written entries, then old ones, then the oldest until the rest is small enough.

        Entries that another process is writing or reading stay. A scene is protected only while it is being checked,
        not while a fit reads it afterwards.

        Args:
            older_than: Remove entries older than this, seconds; None keeps all ages.
            max_bytes: Total size that may stay; None keeps everything.

        Returns:
            The entries that were removed.
        """
        created = {folder: _created(folder) for folder in self.entries()}
        for partial in [*self.root.glob(".*.partial"), *self.scenes.glob(".*.partial")]:
            # machine and process of its maker stand before the suffix
            self._remove(partial, partial.with_name(re.sub(r"^\.|(\.[^.]*\d+)?\.partial$", "", partial.name)))
        limit = float("-inf") if older_than is None else time.time() - older_than
        remaining = sum(size_of(folder) for folder in created)
        removed = []
        for folder in sorted(created, key=lambda path: created[path]):
            size = size_of(folder)
            too_large = max_bytes is not None and remaining > max_bytes
            unwanted = created[folder] == float("-inf") or created[folder] < limit or too_large
            if unwanted and self._remove(folder, folder):
                remaining -= size
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
        """Hold the lock of a result or a scene: no other process writes, reads or removes it meanwhile."""
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


def _created(folder: Path) -> float:
    """When an entry was made, seconds since 1970; minus infinity if it is broken, or was removed meanwhile."""
    try:
        check(folder)
        return created_and_description(folder)[0]
    except BrokenEntryError:
        return float("-inf")


def size_of(folder: Path) -> int:
    """Total size of the files in a folder, bytes; files that another process removes meanwhile do not count."""
    size = 0
    for above, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                size += (Path(above) / name).stat().st_size
    return size
