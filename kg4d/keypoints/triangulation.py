"""3D points from their pixels in several known cameras."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kg4d.geometry.cameras import Cameras

_ROUNDS = 3  # of reweighting


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
    normals, rights = _normal_equations(uv, weights, cameras)
    points, valid = _solved(normals.sum(0), rights.sum(0), min_conditioning)
    uv = torch.where((weights > 0)[..., None], uv, 0.0).double()
    double = Cameras(cameras.viewmats.double(), cameras.Ks.double(), cameras.width, cameras.height)
    return _checked(points, valid, uv, weights.double(), double)


@torch.no_grad()
def agreement(
    uv: Float[Tensor, "V J 2"],
    weights: Float[Tensor, "V J"],
    cameras: Cameras,
    *,
    tolerance_px: float,
    min_conditioning: float = 3e-3,
) -> Float[Tensor, "V J"]:
    """How far each view agrees with the position of a keypoint that fits most views best, in [0, 1].

    Every pair of views proposes a position; nothing is drawn at random. The proposal of least sum of w e² / (e² + s²)
    over the views wins (the Geman-McClure estimator: e is the distance to the view's keypoint in px, s the tolerance, w
    the view's weight). It is refined by least squares with weights 1 / (1 + e²/s²)²; these are what is returned.

    Args:
        uv: Pixel positions; read only where the weight is positive.
        weights: Confidence >= 0; 0 means that the view does not see the keypoint.
        cameras: The V cameras.
        tolerance_px: Distance s above which a view counts as wrong, px.
        min_conditioning: As in `triangulate`, for a pair of views: 3e-3 asks for about six degrees between the rays.

    Returns:
        The agreement; 1 where no two views can propose a position, and where a view does not see the keypoint.

    Raises:
        ValueError: A weight is negative or not finite, or a position with a positive weight is not finite.
    """
    normals, rights = _normal_equations(uv, weights, cameras)
    first, second = torch.triu_indices(len(uv), len(uv), 1)
    proposals, valid = _solved(normals[first] + normals[second], rights[first] + rights[second], min_conditioning)
    uv, used = torch.where((weights > 0)[..., None], uv, 0.0), weights > 0

    def squared_errors(points: Float[Tensor, "P J 3"]) -> Float[Tensor, "V P J"]:
        found = cameras.project(points.to(uv))
        squared = (found.pixels - uv[:, None]).square().sum(-1) / tolerance_px**2
        return torch.where(used[:, None] & (found.depths <= 0), torch.inf, squared)

    saturated = 1 - 1 / (1 + squared_errors(proposals))
    cost = torch.where(valid, (weights[:, None] * saturated).sum(0), torch.inf)
    if not valid.any():
        return torch.ones_like(weights)
    position = proposals[cost.argmin(0), torch.arange(uv.shape[1])]
    robust = torch.ones_like(weights)
    for _ in range(_ROUNDS):
        robust = (1 + squared_errors(position[None])[:, 0]) ** -2
        refined, solvable = _solved(
            (robust[..., None, None] * normals).sum(0),
            (robust[..., None] * rights).sum(0),
            min_conditioning / 30,
        )
        position = torch.where(solvable[:, None], refined, position)
    return torch.where(valid.any(0) & used, robust, 1.0)


def _normal_equations(
    uv: Float[Tensor, "V J 2"], weights: Float[Tensor, "V J"], cameras: Cameras
) -> tuple[Float[Tensor, "V J 3 3"], Float[Tensor, "V J 3"]]:
    """The normal equations (matrix, right-hand side) of each view by itself, in float64."""
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
    equations = equations * weights.sqrt()[..., None, None]
    left, right = equations[..., :3], -equations[..., 3:]
    return left.mT @ left, (left.mT @ right)[..., 0]


def _solved(
    normal: Float[Tensor, "*batch 3 3"], right: Float[Tensor, "*batch 3"], min_conditioning: float
) -> tuple[Float[Tensor, "*batch 3"], Bool[Tensor, "*batch"]]:
    """Solutions, and whether the rays determine them: a single ray leaves an eigenvalue of 0 along itself."""
    eigenvalues = torch.linalg.eigvalsh(normal)
    valid = eigenvalues[..., 0] > min_conditioning * eigenvalues[..., 2]
    identity = torch.eye(3, dtype=normal.dtype, device=normal.device)
    return torch.linalg.solve(torch.where(valid[..., None, None], normal, identity), right[..., None])[..., 0], valid


def _checked(
    points: Float[Tensor, "J 3"],
    valid: Bool[Tensor, " J"],
    uv: Float[Tensor, "V J 2"],
    weights: Float[Tensor, "V J"],
    cameras: Cameras,
) -> Triangulation:
    """Measure the reprojection error, and drop points behind a camera that claims to see them."""
    projected = cameras.project(points)
    valid = valid & ((projected.depths > 0) | (weights <= 0)).all(0)
    squared = (projected.pixels - uv).square().sum(-1)
    error = ((weights * squared).sum(0) / weights.sum(0).clamp_min(1e-12)).sqrt()
    missing = ~valid
    return Triangulation(
        points.masked_fill(missing[:, None], torch.nan).float(), valid, error.masked_fill(missing, torch.nan).float()
    )
