"""Triangles into samples of an image: a z-buffer with perspective-correct barycentric coordinates, no gradients.

For exact pictures of meshes. All pairs of a triangle and a sample in its box are looked at together; the work follows
the area of the boxes, so that small triangles are cheap.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kg4d.geometry.cameras import Cameras

_NEAREST = 1e-3  # depth in world units at which a triangle is left out: nothing is clipped


class Fragments(NamedTuple):
    """The first surface at each sample."""

    triangles: Int[Tensor, "H W"]  # -1 where there is none
    weights: Float[Tensor, "H W 3"]  # barycentric coordinates on the triangle in space; sum to 1, or 0 without one
    depths: Float[Tensor, "H W"]  # z in camera space, world units; infinity without a surface


@torch.no_grad()
def rasterize(points: Float[Tensor, "V 3"], triangles: Int[Tensor, "F 3"], camera: Cameras) -> Fragments:
    """What one camera sees of a mesh, at the centres of its pixels; both sides of a triangle are seen.

    Triangles with a corner behind the camera are left out. Of two at the same depth the first is seen.

    Args:
        points: Corners, world units.
        triangles: Indices of three corners each.
        camera: One; its pixels are the samples.
    """
    height, width = camera.height, camera.width
    exact = replace(camera, viewmats=camera.viewmats.double(), Ks=camera.Ks.double())
    seen = exact.project(points.double())
    corners, z = seen.pixels[0][triangles], seen.depths[0][triangles]
    planes = (
        _planes(corners) / z[..., None]
    )  # linear in the image is not the coordinate but the coordinate by the depth
    usable = (z > _NEAREST).all(-1) & planes.isfinite().all(-1).all(-1)
    pairs = _pairs_in_boxes(corners, usable, width, height)
    x, y = pairs.columns + 0.5, pairs.rows + 0.5
    a, b, c = (plane.index_select(0, pairs.triangles) for plane in torch.split(planes.flatten(1), 3, dim=1))
    over = [
        a[:, 0] * x + a[:, 1] * y + a[:, 2],
        b[:, 0] * x + b[:, 1] * y + b[:, 2],
        c[:, 0] * x + c[:, 1] * y + c[:, 2],
    ]
    inside = torch.nonzero((over[0] >= 0) & (over[1] >= 0) & (over[2] >= 0))[:, 0]
    hit, sample = pairs.triangles[inside], (pairs.rows * width + pairs.columns)[inside]
    over = [each[inside] for each in over]
    depth = 1 / (over[0] + over[1] + over[2])
    nearest = depth.new_full((height * width,), torch.inf).scatter_reduce(0, sample, depth, "amin")
    first = torch.nonzero(depth == nearest[sample])[:, 0]
    winner = hit.new_full((height * width,), len(triangles)).scatter_reduce(0, sample[first], hit[first], "amin")
    shown = first[hit[first] == winner[sample[first]]]
    weights = points.new_zeros(height * width, 3)
    weights[sample[shown]] = torch.stack([each[shown] * depth[shown] for each in over], dim=-1).to(points.dtype)
    return Fragments(
        torch.where(winner < len(triangles), winner, -1).reshape(height, width),
        weights.reshape(height, width, 3),
        nearest.reshape(height, width).to(points.dtype),
    )


def _planes(corners: Float[Tensor, "F 3 2"]) -> Float[Tensor, "F 3 3"]:
    """Barycentric coordinate i in the image is the product of (x, y, 1) with row i; not finite without an area."""
    following, last = corners.roll(-1, dims=1), corners.roll(-2, dims=1)
    constant = following[..., 0] * last[..., 1] - following[..., 1] * last[..., 0]
    rows = torch.stack([following[..., 1] - last[..., 1], last[..., 0] - following[..., 0], constant], dim=-1)
    return rows / constant.sum(-1)[:, None, None]


class _Pairs(NamedTuple):
    triangles: Int[Tensor, " P"]
    columns: Int[Tensor, " P"]
    rows: Int[Tensor, " P"]


def _pairs_in_boxes(corners: Float[Tensor, "F 3 2"], usable: Bool[Tensor, " F"], width: int, height: int) -> _Pairs:
    """Each usable triangle with each sample whose centre lies in the box around it."""
    size = torch.tensor([width, height], dtype=torch.float64)
    low = (corners.amin(1) - 0.5).ceil().clamp_min(0).minimum(size).long()
    high = (corners.amax(1) - 0.5).floor().clamp_min(-1).minimum(size - 1).long()
    extent = (high - low + 1).clamp_min(0)
    counts = torch.where(usable, extent.prod(-1), 0)
    triangle = torch.repeat_interleave(torch.arange(len(corners)), counts)
    place = torch.arange(len(triangle)) - (counts.cumsum(0) - counts)[triangle]
    across = extent[:, 0][triangle]
    down = torch.div(place, across, rounding_mode="floor")
    return _Pairs(triangle, low[:, 0][triangle] + place - down * across, low[:, 1][triangle] + down)
