"""The protocols of providers: tensors in, tensors out, and an identity that covers everything else they depend on.

Pixel positions are (x right, y down), the centre of the top left pixel is (0.5, 0.5). Images hold straight RGBA in
[0, 1]; an RGB result shows the object on white.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from kg4d.data.records import Depth, Flow

Identity: TypeAlias = Mapping[str, str | int | float | bool]


@dataclass(frozen=True)
class KeypointTracks:
    """Positions of J keypoints in M images: the frames of a video, or views of one moment.

    Attributes:
        uv: Pixel positions; finite where the weight is positive.
        weights: Confidence in [0, 1]; 0 marks positions that must not be used.
        depths: Depth up to an unknown offset in each image, px; only its order is meant. None where it is not known.
    """

    uv: Float[Tensor, "M J 2"]
    weights: Float[Tensor, "M J"]
    depths: Float[Tensor, "M J"] | None = None


@runtime_checkable  # for the tests, which check arguments at run time
class Provider(Protocol):
    """Anything whose results can be cached: the same identity and the same input give the same result."""

    @property
    def name(self) -> str:
        """Short, and usable as a folder name, such as `flow-dis`."""
        ...

    def identity(self) -> Identity:
        """Everything that decides the result besides the input: resolved settings, model id, hash of the weights."""
        ...


@runtime_checkable
class Matting(Provider, Protocol):
    """Separates the object from its background."""

    def __call__(self, rgb: Float[Tensor, "T H W 3"]) -> Float[Tensor, "T H W 1"]:
        """Compute mattes in [0, 1] of the frames of a video, or of one image (T = 1).

        Raises:
            InputError: There is no clear foreground.
        """
        ...


@runtime_checkable
class FlowEstimator(Provider, Protocol):
    """Estimates motion between neighbouring frames."""

    def __call__(self, video: Float[Tensor, "T H W 4"]) -> Flow:
        """Estimate the flow from each frame to the next, with its confidence; needs T >= 2."""
        ...


@runtime_checkable
class DepthEstimator(Provider, Protocol):
    """Estimates depth in each frame by itself."""

    def __call__(self, video: Float[Tensor, "T H W 4"]) -> Depth:
        """Estimate the depth of T frames, up to a scale and a shift of each.

        Raises:
            InputError: It finds no finite depth.
        """
        ...


@runtime_checkable
class ViewSynthesizer(Provider, Protocol):
    """Generates views of an object from a single image."""

    @property
    def fov_y(self) -> float | None:
        """Vertical field of view of the generated views, degrees; None means that of the image."""
        ...

    def __call__(
        self, image: Float[Tensor, "H W 4"], azimuths: Sequence[float], elevations: Sequence[float]
    ) -> Float[Tensor, "R H W 3"]:
        """Generate R views on white that show the object as large as `image` does.

        Args:
            image: The known view, at azimuth 0 and elevation 0.
            azimuths: R azimuths relative to `image`, degrees; positive moves the camera to its right, as in
                `kg4d.geometry.orbits.orbit`.
            elevations: R elevations relative to `image`, degrees; positive moves the camera up.
        """
        ...


@runtime_checkable
class VideoSynthesizer(Provider, Protocol):
    """Generates a video from its first frame."""

    def __call__(self, image: Float[Tensor, "H W 4"], frames: int) -> Float[Tensor, "T H W 3"]:
        """Generate T = `frames` frames on white, from a camera that does not move; frame 0 shows `image`."""
        ...


@runtime_checkable
class KeypointDetector(Provider, Protocol):
    """Finds keypoints of known names in each image by itself."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the J keypoints."""
        ...

    @property
    def parents(self) -> tuple[int, ...]:
        """Index of the parent of each, -1 for a root."""
        ...

    def __call__(self, images: Float[Tensor, "M H W 4"]) -> KeypointTracks:
        """Detect the keypoints in each image; weight 0 where nothing is found."""
        ...


@runtime_checkable
class KeypointTracker(Provider, Protocol):
    """Follows keypoints through a video."""

    def __call__(self, video: Float[Tensor, "T H W 4"], start: Float[Tensor, "J 2"]) -> KeypointTracks:
        """Track the keypoints that are at the pixels `start` in frame 0 through all M = T frames."""
        ...


@runtime_checkable
class KeypointTransfer(Provider, Protocol):
    """Finds the keypoints of one image in others of the same object."""

    def __call__(
        self, support: Float[Tensor, "H W 4"], uv: Float[Tensor, "J 2"], views: Float[Tensor, "R H W 4"]
    ) -> KeypointTracks:
        """Find the keypoints of `support` in each of the M = R views.

        Args:
            support: The image whose keypoints are known.
            uv: Their pixel positions in it.
            views: In the order of their azimuths around the object, so that a search can continue from the neighbouring
                view: the first and the last view are the neighbours of `support`, on either side.
        """
        ...
