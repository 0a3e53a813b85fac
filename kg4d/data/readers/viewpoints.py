"""Checking that cameras can see the object: it is in front of them, and they are outside it."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kg4d.data.records import PosedImages
from kg4d.errors import InputError
from kg4d.gaussians.points import PointCloud
from kg4d.geometry.cameras import Cameras

_PARALLEL = 1e-4  # smallest eigenvalue, of at most 1, of cameras whose axes count as meeting in a point


def refuse_bad_viewpoints(images: Mapping[Path, PosedImages]) -> None:
    """Check that no camera looks away from the object or stands inside it.

    The object is a ball. Its centre is the point that the cameras look at (`looked_at`), its radius that of what they
    see (`seen_radius`).
    """
    center = looked_at([posed.cameras for posed in images.values()])
    radius = seen_radius(images.values(), center)
    for path, posed in images.items():
        depths = posed.cameras.project(center).depths
        distances = (posed.cameras.centers - center).norm(dim=-1)
        _refuse(path, distances <= radius, f"stands inside the object (a ball of radius {radius:.2g} where they look)")
        _refuse(path, depths <= 0, "looks away from the object: what the cameras look at is behind it")


def _refuse(path: Path, bad: Bool[Tensor, " M"], what: str) -> None:
    if bad.any():
        where = f"{path}: frames[{int(bad.nonzero()[0])}].transform_matrix"
        raise InputError(where, f"the camera {what}", "correct the camera-to-world matrix (OpenGL axes)")


def refuse_points_behind(path: Path, points: PointCloud, cameras: Cameras) -> None:
    """Check that a camera has a point before it.

    Args:
        path: Where the points are from, for the error.
        points: In the world of the cameras, as it is meant.
        cameras: Those of the reference video.
    """
    if not bool((cameras.project(points.points).depths > 0).any()):
        raise InputError(path, "lies behind all cameras", "give points in the world of the cameras")


def looked_at(cameras: list[Cameras]) -> Float[Tensor, " 3"]:
    """The point with the least sum of squared distances to the optical axes; of many, the one nearest to the origin.

    Axes within about a degree of each other count as parallel.
    """
    rotations = torch.cat([views.viewmats[:, :3, :3] for views in cameras]).double()
    centers = torch.cat([views.centers for views in cameras]).double()
    axes = rotations[:, 2]
    across = torch.eye(3, dtype=torch.float64) - axes[:, :, None] * axes[:, None, :]
    inverse = torch.linalg.pinv(across.mean(0), rtol=_PARALLEL, hermitian=True)
    point: Tensor = inverse @ (across @ centers[..., None]).mean(0)
    return point[:, 0].float()


def seen_radius(parts: Iterable[PosedImages], center: Float[Tensor, " 3"]) -> float:
    """Median over all images of half the longer side of the matte's box, at the distance of `center`; world units."""
    return torch.cat([_half_extents(posed, center) for posed in parts]).median().item()


def _half_extents(posed: PosedImages, center: Float[Tensor, " 3"]) -> Float[Tensor, " M"]:
    """Half the longer side of each matte's bounding box, in world units at the distance of `center`."""
    opaque = posed.alphas[..., 0] > 0.5
    sides = torch.stack([_span(opaque.any(1)), _span(opaque.any(2))], dim=-1)
    focal = posed.cameras.Ks[:, [0, 1], [0, 1]]
    distances = (posed.cameras.centers - center).norm(dim=-1, keepdim=True)
    extents: Tensor = (sides / focal * distances / 2).amax(-1)
    return extents


def _span(occupied: Bool[Tensor, "M n"]) -> Float[Tensor, " M"]:
    """Length from the first to the last set entry of each row; 0 for an empty row."""
    counts = torch.arange(1, occupied.shape[1] + 1)
    last = (occupied * counts).amax(-1)
    from_end = (occupied * counts.flip(0)).amax(-1)
    length: Tensor = (last + from_end - occupied.shape[1]) * occupied.any(-1)
    return length.float()
