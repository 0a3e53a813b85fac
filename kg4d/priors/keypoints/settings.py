"""Settings of `kg4d.priors.keypoints`: plain data that is checked before torch is loaded."""

from dataclasses import dataclass, field
from enum import StrEnum


@dataclass
class ChainConfig:
    """The parameters of the model. The unit of length is 1.3 times the longer side of the object's bounding box.

    Attributes:
        evidence: What one unit of similarity to the point's descriptor adds to the log odds of "visible here". Low,
            because errors in neighbouring images are correlated.
        threshold: Similarity at which visible and hidden are equally likely; 0 is that of an average candidate, 1 that
            of the point itself.
        affinity: What one unit of similarity between candidates of neighbouring images adds to the log odds of a move.
        hide: Probability that a visible point is hidden in the next image.
        reappear: Probability that a hidden point is visible in the next image.
        wander: Standard deviation of the move of a hidden point, in units of length.
        places: Approximate maximum number of candidates per image.
        near: The confidence is the probability of being visible within this distance of the reported position, in
            units of length.
    """

    evidence: float = 4.0
    threshold: float = 0.25
    affinity: float = 20.0
    hide: float = 0.1
    reappear: float = 0.15
    wander: float = 0.08
    places: int = 800
    near: float = 0.05

    def __post_init__(self) -> None:
        """Check the ranges of the parameters.

        Raises:
            ValueError: A probability is not inside (0, 1), or a length or the number of candidates is not positive.
        """
        if not (0 < self.hide < 1 and 0 < self.reappear < 1):
            raise ValueError(f"chain: hide and reappear must lie inside (0, 1), not {self.hide} and {self.reappear}")
        if min(self.wander, self.near, self.places) <= 0:
            raise ValueError("chain: wander, near and places must be positive")


class FeaturesKind(StrEnum):
    """Which network computes the descriptors."""

    VGG = "vgg"
    DINOV2 = "dinov2"


@dataclass
class FeaturesConfig:
    """Descriptors of positions on the object.

    Attributes:
        kind: The network; `vgg` needs no hub.
        model: For `kind: vgg`: a safetensors file in place of the one that `kg4d.networks.weights pull` fetches. For
            `kind: dinov2`: an id on the hub, or a folder; facebook/dinov2-base when null.
        side: Longer side of the object's crop, px; the time grows with its square. When null it is 336 for transfer by
            `vgg`, and 448 otherwise.
    """

    kind: FeaturesKind = FeaturesKind.VGG
    model: str | None = None
    side: int | None = None

    def __post_init__(self) -> None:
        """Check the size of the crop.

        Raises:
            ValueError: The side is below 64 px.
        """
        if self.side is not None and self.side < 64:
            raise ValueError(f"features.side: must be at least 64, not {self.side}")


class KeypointsKind(StrEnum):
    """Where the keypoints of the first frame come from."""

    AUTO = "auto"  # the file if one is named, else spread
    FILE = "file"
    CLICK = "click"
    PERSON = "person"  # RTMPose, in each image separately
    BLAZEPOSE = "blazepose"  # of a person too, with depth; its weights come with `make weights`
    SPREAD = "spread"
    NONE = "none"


RTMPOSE_M = (
    "https://download.openmmlab.com/mmpose/v1/projects/rtmposev1/onnx_sdk/"
    "rtmpose-m_simcc-body7_pt-body7_420e-256x192-e48f03d0_20230504.zip"
)


@dataclass
class PersonConfig:
    """The network of RTMPose.

    Attributes:
        model: Its ONNX file, or the URL from which rtmlib fetches it once.
        width: Width of the network's input, px.
        height: Height of the network's input, px.
    """

    model: str = RTMPOSE_M
    width: int = 192
    height: int = 256


@dataclass
class KeypointSourceConfig:
    """The keypoints of the first frame.

    Attributes:
        kind: Where they come from; `none` leaves keypoints out.
        path: For `kind: file`: keypoints of the input's first frame or of all frames, in one of the formats that
            `kg4d.priors.keypoints.pose_files.read` recognises, or a scene's `keypoints.npz`. For `kind: click`: the
            .json to write, or to start from.
        unflip: For `kind: file` with several frames: exchange left and right in frames whose poses move less that way,
            as a detector takes a front for a back at times.
        count: For `kind: spread`: how many.
        person: For `kind: person`: the network.
        port: For `kind: click`: port of the page, which is served to this machine only; 0 picks a free one.
    """

    kind: KeypointsKind = KeypointsKind.AUTO
    path: str | None = None
    unflip: bool = True
    count: int = 16
    person: PersonConfig = field(default_factory=PersonConfig)
    port: int = 0


class TrackerKind(StrEnum):
    """Which tracker follows the keypoints."""

    AUTO = "auto"  # chain if the weights of its features are available, else klt
    CHAIN = "chain"  # descriptors and flow
    KLT = "klt"  # needs no weights
    COTRACKER = "cotracker"


@dataclass
class PointTrackingConfig:
    """How the keypoints of the first frame are found in the other frames.

    Attributes:
        kind: Which tracker.
        checkpoint: For `kind: cotracker`: the file of its weights.
        spread: For `kind: chain`: standard deviation of a keypoint's motion around the flow, in units of 1.3 times the
            longer side of the object's bounding box.
        lost: For `kind: chain`: standard deviation added to it (in quadrature) where the flow has no confidence.
        tolerance_px: For `kind: klt`: forward-backward error at which the confidence falls to 0, px.
        chain: For `kind: chain`: the parameters of the model.
    """

    kind: TrackerKind = TrackerKind.AUTO
    checkpoint: str | None = None
    spread: float = 0.02
    lost: float = 0.06
    tolerance_px: float = 2.0
    chain: ChainConfig = field(default_factory=ChainConfig)

    def __post_init__(self) -> None:
        """Check the ranges of the settings.

        Raises:
            ValueError: A length is not positive.
        """
        if min(self.spread, self.lost, self.tolerance_px) <= 0:
            raise ValueError("tracking: spread, lost and tolerance_px must be positive")


@dataclass
class TransferConfig:
    """How the keypoints of the first frame are found in the other views.

    Attributes:
        spread: Standard deviation of a keypoint's motion from view to view, in units of 1.3 times the longer side of
            the object's bounding box.
        chain: The parameters of the model.
    """

    spread: float = 0.1
    chain: ChainConfig = field(default_factory=ChainConfig)

    def __post_init__(self) -> None:
        """Check the range of the spread.

        Raises:
            ValueError: The spread is not positive.
        """
        if self.spread <= 0:
            raise ValueError(f"transfer.spread: must be positive, not {self.spread}")
