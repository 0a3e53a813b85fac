"""Lens distortion and how it is undone: the image of a lens as a pinhole camera sees it.

The two models are those of OpenCV, which computes both: radial and tangential (Brown 1966, "Decentering distortion of
lenses", with a rational radial part), and fisheye (Kannala and Brandt 2006, "A generic camera model and calibration
method for conventional, wide-angle, and fish-eye lenses").
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from kg4d.geometry.sampling import pixel_centers

_Points = NDArray[np.float64]

_UNTIL = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-12)
_INVERTED = 1e-6  # largest error of a ray whose distortion counts as undone, focal lengths
_WIDEST = math.tan(math.radians(65))  # of a pinhole camera to either side: beyond, it shows little but the rim
_MOST_MAGNIFIED = 4.0  # a lens that needs more is a slip of the pen
_ALONG_AN_EDGE = 65  # points of the image's border that are looked at


@dataclass(frozen=True)
class Lens:
    """A lens that bends rays before they meet the image.

    Attributes:
        fisheye: Which model: fisheye, or radial and tangential.
        coefficients: In OpenCV's order: k1, k2, k3, k4 of a fisheye, else k1, k2, p1, p2, k3, k4, k5, k6.
    """

    fisheye: bool
    coefficients: tuple[float, ...]

    @property
    def bends(self) -> bool:
        """Whether it differs from a pinhole; a fisheye does without any coefficient."""
        return self.fisheye or any(self.coefficients)

    def distort(self, rays: _Points) -> _Points:
        """Where rays meet the image plane at distance 1: both (n, 2), the rays as (x / z, y / z)."""
        if self.fisheye:
            found = cv2.fisheye.distortPoints(rays[:, None], np.eye(3), self._array)
        else:
            at_one = np.concatenate([rays, np.ones_like(rays[:, :1])], axis=1)
            found, _ = cv2.projectPoints(at_one, np.zeros(3), np.zeros(3), np.eye(3), self._array)
        return np.asarray(found, np.float64).reshape(-1, 2)

    def undistort(self, points: _Points) -> _Points:
        """The rays that meet the image plane in points, both (n, 2); NaN where no ray does."""
        if self.fisheye:
            found = cv2.fisheye.undistortPoints(points[:, None], np.eye(3), self._array, criteria=_UNTIL)
        else:
            found = cv2.undistortImagePoints(points[:, None], np.eye(3), self._array, None, _UNTIL)
        rays = np.asarray(found, np.float64).reshape(-1, 2)
        wrong = ~(np.abs(self.distort(rays) - points).max(-1) < _INVERTED)
        rays[wrong] = np.nan
        return rays

    @property
    def _array(self) -> _Points:
        return np.array(self.coefficients, np.float64)


@dataclass(frozen=True)
class Undistortion:
    """What turns images of a lens into those of a pinhole camera at the same place, on the same pixel grid.

    Attributes:
        lens: The lens.
        K: Intrinsics behind the lens.
        pinhole: Intrinsics of the pinhole camera.
        source: Where in the image of the lens each pixel of the pinhole camera lies, px.
    """

    lens: Lens
    K: Float[Tensor, "3 3"]
    pinhole: Float[Tensor, "3 3"]
    source: Float[Tensor, "H W 2"]

    @classmethod
    def of(cls, lens: Lens, K: Float[Tensor, "3 3"], width: int, height: int) -> "Undistortion":
        """The pinhole camera that sees the largest part of the image without seeing anything beyond it.

        Its pixels have the shape of those of the lens. It sees at most 65 degrees to either side.

        Args:
            lens: The lens.
            K: Intrinsics behind it, px.
            width: Of its images, px.
            height: Of its images, px.

        Raises:
            ValueError: There is none: the distortion has no inverse over the image.
        """
        pinhole = _largest_view(lens, K.double(), width, height)
        rays = _rays(pinhole, pixel_centers(height, width))
        met = lens.distort(rays)
        if not np.allclose(lens.undistort(met), rays, rtol=0, atol=1e-4):
            raise ValueError("two rays meet in one pixel")
        source = _pixels(K.double(), met).reshape(height, width, 2)
        return cls(lens, K, pinhole.float(), torch.from_numpy(source).float())

    def points(self, pixels: Float[Tensor, "*points 2"]) -> Float[Tensor, "*points 2"]:
        """Where the pinhole camera sees what lies at `pixels` in the image of the lens, px; NaN where it cannot."""
        if not pixels.numel():
            return pixels
        rays = self.lens.undistort(_rays(self.K.double(), pixels))
        return torch.from_numpy(_pixels(self.pinhole.double(), rays)).to(pixels).reshape(pixels.shape)


def _rays(K: Float[Tensor, "3 3"], pixels: Float[Tensor, "*points 2"]) -> _Points:
    flat = pixels.reshape(-1, 2).double()
    rays: _Points = ((flat - K[:2, 2]) / K.diagonal()[:2]).numpy()
    return rays


def _pixels(K: Float[Tensor, "3 3"], points: _Points) -> _Points:
    pixels: _Points = points * K.diagonal()[:2].numpy() + K[:2, 2].numpy()
    return pixels


def _largest_view(lens: Lens, K: Float[Tensor, "3 3"], width: int, height: int) -> Float[Tensor, "3 3"]:
    """Intrinsics of the largest view inside the image's border, as near to the middle of `K` as that allows."""
    low, high = _inner_box(lens, K, width, height)
    size, focal = torch.tensor([width, height]).double(), K.diagonal()[:2]
    magnified = float((size / (focal * (high - low))).max())
    if magnified > _MOST_MAGNIFIED:
        raise ValueError(f"the middle would be magnified {magnified:.3g} times")
    scaled = focal * magnified
    start = torch.minimum(torch.maximum(-K[:2, 2] / scaled, low), high - size / scaled)
    pinhole = torch.eye(3, dtype=torch.float64)
    pinhole[0, 0], pinhole[1, 1] = scaled
    pinhole[:2, 2] = -start * scaled
    return pinhole


def _inner_box(
    lens: Lens, K: Float[Tensor, "3 3"], width: int, height: int
) -> tuple[Float[Tensor, " 2"], Float[Tensor, " 2"]]:
    """The rays (x, y) between which the image's border does not lie."""
    along = torch.linspace(0, 1, _ALONG_AN_EDGE, dtype=torch.float64)
    low: list[float] = []
    high: list[float] = []
    for axis, (across, length) in enumerate([(width, height), (height, width)]):
        for bound, at in ((low, 0.0), (high, float(across))):
            edge = torch.stack([torch.full_like(along, at), along * length], dim=-1)
            rays = lens.undistort(_rays(K, edge if axis == 0 else edge.flip(-1)))[:, axis]
            if not lens.fisheye and np.isnan(rays).any():
                raise ValueError("no ray meets a part of the image's border")
            kept = rays[~np.isnan(rays)]  # what a fisheye sees to the side or behind is no limit
            bound.append(float(kept.max(initial=-_WIDEST) if bound is low else kept.min(initial=_WIDEST)))
    if not all(a < b for a, b in zip(low, high, strict=True)):
        raise ValueError("its border leaves no room for a view")
    return torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)
