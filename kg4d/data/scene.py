"""`load_scene`: a scene folder to the records of `kg4d.data.records`."""

from pathlib import Path

from kg4d.data.readers.scene_folder import read_scene
from kg4d.data.records import Scene


def load_scene(path: str | Path, size: int | None = None) -> Scene:
    """Read a scene folder: `transforms_train.json` and images, and what else there is.

    Args:
        path: The folder; a scene of the D-NeRF data set also will do. `Scene.name` becomes its name.
        size: Pixel grid to resample to, as `Scene.resized` does but one image at a time; the files' own when None.

    Returns:
        The scene. Its optional parts are None where the folder has none; the log says so.

    Raises:
        InputError: Anything is missing, malformed or contradicts the rest.
    """
    return read_scene(Path(path), size)
