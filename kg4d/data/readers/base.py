"""What a reader of a scene format is."""

from pathlib import Path
from typing import Protocol, runtime_checkable

from kg4d.data.records import Scene


@runtime_checkable  # for the tests, which check arguments at run time
class Reader(Protocol):
    """Reads the scenes of one format."""

    format: str  # its name and how one tells it, for a person whose path no reader knows

    def recognises(self, path: Path) -> bool:
        """Whether `path` is meant as a scene of this format, judged by which files there are.

        It says yes to a damaged one too: `read` then names the damage.
        """
        ...

    def read(self, path: Path, size: int | None) -> Scene:
        """Read a scene that this reader recognises.

        Args:
            path: The scene.
            size: Longer side of its images in px, to which they are resampled; their own size when None.

        Returns:
            The scene. What the format does not have, or this scene lacks, is None.

        Raises:
            InputError: Anything is missing, malformed or contradicts the rest.
        """
        ...
