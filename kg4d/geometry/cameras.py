"""Pinhole cameras in OpenCV axes: +X right, +Y down, +Z forward; world-to-camera matrices."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Projected(NamedTuple):
    """Points as a set of C cameras sees them."""

    pixels: Float[Tensor, " C *points 2"]  # (x right, y down); the centre of the top left pixel is (0.5, 0.5)
    depths: Float[Tensor, " C *points"]  # z in camera space, world units; <= 0 is behind the camera


@dataclass(frozen=True)
class Cameras:
    """A set of C pinhole cameras that share one image size.

    Attributes:
        viewmats: World-to-camera, OpenCV axes, last row (0, 0, 0, 1).
        Ks: Intrinsics in pixels.
        width: Image width in pixels.
        height: Image height in pixels.
    """

    viewmats: Float[Tensor, "C 4 4"]
    Ks: Float[Tensor, "C 3 3"]
    width: int
    height: int

    def __len__(self) -> int:
        return self.viewmats.shape[0]

    def __getitem__(self, index: int | slice | Sequence[int] | Int[Tensor, " n"]) -> "Cameras":
        """Pick cameras; a single index keeps the leading axis, so the result always is a set."""
        if isinstance(index, int):
            index = [index]
        return replace(self, viewmats=self.viewmats[index], Ks=self.Ks[index])

    def to(self, device: torch.device | str) -> "Cameras":
        """Move both matrices to `device`."""
        return replace(self, viewmats=self.viewmats.to(device), Ks=self.Ks.to(device))

    @property
    def centers(self) -> Float[Tensor, "C 3"]:
        """Camera positions in world units."""
        rotation, translation = self.viewmats[:, :3, :3], self.viewmats[:, :3, 3]
        return -(rotation.mT @ translation[..., None])[..., 0]

    def project(self, points: Float[Tensor, "*points 3"]) -> Projected:
        """Project world points into every camera (differentiable; depth is floored at 1e-6 in the division)."""
        flat = points.reshape(-1, 3)
        local = flat @ self.viewmats[:, :3, :3].mT + self.viewmats[:, None, :3, 3]
        depths = local[..., 2]
        image = local @ self.Ks.mT
        pixels = image[..., :2] / depths.clamp_min(1e-6)[..., None]
        shape = (len(self), *points.shape[:-1])
        return Projected(pixels.reshape(*shape, 2), depths.reshape(shape))

    def unproject(
        self, pixels: Float[Tensor, " C *points 2"], depths: Float[Tensor, " C *points"]
    ) -> Float[Tensor, " C *points 3"]:
        """World points that each camera sees at its pixels: the inverse of `project`.

        Args:
            pixels: Positions in each camera's image, px; (0.5, 0.5) is the centre of the top left pixel.
            depths: Their z in camera space, world units.
        """
        flat, z = pixels.reshape(len(self), -1, 2), depths.reshape(len(self), -1, 1)
        rays = torch.cat([flat, torch.ones_like(z)], dim=-1) @ torch.linalg.inv(self.Ks).mT
        points: Tensor = (rays * z - self.viewmats[:, None, :3, 3]) @ self.viewmats[:, :3, :3]
        return points.reshape(*depths.shape, 3)

    def resized(self, width: int, height: int) -> "Cameras":
        """The same views on another pixel grid."""
        scale = (self.Ks.new_full((1, 3), factor) for factor in (width / self.width, height / self.height, 1.0))
        return replace(self, Ks=self.Ks * torch.cat([*scale]), width=width, height=height)


def image_size(like: Tensor, width: int, height: int) -> Float[Tensor, "2"]:
    """(width, height), px, where `like` is; made there, so that no step waits for a copy to a GPU."""
    return torch.cat([like.new_full((1,), width), like.new_full((1,), height)])


def joined(parts: Sequence[Cameras]) -> Cameras:
    """All cameras, one part after the other; their images have one size."""
    viewmats, Ks = (torch.cat([getattr(part, name) for part in parts]) for name in ("viewmats", "Ks"))
    return replace(parts[0], viewmats=viewmats, Ks=Ks)


def project_each(points: Float[Tensor, "B J 3"], cameras: Cameras) -> Float[Tensor, "B J 2"]:
    """Project the b-th set of J world points into the b-th of B cameras; px (depth is floored as in `project`)."""
    local = points @ cameras.viewmats[:, :3, :3].mT + cameras.viewmats[:, None, :3, 3]
    image = local @ cameras.Ks.mT
    return image[..., :2] / local[..., 2:].clamp_min(1e-6)
