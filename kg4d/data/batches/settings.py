"""Settings of `kg4d.data.batches`: plain data that is checked before torch is loaded."""

from dataclasses import dataclass, field


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


@dataclass
class DynamicDataConfig:
    """What a step of the dynamic stage sees.

    Attributes:
        frames_per_step: Frames drawn at each step; all frames and all pairs if the video is no longer than this.
        strides: Distances between the frames of a pair, in frames; each pair draws one of them.
        test_views: Draw from the test videos too, without keypoints, flow or depth. This gives an upper bound for
            ablations and is not a result, since the test views are then trained on; the provenance of the metrics says
            so.
        windows: Of a long clip, fitted one after the other.
    """

    frames_per_step: int = 4
    strides: list[int] = field(default_factory=lambda: [1])
    test_views: bool = False
    windows: WindowsConfig = field(default_factory=WindowsConfig)


@dataclass
class StaticDataConfig:
    """What a step of the static stage sees.

    Attributes:
        views_per_step: Views drawn at each step, without replacement; all views if there are fewer.
    """

    views_per_step: int = 4


@dataclass
class RefineDataConfig:
    """What a step of the refine stage sees.

    Attributes:
        frames: Which frames of the reference video.
        views: Which views of the first frame; they preserve the colours that the reference view does not show.
    """

    frames: DynamicDataConfig = field(default_factory=DynamicDataConfig)
    views: StaticDataConfig = field(default_factory=StaticDataConfig)
