"""What a provider of priors is: tensors in, tensors out, and an identity that names everything else it depends on.

Pixels as in `kg4d.data.scene`: (x right, y down), the centre of the top left pixel is (0.5, 0.5). Images hold straight
RGBA in [0, 1]; an RGB result shows the object on white.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from kg4d.data.records import Flow

Identity: TypeAlias = Mapping[str, str | int | float | bool]


@dataclass(frozen=True)
class KeypointTracks:
    """Where J keypoints are in M images: the frames of a video, or views of one moment.

    Attributes:
        uv: Pixel positions; finite where the weight is positive.
        weights: Confidence in [0, 1]; 0 means not to be used.
    """

    uv: Float[Tensor, "M J 2"]
    weights: Float[Tensor, "M J"]


@runtime_checkable  # for the tests, which check arguments at run time
class Provider(Protocol):
    """Something whose result can be kept: the same identity and the same input give the same result."""

    @property
    def name(self) -> str:
        """Short and fit for a folder name, such as `flow-dis`."""
        ...

    def identity(self) -> Identity:
        """All that decides the result beside the input: resolved settings, model id, hash or revision of weights."""
        ...


@runtime_checkable
class Matting(Provider, Protocol):
    """Tells the object from its background."""

    def __call__(self, rgb: Float[Tensor, "T H W 3"]) -> Float[Tensor, "T H W 1"]:
        """Mattes in [0, 1] of the frames of a video, or of one image.

        Raises:
            InputError: There is no clear foreground.
        """
        ...


@runtime_checkable
class FlowEstimator(Provider, Protocol):
    """Estimates motion between neighbouring frames."""

    def __call__(self, video: Float[Tensor, "T H W 4"]) -> Flow:
        """Flow from each frame to the next, with confidence; T >= 2."""
        ...


@runtime_checkable
class ViewSynthesizer(Provider, Protocol):
    """Makes views of an object from one."""

    @property
    def fov_y(self) -> float | None:
        """Vertical field of view of its cameras, degrees; that of `image` when None."""
        ...

    def __call__(
        self, image: Float[Tensor, "H W 4"], azimuths: Sequence[float], elevations: Sequence[float]
    ) -> Float[Tensor, "R H W 3"]:
        """Views on white, from cameras relative to the one of `image`, which show the object as large as it does.

        Args:
            image: The view that is known, from azimuth 0.
            azimuths: Degrees, one a view; positive moves the camera to its right, as `kg4d.geometry.orbits.orbit`.
            elevations: Degrees, one a view; positive moves the camera up.
        """
        ...


@runtime_checkable
class VideoSynthesizer(Provider, Protocol):
    """Makes a video from its first frame."""

    def __call__(self, image: Float[Tensor, "H W 4"], frames: int) -> Float[Tensor, "T H W 3"]:
        """T = `frames` frames on white, from a camera that stands still; frame 0 shows what `image` shows."""
        ...


@runtime_checkable
class KeypointTracker(Provider, Protocol):
    """Follows keypoints through a video."""

    def __call__(self, video: Float[Tensor, "T H W 4"], start: Float[Tensor, "J 2"]) -> KeypointTracks:
        """Where the keypoints that are at `start` in frame 0 are in each of the M = T frames."""
        ...


@runtime_checkable
class KeypointTransfer(Provider, Protocol):
    """Finds the keypoints of one image in others of the same object."""

    def __call__(
        self, support: Float[Tensor, "H W 4"], uv: Float[Tensor, "J 2"], views: Float[Tensor, "R H W 4"]
    ) -> KeypointTracks:
        """Where the keypoints at `uv` of `support` are in each of the M = R views.

        The views go around the object by azimuth, so that a search may go on from the neighbour: the first is nearest
        to `support`, and so is the last, coming from the other side.
        """
        ...
