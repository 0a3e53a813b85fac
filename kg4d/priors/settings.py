"""Settings of `kg4d.priors`: plain data that is checked before torch is loaded."""

import math
from dataclasses import dataclass, field
from enum import StrEnum

from kg4d.data.spans import Span
from kg4d.priors.diffusion.settings import VideoConfig, ViewsConfig
from kg4d.priors.keypoints.settings import (
    FeaturesConfig,
    KeypointSourceConfig,
    PointTrackingConfig,
    TransferConfig,
)


class DepthKind(StrEnum):
    """Where the depth of the reference video comes from."""

    AUTO = "auto"  # what `path` or `model` names, else the scene's folder `depth`, else none: nothing is fetched
    FILES = "files"
    NETWORK = "network"
    NONE = "none"


class DepthMeasure(StrEnum):
    """What the numbers are."""

    AUTO = "auto"  # depth in files; of a network what its settings say
    DEPTH = "depth"  # along the optical axis
    INVERSE = "inverse"  # one over it, as most networks tell it


@dataclass
class DepthPriorConfig:
    """Depth of the reference video, up to a scale and a shift of each frame.

    Attributes:
        kind: Where it comes from; `none` leaves it out.
        path: For `kind: files`: a folder with an image a frame, in the order of their names, as 16-bit grey `.png` or
            as `.npy`, in pixels of the scene's images; the scene's folder `depth` when null. 0 is unknown.
        model: For `kind: network`: hub id, or folder of the weights, of a network for monocular depth.
        measure: Whether these are depths or their inverses.
    """

    kind: DepthKind = DepthKind.AUTO
    path: str | None = None
    model: str | None = None
    measure: DepthMeasure = DepthMeasure.AUTO


class FlowKind(StrEnum):
    """Which estimator computes the flow."""

    AUTO = "auto"  # DIS
    DIS = "dis"
    RAFT = "raft"
    FILES = "files"
    NONE = "none"


@dataclass
class FlowConfig:
    """Optical flow from each frame to the next.

    Attributes:
        kind: Which estimator; `none` leaves the flow out.
        path: For `kind: files`: an `.npz` with the arrays of a scene's `flow.npz`, in pixels of the input. For
            `kind: raft`: a file with the state of torchvision's `raft_large` or `raft_small`; its weights when null.
        tolerance_px: Error of the return trip at which the confidence falls to 0, px.
        tolerance_share: The same as a fraction of the flow's length; the larger tolerance of the two applies.
    """

    kind: FlowKind = FlowKind.AUTO
    path: str | None = None
    tolerance_px: float = 1.0
    tolerance_share: float = 0.05


class FlowFeaturesKind(StrEnum):
    """Where the features come from that a motion sees of the reference video."""

    AUTO = "auto"  # files where `path` names a folder, else DIS: nothing is fetched
    DIS = "dis"  # flow by OpenCV's DIS, deep features by VGG16 where its weights are on this machine
    RAFT = "raft"  # both by torchvision's RAFT
    FILES = "files"  # flow by DIS, deep features from files


@dataclass
class FlowFeaturesConfig:
    """Features of the reference video for a motion that watches it.

    Attributes:
        kind: Where they come from.
        path: For `kind: files`: a folder with one `.npy` a frame, channels x height x width, in the order of their
            names. For `kind: raft`: a file with the state of torchvision's `raft_large` or `raft_small`, `.safetensors`
            or as torch saves it; torchvision's own weights when null.
    """

    kind: FlowFeaturesKind = FlowFeaturesKind.AUTO
    path: str | None = None


@dataclass
class FramingConfig:
    """The square crop around the object.

    Attributes:
        size: Side of the frames that are written, px.
        share: Fraction of the side that the longer side of the object's bounding box takes, over the whole clip; null
            keeps the whole input, which must then be square.
    """

    size: int = 256
    share: float | None = 0.8

    def __post_init__(self) -> None:
        """Check the ranges of the settings.

        Raises:
            ValueError: The size is below 16 px, or the share is not in (0, 1].
        """
        if self.size < 16:
            raise ValueError(f"framing.size: must be at least 16, not {self.size}")
        if self.share is not None and not 0 < self.share <= 1:
            raise ValueError(f"framing.share: must lie in (0, 1], not {self.share}")


