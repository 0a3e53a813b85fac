"""3D points from their pixels in several known cameras."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kg4d.geometry.cameras import Cameras


class Triangulation(NamedTuple):
    """One point per keypoint."""

    points: Float[Tensor, "J 3"]  # world units; NaN where not valid
    valid: Bool[Tensor, " J"]  # seen by at least two cameras, from directions that differ, in front of all of them
    reprojection_px: Float[Tensor, " J"]  # weighted root mean square distance in the used views; NaN where not valid


@torch.no_grad()
def triangulate(
    uv: Float[Tensor, "V J 2"],
    weights: Float[Tensor, "V J"],
    cameras: Cameras,
    *,
    min_conditioning: float = 1e-4,
) -> Triangulation:
    """Weighted linear triangulation (DLT) in float64; no gradient flows.

    Every view gives two equations in normalised image coordinates, (r1 - x r3) X = x t3 - t1 and the same with y
    (Hartley & Zisserman 2004, 12.2, inhomogeneous form), weighted by the square root of its confidence.

    Args:
        uv: Pixel positions; read only where the weight is positive.
        weights: Confidence >= 0; 0 means that the view does not see the keypoint.
        cameras: The V cameras.
        min_conditioning: Least ratio of the extreme eigenvalues of the normal equations, about (angle / 2)² for
            two rays, in radians: 1e-4 asks for about one degree between the rays.

    Raises:
        ValueError: A weight is negative or not finite, or a position with a positive weight is not finite.
    """
    used = weights > 0
    if not (weights >= 0).all() or not weights.isfinite().all():
        raise ValueError("weights must be finite and >= 0")
    if not uv[used].isfinite().all():
        raise ValueError("uv must be finite where the weight is positive")
    uv = torch.where(used[..., None], uv, 0.0).double()
    weights, viewmats, Ks = weights.double(), cameras.viewmats.double(), cameras.Ks.double()
    homogeneous = torch.cat([uv, torch.ones_like(uv[..., :1])], dim=-1)
    image = torch.linalg.solve(Ks, homogeneous.mT).mT[..., :2, None]  # (V, J, 2, 1)
    equations = viewmats[:, None, :2] - image * viewmats[:, None, 2:3]  # (V, J, 2, 4): r - x r3 | t - x t3
    equations = (equations * weights.sqrt()[..., None, None]).transpose(0, 1).flatten(1, 2)  # (J, 2V, 4)
    left, right = equations[..., :3], -equations[..., 3:]
    normal = left.mT @ left
    eigenvalues = torch.linalg.eigvalsh(normal)
    valid = eigenvalues[:, 0] > min_conditioning * eigenvalues[:, 2]  # one ray leaves its own direction at 0
    identity = torch.eye(3, dtype=normal.dtype, device=normal.device)
    points = torch.linalg.solve(torch.where(valid[:, None, None], normal, identity), left.mT @ right)[..., 0]
    return _checked(points, valid, uv, weights, Cameras(viewmats, Ks, cameras.width, cameras.height))


def _checked(
    points: Float[Tensor, "J 3"],
    valid: Bool[Tensor, " J"],
    uv: Float[Tensor, "V J 2"],
    weights: Float[Tensor, "V J"],
    cameras: Cameras,
) -> Triangulation:
    """Measure the reprojection and drop what lies behind a camera that claims to see it."""
    projected = cameras.project(points)
    valid = valid & ((projected.depths > 0) | (weights <= 0)).all(0)
    squared = (projected.pixels - uv).square().sum(-1)
    error = ((weights * squared).sum(0) / weights.sum(0).clamp_min(1e-12)).sqrt()
    missing = ~valid
    return Triangulation(
        points.masked_fill(missing[:, None], torch.nan).float(), valid, error.masked_fill(missing, torch.nan).float()
    )
