"""Size of an image."""

from collections.abc import Sequence
from typing import NamedTuple


class Size(NamedTuple):
    """Width and height of an image, px."""

    width: int
    height: int

    @classmethod
    def of(cls, shape: Sequence[int]) -> "Size":
        """That of images of a shape (..., height, width, channels)."""
        return cls(shape[-2], shape[-3])

    def within(self, longer: "int | Size | None") -> "Size":
        """The same shape with `longer` px along its longer side, or that size; itself where None.

        >>> Size(240, 180).within(128)
        Size(width=128, height=96)
        """
        if longer is None:
            return self
        if isinstance(longer, Size):
            return longer
        factor = longer / max(self)
        return Size(max(1, round(self.width * factor)), max(1, round(self.height * factor)))

    def __str__(self) -> str:
        return f"{self.width} x {self.height}"
