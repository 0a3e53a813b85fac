"""Settings of `kg4d.data.batches`: plain data that is checked before torch is loaded."""

from dataclasses import dataclass, field


@dataclass
class DynamicDataConfig:
    """What a step of the dynamic stage sees.

    Attributes:
        frames_per_step: Frames drawn at each step; all frames and all pairs if the video is no longer than this.
        strides: Distances between the frames of a pair, in frames; each pair draws one of them.
        test_views: Draw from the test videos too, without keypoints, flow or depth. This gives an upper bound for
            ablations and is not a result, since the test views are then trained on; the provenance of the metrics says
            so.
    """

    frames_per_step: int = 4
    strides: list[int] = field(default_factory=lambda: [1])
    test_views: bool = False


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