class MattingKind(StrEnum):
    """Where the matte comes from."""

    AUTO = "auto"  # the alpha channel, else an even background, else a still camera, else the network
    ALPHA = "alpha"  # the alpha channel of the file
    KEY = "key"  # an even background is keyed; where it is not even, GrabCut
    STILL = "still"  # what a still camera sees move, with U2-Net-p to name the object
    NETWORK = "network"  # U2-Net-p finds the object
    GRABCUT = "grabcut"
    REMBG = "rembg"
    FILES = "files"


@dataclass
class MattingConfig:
    """How the object is separated from its background.

    Attributes:
        kind: Where the matte comes from.
        path: For `kind: files`: a folder of masks, one per frame of the input, in the order of their names.
        point: A pixel (x, y) of the input's first frame on the object, where there are several.
        click: The point is clicked: a page shows the first frame, at `keypoints.port`.
        tolerance: Largest difference between a pixel of the background and its colour, in [0, 255].
        border_share: The background counts as even, and a camera as still, if this fraction of the border's pixels is
            within the tolerance of one colour, or of their own colour over time.
        agreement: GrabCut's refinement of a key is kept if their intersection over union is above this.
        model: For `kind: rembg`: name of its network.
    """

    kind: MattingKind = MattingKind.AUTO
    path: str | None = None
    point: list[float] | None = None
    click: bool = False
    tolerance: float = 12.0
    border_share: float = 0.97
    agreement: float = 0.9
    model: str = "u2net"

    def __post_init__(self) -> None:
        """Check the point.

        Raises:
            ValueError: It is not two numbers from 0, or is to be clicked too.
        """
        if self.point is not None and (len(self.point) != 2 or min(self.point) < 0):
            raise ValueError(f"matting.point: must be a pixel [x, y] of the input, not {self.point}")
        if self.point is not None and self.click:
            raise ValueError("matting.click: the point is given already: matting.point")


@dataclass
class PriorsConfig:
    """How a scene is made from one image or one video.

    Attributes:
        frames: A longer video is thinned evenly to this many frames.
        start: First moment of the video that is used, seconds.
        end: Last moment of the video that is used, seconds; its end when null.
        every: One frame in so many is used.
        framing: The square crop around the object.
        matting: How the object is separated from the background.
        video: How the video is made if the input is a single image.
        views: How views of the first frame from other cameras are made.
        keypoints: Where the keypoints of the first frame come from.
        features: Descriptors of image positions, for tracking and transfer.
        tracking: How the keypoints are found in the other frames.
        transfer: How the keypoints are found in the views.
        flow: How the flow between the frames is estimated.
        cache: Folder that keeps the results of providers, or an fsspec URL such as `s3://bucket/cache`, which machines
            share; `priors` in the cache folder when null.
        progress_bar: Show how far a step is: a bar on a terminal, elsewhere a line every ten seconds.
    """

    frames: int = 16
    start: float = 0.0
    end: float | None = None
    every: int = 1
    framing: FramingConfig = field(default_factory=FramingConfig)
    matting: MattingConfig = field(default_factory=MattingConfig)
    video: VideoConfig = field(default_factory=VideoConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    keypoints: KeypointSourceConfig = field(default_factory=KeypointSourceConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    tracking: PointTrackingConfig = field(default_factory=PointTrackingConfig)
    transfer: TransferConfig = field(default_factory=TransferConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    cache: str | None = None
    progress_bar: bool = True

    def __post_init__(self) -> None:
        """Check the ranges of the settings.

        Raises:
            ValueError: `frames` is below 2, `every` or `keypoints.count` below 1, or `start` to `end` is no time.
        """
        if self.frames < 2:
            raise ValueError(f"frames: must be at least 2, not {self.frames}")
        if self.every < 1:
            raise ValueError(f"every: must be at least 1, not {self.every}")
        if not 0 <= self.start < math.inf:
            raise ValueError(f"start: must be seconds from 0, not {self.start}")
        if self.end is not None and not self.start < self.end:
            raise ValueError(f"end: must be later than start, which is {self.start}, not {self.end}")
        if self.keypoints.count < 1:
            raise ValueError(f"keypoints.count: must be at least 1, not {self.keypoints.count}")

    @property
    def span(self) -> Span:
        """Which part of a video is used."""
        return Span(self.frames, self.start, self.end, self.every)
