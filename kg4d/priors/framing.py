"""One square crop for a whole clip: the object in the middle, at a fixed share of the frame.

What a person supplies about the input (keypoints, flow, masks) is in pixels of the input; the crop carries it along.
Source of the convention: DreamGaussian4D's preprocessing, after DreamGaussian's `process.py`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from kg4d.data.images import resize_rgba
from kg4d.data.records import Flow
from kg4d.data.synthetic.scene import FOV_Y, RADIUS
from kg4d.errors import InputError
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.orbits import orbit


@dataclass
class FramingConfig:
    """The square frame around the object.

    Attributes:
        size: Side of the frames that are written, px.
        share: Share of it that the longer side of the object's box takes, over the whole clip; null keeps the input's
            own frame, which must then be square.
    """

    size: int = 256
    share: float | None = 0.8

    def __post_init__(self) -> None:
        """Refuse frames that hold nothing.

        Raises:
            ValueError: The size or the share is out of range.
        """
        if self.size < 16:
            raise ValueError(f"framing.size: must be at least 16, not {self.size}")
        if self.share is not None and not 0 < self.share <= 1:
            raise ValueError(f"framing.share: must lie in (0, 1], not {self.share}")


@dataclass(frozen=True)
class Crop:
    """A square of the input, and the pixel grid that it is resampled to.

    Attributes:
        left: Of the square in px of the input; may lie outside of it.
        top: Likewise.
        side: Of the square, px of the input.
        size: Of the result, px.
    """

    left: int
    top: int
    side: int
    size: int

    @property
    def scale(self) -> float:
        """Pixels of the result per pixel of the input."""
        return self.size / self.side

    def images(self, images: Float[Tensor, "T H W 4"]) -> Float[Tensor, "T size size 4"]:
        """Crop and resample; what lies outside of the input is transparent."""
        return resize_rgba(self._cut(images), self.size, self.size)

    def points(self, uv: Float[Tensor, "*shape 2"]) -> Float[Tensor, "*shape 2"]:
        """Pixel positions of the input as those of the result."""
        return (uv - uv.new_tensor([self.left, self.top])) * self.scale

    def flow(self, flow: Flow) -> Flow:
        """Flow of the input as that of the result; not known outside of the input."""
        return Flow(self._cut(flow.flow), self._cut(flow.weights[..., None])[..., 0]).resized(self.size)

    def _cut(self, channels: Float[Tensor, "T H W C"]) -> Float[Tensor, "T side side C"]:
        height, width = channels.shape[1:3]
        right, bottom = self.left + self.side - width, self.top + self.side - height
        return F.pad(channels, (0, 0, -self.left, right, -self.top, bottom))  # negative padding crops


def crop_of(alphas: Float[Tensor, "T H W 1"], config: FramingConfig) -> Crop:
    """The square around what the mattes of a clip cover, over all frames.

    Raises:
        InputError: The input's own frame is asked for and is not square, or the mattes are empty.
    """
    height, width = alphas.shape[1:3]
    if config.share is None:
        if height != width:
            remedy = "crop it to a square, or set framing.share=0.8"
            raise InputError("framing.share", f"the input is {width} x {height}, not square", remedy)
        return Crop(0, 0, width, config.size)
    covered = (alphas[..., 0] > 0.5).any(0)
    if not covered.any():
        raise InputError("matting", "nothing is opaque", "give another matte")
    (left, right), (top, bottom) = _span(covered.any(0)), _span(covered.any(1))
    side = round(max(right - left, bottom - top) / config.share)
    return Crop(round((left + right - side) / 2), round((top + bottom - side) / 2), side, config.size)


def _span(covered: Bool[Tensor, " n"]) -> tuple[int, int]:
    places = covered.nonzero()
    return int(places[0]), int(places[-1]) + 1


def cameras_at(
    azimuths: Sequence[float], elevations: Sequence[float], width: int, height: int, fov_y: float | None = None
) -> Cameras:
    """The camera of the input, and those of its other images.

    Args:
        azimuths: Degrees, one a camera, that of the input first.
        elevations: Degrees above the horizon.
        width: Image width in pixels.
        height: Image height in pixels.
        fov_y: Vertical field of view of all but the first, degrees; that of the first when None. They stand where the
            object is as large in the image as in the first.
    """
    fov_y = FOV_Y if fov_y is None else fov_y
    radius = RADIUS * math.tan(math.radians(FOV_Y / 2)) / math.tan(math.radians(fov_y / 2))
    first = orbit(azimuths[:1], elevations[:1], RADIUS, FOV_Y, width, height)
    others = orbit(azimuths[1:], elevations[1:], radius, fov_y, width, height)
    return replace(first, viewmats=torch.cat([first.viewmats, others.viewmats]), Ks=torch.cat([first.Ks, others.Ks]))
