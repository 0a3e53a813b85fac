"""The protocol of readers of scene formats."""

from pathlib import Path
from typing import Protocol, runtime_checkable

from kg4d.data.records import Scene
from kg4d.data.sizes import Size


@runtime_checkable  # for the tests, which check arguments at run time
class Reader(Protocol):
    """Reads the scenes of one format."""

    format: str  # name of the format and its files, for the error about a path that no reader recognises

    def recognises(self, path: Path) -> bool:
        """Whether `path` is meant to be a scene of this format, judged by which files exist.

        A damaged scene is recognised too; `read` then reports the damage.
        """
        ...

    def read(self, path: Path, size: int | Size | None) -> Scene:
        """Read a scene that this reader recognises.

        Args:
            path: The scene.
            size: Longer side that its images are resampled to, px, or their size; their own size when None.

        Returns:
            The scene. Parts that the format or this scene does not have are None.

        Raises:
            InputError: A part is missing, malformed or contradicts another.
        """
        ...
