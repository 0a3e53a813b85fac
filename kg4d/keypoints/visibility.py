"""Which keypoints a camera sees, by a depth test against the rendered Gaussians."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kg4d.geometry.cameras import Cameras, image_size


@torch.no_grad()
def depth_visible(
    points: Float[Tensor, "*points 3"],
    cameras: Cameras,
    depth: Float[Tensor, "C H W 1"],
    alpha: Float[Tensor, "C H W 1"],
    *,
    tolerance: float,
) -> Bool[Tensor, " C *points"]:
    """Whether points lie inside the image, in front of the camera, and not behind the surface by more than `tolerance`.

    The surface is read at the pixel that contains the point, not interpolated: across a silhouette that would invent
    depths. Where less than half of a pixel is covered, nothing hides the point. No gradient flows.

    Args:
        points: World positions, for example of keypoints, which may lie inside the body.
        cameras: The C cameras that rendered `depth` and `alpha`.
        depth: Expected depth, world units.
        alpha: Coverage in [0, 1].
        tolerance: Slack, world units, >= 0; a tenth of the object's radius suits joints.

    Raises:
        ValueError: The tolerance is negative.
    """
    if tolerance < 0:
        raise ValueError(f"tolerance must be >= 0, got {tolerance}")
    projected = cameras.project(points.reshape(-1, 3))
    size = image_size(projected.pixels, cameras.width, cameras.height)
    inside = ((projected.pixels >= 0) & (projected.pixels < size)).all(-1) & (projected.depths > 0)
    column, row = torch.where(inside[..., None], projected.pixels, 0.0).long().unbind(-1)
    camera = torch.arange(len(cameras), device=row.device)[:, None]
    surface, covered = depth[camera, row, column, 0], alpha[camera, row, column, 0] >= 0.5
    seen = inside & (~covered | (projected.depths <= surface + tolerance))
    return seen.reshape(len(cameras), *points.shape[:-1])
