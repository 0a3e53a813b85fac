"""`load_scene`: reads a scene on disk, in any format that has a reader, into the records of `kg4d.data.records`."""

import logging
from pathlib import Path

from kg4d.data.readers.build import READERS, find_reader
from kg4d.data.records import Scene
from kg4d.data.sizes import Size
from kg4d.errors import InputError

_log = logging.getLogger(__name__)

_WITHOUT = {
    "ring": "no views of the first frame from around",
    "test": "no held-out videos to measure on",
    "keypoints": "no keypoints: their losses are off",
    "flow": "no optical flow: the flow loss uses the motion of the keypoints, where there are any",
}


def load_scene(path: str | Path, size: int | Size | None = None) -> Scene:
    """Read a scene.

    Args:
        path: A folder in one of the known formats. `Scene.name` is its name.
        size: Longer side of the images, px, or their size: they are resampled to it one at a time, with the same result
            as `Scene.resized`. Their own size when None.

    Returns:
        The scene. Optional parts that it lacks are None; the log names them.

    Raises:
        InputError: The format is not known, or a part is missing, malformed or contradicts another.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(path, "no such folder", "check the path of the scene")
    reader = find_reader(path)
    if reader is None:
        formats = "; ".join(known.format for known in READERS)
        raise InputError(path, "is not a scene in a known format", f"known formats: {formats}")
    scene = reader.read(path, size)
    for part, without in _WITHOUT.items():
        if getattr(scene, part) is None:
            _log.info("%s: %s", path, without)
    return scene
