"""Folders in object storage, or wherever else fsspec reaches: each is whole at any time, whoever was killed meanwhile.

Below the folder's URL `manifest.json` lists its files by their SHA-256, and a file lies at `files/<hash>/<name>`, where
nothing is ever changed. A put uploads the files that are not there yet, then the manifest, and removes what it no
longer lists: one that is cut short leaves the folder as it was. Every file is checked when it is fetched.
"""

import hashlib
import json
import logging
import posixpath
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from kg4d.errors import InputError
from kg4d.utils.files import replacing

_log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_FORMAT = 1
_TRIES = 3  # a folder that is put anew meanwhile is read anew


class DamagedError(InputError):
    """What is stored is not what was put."""


Listing = Mapping[str, str]  # SHA-256 by the path of a file in the folder


def is_url(place: str | Path) -> bool:
    """Whether a place is an fsspec URL, such as `s3://bucket/folder`, and no path."""
    return "://" in str(place)


def place_of(url: str) -> Path:
    """A relative path for what belongs to a URL.

    >>> place_of("s3://bucket/runs/")
    PosixPath('s3/bucket/runs')
    """
    return Path(*(part for part in re.split(r"[/:]+", url) if part not in ("", ".", "..")))


class StoredFolder:
    """A folder in object storage.

    Args:
        url: As fsspec takes it. Credentials and endpoints come from where its implementation looks for them: the
            environment, or fsspec's own configuration.

    Attributes:
        url: The same, without a slash at its end.
        attempted: What the last put of this object was about to leave there, whether it learnt that it did or not.

    Raises:
        InputError: There is no such kind of storage, or the package for it is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.attempted: Listing | None = None
        self._files, self._root = _opened(self.url)

    def listing(self) -> Listing | None:
        """What lies there; None where no put has ended yet.

        Raises:
            InputError: The storage cannot be reached.
            DamagedError: The manifest is damaged.
        """
        self._files.invalidate_cache()
        with _named(self.url):
            try:
                text = self._files.cat_file(self._at(MANIFEST))
            except FileNotFoundError:
                return None
        return _listing(text, f"{self.url}/{MANIFEST}")

    def put(self, folder: Path, kept: Callable[[str], bool] = lambda path: True, anew: bool = False) -> Listing:
        """Make the stored folder what a local one is now.

        Args:
            folder: The local one. A file that changes meanwhile is taken as it is at one moment.
            kept: Whether a file is stored, by its relative path; links never are.
            anew: Upload every file, and do not rely on what is there, which may be damaged.

        Returns:
            What lies there now.

        Raises:
            InputError: The storage cannot be reached.
            DamagedError: What is there is damaged, and is relied on.
        """
        before = self._before(anew)
        now = {}
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and not path.is_symlink() and kept(name):
                now[name] = self._put_file(path, name, {} if anew else before)
        if now == before and not anew:
            return now
        self.attempted = now
        text = json.dumps({"format": _FORMAT, "sha256": _digest(now), "files": now}, indent=1)
        with _named(self.url):
            self._files.pipe_file(self._at(MANIFEST), text.encode())
        self._remove({_place(*entry) for entry in before.items()} - {_place(*entry) for entry in now.items()})
        return now

    def fetch(self, folder: Path, kept: Callable[[str], bool] = lambda path: True) -> Listing | None:
        """Make a local folder what the stored one is: only what differs is moved, and each file appears whole.

        Args:
            folder: The local one; created.
            kept: Whether a local file that is not stored stays.

        Returns:
            What lay there; None where no put has ended yet, and nothing was changed.

        Raises:
            InputError: The storage cannot be reached.
            DamagedError: A file is missing or damaged.
        """
        for attempt in range(_TRIES):
            listing = self.listing()
            if listing is None:
                return None
            try:
                for name, digest in listing.items():
                    self._fetch_file(folder / name, name, digest)
            except FileNotFoundError as error:
                if attempt + 1 < _TRIES and self.listing() != listing:
                    continue
                raise DamagedError(self.url, f"lacks {name}", "remove it, and make it again") from error
            for path in folder.rglob("*"):
                name = path.relative_to(folder).as_posix()
                if (path.is_file() or path.is_symlink()) and name not in listing and not kept(name):
                    path.unlink()
            return listing
        raise AssertionError  # the last attempt has returned or raised

    def _before(self, anew: bool) -> Listing:
        try:
            return self.listing() or {}
        except DamagedError:
            if not anew:
                raise
            return {}

    def _remove(self, places: Iterable[str]) -> None:
        """Remove files that no manifest lists; those that stay only take room."""
        for place in places:
            try:
                with _named(self.url):
                    self._files.rm_file(self._at(place))
            except (FileNotFoundError, InputError) as error:
                _log.warning("%s: a file that is of no use stays: %s", self.url, error)

    def folders(self) -> Iterator["StoredFolder"]:
        """The stored folders at or below this place, by their URLs."""
        self._files.invalidate_cache()
        with _named(self.url):
            found = self._files.find(self._root)
        for path in sorted(found):
            place = PurePosixPath("/" + path.lstrip("/")).relative_to("/" + self._root.strip("/"))
            if place.name == MANIFEST and "files" not in place.parts:
                yield StoredFolder(posixpath.join(self.url, *place.parent.parts))

    def _put_file(self, path: Path, name: str, before: Listing) -> str:
        """Upload a file if it is not there yet, as it is at one moment; returns its hash."""
        digest = _hash_of(path)
        if before.get(name) == digest:
            return digest
        with tempfile.TemporaryDirectory(prefix="kg4d-") as folder:
            copy = Path(folder) / path.name
            shutil.copyfile(path, copy)
            digest = _hash_of(copy)
            with _named(self.url):
                self._files.makedirs(posixpath.dirname(self._at(_place(name, digest))), exist_ok=True)
                self._files.put_file(str(copy), self._at(_place(name, digest)))
        return digest

    def _fetch_file(self, path: Path, name: str, digest: str) -> None:
        if path.is_file() and not path.is_symlink() and _hash_of(path) == digest:
            return
        with replacing(path) as part:
            with _named(self.url):
                self._files.get_file(self._at(_place(name, digest)), str(part))
            if _hash_of(part) != digest:
                raise DamagedError(f"{self.url}: {name}", "is cut short or changed", "remove it, and make it again")

    def _at(self, place: str) -> str:
        return f"{self._root}/{place}"


@contextmanager
def _named(url: str) -> Iterator[None]:
    """Raise what a storage says as an InputError: it depends on what lies outside this program."""
    try:
        yield
    except (FileNotFoundError, InputError):
        raise
    except Exception as error:
        what = f"cannot be used: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise InputError(url, what, "check its address, the credentials and the network") from error


def _opened(url: str) -> tuple[Any, str]:
    """The file system behind a URL, and the path in it."""
    import fsspec  # late: most runs need none

    kind = url.partition("://")[0]
    try:
        files, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        what = f"the package for {kind}:// is not installed ({error})"
        raise InputError(url, what, 'pip install it; S3 is pip install "kg4d[s3]"') from error
    except ValueError as error:
        raise InputError(url, str(error), "write a path, or a URL that fsspec knows") from error
    return files, root.rstrip("/")


def _listing(text: bytes, where: str) -> Listing:
    """The files that a manifest lists."""
    try:
        table = json.loads(text)
        files = {str(name): str(digest) for name, digest in table["files"].items()}
        whole = table["format"] == _FORMAT and table["sha256"] == _digest(files) and all(map(_is_inside, files))
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise DamagedError(where, "is damaged, or of another version", "remove it, and make it again")
    return files


def _is_inside(name: str) -> bool:
    """Whether a relative path leads to a place in its folder."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\\" not in name


def _place(name: str, digest: str) -> str:
    """Where a file lies below the URL."""
    return f"files/{digest}/{PurePosixPath(name).name}"


def _digest(files: Listing) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
