"""The surface about which near and far side of an object are mirror images: a depth for each pixel of its only view."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import grid_sample

_NEAR = 0.01  # of the longer side of the image: how far from a bone its depth holds alone


def depths_of_bones(
    uv: Float[Tensor, "J 2"], depths: Float[Tensor, " J"], parents: Int[Tensor, " J"], width: int, height: int
) -> Float[Tensor, "H W"]:
    """A depth for each pixel: those of the points next to it on all bones, weighted by one over distance to the fourth.

    Args:
        uv: Keypoints, px.
        depths: Theirs, world units.
        parents: Index of each keypoint's parent, -1 for roots.
        width: Of the image, px.
        height: Of the image, px.
    """
    children = (parents >= 0).nonzero()[:, 0]
    starts, ends = uv[parents[children]], uv[children]
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixels = torch.stack([columns, rows], -1).to(uv)[..., None, :]
    along = ends - starts
    share = (((pixels - starts) * along).sum(-1) / along.square().sum(-1).clamp_min(1e-6)).clamp(0, 1)
    squared = (pixels - starts - share[..., None] * along).square().sum(-1)
    weights = (squared + (_NEAR * max(width, height)) ** 2).pow(-2)
    there = depths[parents[children]] * (1 - share) + depths[children] * share
    return (weights * there).sum(-1) / weights.sum(-1)


def between_pixels(values: Float[Tensor, "H W"], positions: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
    """Values at positions in px, bilinear between the centres of pixels; beyond the border those of the border."""
    grid = positions / positions.new_tensor([values.shape[1], values.shape[0]]) * 2 - 1
    found = grid_sample(values[None, None].to(grid), grid[None, None], padding_mode="border", align_corners=False)
    return found[0, 0, 0]
