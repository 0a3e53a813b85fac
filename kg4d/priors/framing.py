"""One square crop for a whole clip: the object in the middle, filling a fixed fraction of the side.

Keypoints and flow that a person supplies are in pixels of the input; the crop converts them along with the images.
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
from kg4d.data.turntable import FOV_Y, RADIUS
from kg4d.errors import InputError
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.orbits import orbit
from kg4d.priors.settings import FramingConfig


@dataclass(frozen=True)
class Crop:
    """A square of the input, and the size that it is resampled to.

    Attributes:
        left: Left edge of the square, px of the input; may be negative.
        top: Top edge of the square, px of the input; may be negative.
        side: Side of the square, px of the input.
        size: Side of the result, px.
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
        """Crop and resample images; what lies outside the input is transparent."""
        return resize_rgba(self._cut(images), self.size, self.size)

    def points(self, uv: Float[Tensor, "*shape 2"]) -> Float[Tensor, "*shape 2"]:
        """Convert pixel positions in the input to pixel positions in the result."""
        return (uv - uv.new_tensor([self.left, self.top])) * self.scale

    def flow(self, flow: Flow) -> Flow:
        """Crop and resample flow, and convert it to pixels of the result; it has weight 0 outside the input."""
        return Flow(self._cut(flow.flow), self._cut(flow.weights[..., None])[..., 0]).resized(self.size)

    def _cut(self, channels: Float[Tensor, "T H W C"]) -> Float[Tensor, "T side side C"]:
        height, width = channels.shape[1:3]
        right, bottom = self.left + self.side - width, self.top + self.side - height
        return F.pad(channels, (0, 0, -self.left, right, -self.top, bottom))  # negative padding crops


def crop_of(alphas: Float[Tensor, "T H W 1"], config: FramingConfig) -> Crop:
    """The square around everything that the mattes of a clip cover in any frame.

    Raises:
        InputError: The whole input is asked for (`share` is None) but is not square, or the mattes are empty.
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
    indices = covered.nonzero()
    return int(indices[0]), int(indices[-1]) + 1


def cameras_at(
    azimuths: Sequence[float], elevations: Sequence[float], width: int, height: int, fov_y: float | None = None
) -> Cameras:
    """The camera of the input and those of other images of the object, on orbits around the origin.

    Args:
        azimuths: One per camera, degrees; that of the input first.
        elevations: One per camera, degrees above the horizon.
        width: Image width, px.
        height: Image height, px.
        fov_y: Vertical field of view of all cameras but the first, degrees; that of the first when None. These cameras
            are placed at the distance where the object appears as large as in the first.
    """
    fov_y = FOV_Y if fov_y is None else fov_y
    radius = RADIUS * math.tan(math.radians(FOV_Y / 2)) / math.tan(math.radians(fov_y / 2))
    first = orbit(azimuths[:1], elevations[:1], RADIUS, FOV_Y, width, height)
    others = orbit(azimuths[1:], elevations[1:], radius, fov_y, width, height)
    return replace(first, viewmats=torch.cat([first.viewmats, others.viewmats]), Ks=torch.cat([first.Ks, others.Ks]))
