"""The choice of the reader for a scene."""

from pathlib import Path

from kg4d.data.readers.base import Reader
from kg4d.data.readers.colmap import Colmap
from kg4d.data.readers.dnerf import DNerf
from kg4d.data.readers.nerfies import Nerfies
from kg4d.data.readers.scene_folder import SceneFolder

READERS: tuple[Reader, ...] = (Nerfies(), DNerf(), SceneFolder(), Colmap())  # the first that recognises a path reads it


def find_reader(path: Path) -> Reader | None:
    """The reader of the scene at `path`; None if no reader recognises it."""
    return next((reader for reader in READERS if reader.recognises(path)), None)
