"""Run folders in object storage: a fit works in a local folder, which is copied up at every checkpoint and at its end.

What a kill loses is what came after the last checkpoint, as on a local disk. One process at a time may fit a run; that
another one has written to it meanwhile is noticed at the next copy.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kg4d.config.schema import ExperimentConfig
from kg4d.errors import InputError
from kg4d.runs.folder import RunFolder, local_output
from kg4d.utils.files import replacing
from kg4d.utils.object_storage import Listing, StoredFolder, is_url
from kg4d.utils.reading import read_json

_log = logging.getLogger(__name__)

_KNOWN = ".stored.json"  # what lay there when the local folder last was the same


class Mirror:
    """A local run folder and the stored one that it is a copy of.

    Args:
        folder: The local one.
        url: Of the stored one.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self._stored = StoredFolder(url)
        self._anew = False

    @classmethod
    def of(cls, config: ExperimentConfig) -> "Mirror | None":
        """That of a run; None where its output is a local folder."""
        if not is_url(config.output):
            return None
        folder = RunFolder.of(config).path
        return cls(folder, f"{config.output.rstrip('/')}/{folder.relative_to(local_output(config.output)).as_posix()}")

    def fetch(self) -> bool:
        """Make the local folder what is stored, unless it was the same before: then it may be ahead.

        Returns:
            Whether anything is stored.

        Raises:
            InputError: The storage cannot be reached, or a file there is missing or damaged.
        """
        listing = self._stored.listing()
        if listing is None:
            return False
        if listing != self._known():
            (self.folder / _KNOWN).unlink(missing_ok=True)
            fetched = self._stored.fetch(self.folder, kept=_is_local)
            if fetched is not None:
                self._remember(fetched)
                _log.info("%s: fetched from %s", self.folder, self._stored.url)
        return True

    def replace(self) -> None:
        """Let the next copy replace whatever is stored, whether it is whole or not."""
        self._anew = True

    def put(self) -> None:
        """Copy the local folder up.

        Raises:
            InputError: The storage cannot be reached, or another process has written there.
        """
        if not self._anew and self._stored.listing() not in (self._known(), self._stored.attempted):
            remedy = "let one process at a time fit a run, and go on with --resume"
            raise InputError(self._stored.url, "was written to by another process meanwhile", remedy)
        self._remember(self._stored.put(self.folder, lambda name: not _is_local(name), self._anew))
        self._anew = False

    def put_if_possible(self) -> None:
        """Copy the local folder up, and go on where that fails: the next copy makes up for it."""
        try:
            self.put()
        except InputError as error:
            _log.warning("%s; this checkpoint is kept in %s alone", error, self.folder)

    def _known(self) -> Listing | None:
        try:
            known: Listing = read_json(self.folder / _KNOWN)
        except (OSError, ValueError):
            return None
        return known

    def _remember(self, listing: Listing) -> None:
        with replacing(self.folder / _KNOWN) as part:
            part.write_text(json.dumps(listing), encoding="utf-8")


def _is_local(name: str) -> bool:
    """Whether a file of a run folder has no meaning elsewhere: locks, marks, and what is half written."""
    return name.rpartition("/")[2].startswith(".")


@contextmanager
def mirrored(config: ExperimentConfig, overwrite: bool) -> Iterator[Mirror | None]:
    """Fetch what is stored of a run, and copy the local folder up when the block ends, however it ends.

    Args:
        config: Of the run; nothing is done where its output is a local folder.
        overwrite: Leave what is stored where it is, to be replaced.

    Raises:
        InputError: The storage cannot be reached, or another process has written there.
    """
    mirror = Mirror.of(config)
    if mirror is None:
        yield None
        return
    if overwrite or not mirror.fetch():
        mirror.replace()
    try:
        yield mirror
    except BaseException:
        if RunFolder(mirror.folder).config.is_file():  # else nothing was begun, and what is stored stays
            mirror.put_if_possible()
        raise
    mirror.put()


def local_copies(place: str) -> Path:
    """A local folder with the runs that are stored at or below a URL; a path is given back as it is.

    Raises:
        InputError: There are none, the storage cannot be reached, or a fit on this machine is at work on one.
    """
    if not is_url(place):
        return Path(place)
    above, found = local_output(place), False
    for stored in StoredFolder(place).folders():
        found, folder = True, RunFolder(above / stored.url.removeprefix(place.rstrip("/")).lstrip("/"))
        with folder.alone():
            Mirror(folder.path, stored.url).fetch()
    if not found:
        raise InputError(place, "holds no run", "give the URL of a run, or one above runs")
    return above
