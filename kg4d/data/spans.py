"""Which frames of a video are used."""

import math
from dataclasses import dataclass

from kg4d.errors import InputError

_ROUNDING = 1e-6  # frames; 0.3 s at 10 a second is frame 3


@dataclass(frozen=True)
class Span:
    """Which part of a video is used.

    Attributes:
        start: First moment, seconds.
        end: Last moment, seconds; None is the end of the video.
        every: Use one frame in so many.
        most: What is left is thinned evenly to this many frames, its first and its last included.
    """

    most: int
    start: float = 0.0
    end: float | None = None
    every: int = 1

    def picked(self, count: int, fps: float) -> list[int]:
        """Indices of the frames used, of a video of `count` frames; by index, which matters if the rate varies.

        Raises:
            InputError: The video has fewer than two frames in that part.
        """
        last = count - 1 if self.end is None else min(count - 1, math.floor(self.end * fps + _ROUNDING))
        within = range(math.ceil(self.start * fps - _ROUNDING), last + 1, self.every)
        if len(within) < min(2, count):
            part = f"{self.start:g} s to {'its end' if self.end is None else f'{self.end:g} s'}"
            what = f"{part}, every={self.every}, leaves {len(within)} of {count} frames"
            key = "every" if self.every > 1 else "start" if self.end is None else "end"
            raise InputError(key, what, f"the input lasts {count / fps:.3g} s, at {fps:.3g} frames a second")
        return [within[index] for index in evenly_spaced(len(within), self.most)]


def evenly_spaced(count: int, limit: int) -> list[int]:
    """Up to `limit` indices below `count`, spread evenly from the first to the last.

    >>> evenly_spaced(31, 4), evenly_spaced(3, 16)
    ([0, 10, 20, 30], [0, 1, 2])
    """
    if count <= limit:
        return list(range(count))
    return [round(index * (count - 1) / (limit - 1)) for index in range(limit)]
