"""Windows of a long clip, fitted one after the other."""

from dataclasses import dataclass


@dataclass
class WindowsConfig:
    """How a long clip is cut, for Gaussians in space and time.

    Attributes:
        frames: Frames of a window; 0, or more than the clip has, fits the whole clip at once.
        overlap: Frames that a window shares with the one before. What those before the shared ones see is left as
            it is, so they should be more than a Gaussian lasts.
    """

    frames: int = 0
    overlap: int = 10

    def __post_init__(self) -> None:
        """Refuse windows that do not get on.

        Raises:
            ValueError: Of the settings.
        """
        if self.frames > 0 and not 1 <= self.overlap < self.frames:
            what = f"must be at least 1 and below the {self.frames} frames of a window, not {self.overlap}"
            raise ValueError(f"dynamic.data.windows.overlap: {what}")

    def of(self, count: int) -> list[range]:
        """The windows of a clip of `count` frames, in order: all as long, and the last one ends with the clip.

        >>> WindowsConfig(frames=6, overlap=2).of(13)
        [range(0, 6), range(4, 10), range(7, 13)]
        """
        if not 0 < self.frames < count:
            return [range(count)]
        starts = [*range(0, count - self.frames, self.frames - self.overlap), count - self.frames]
        return [range(start, start + self.frames) for start in starts]
