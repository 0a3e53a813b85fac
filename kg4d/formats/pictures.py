"""Depth and motion as pictures: brightness for depth, colour for the direction in which something has moved."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

_TAIL = 0.02  # share of the pixels that are nearer or farther than the brightest and the darkest
_LARGEST = 0.99  # share of the motion up to which colours still get stronger
_LEAST = 1.0  # px of motion that get full colour at least: less is no motion


def depth_pictures(depth: Float[Tensor, "T H W"]) -> Float[Tensor, "T H W 3"]:
    """What is near is bright, by inverse depth and alike in all frames; black where nothing is drawn (0)."""
    drawn = depth > 0
    if not bool(drawn.any()):
        return torch.zeros(*depth.shape, 3)
    near = torch.where(drawn, 1 / depth.clamp_min(torch.finfo(depth.dtype).tiny), 0)
    known = near[drawn].sort().values
    first = round(_TAIL * (len(known) - 1))
    low, high = known[first], known[len(known) - 1 - first]
    shade = (near - low) / (high - low).clamp_min(torch.finfo(depth.dtype).tiny)
    return (torch.where(drawn, 0.1 + 0.9 * shade.clamp(0, 1), 0))[..., None].expand(-1, -1, -1, 3)


def motion_pictures(flow: Float[Tensor, "T H W 2"], behind: Float[Tensor, "H W 3"]) -> Float[Tensor, "T H W 3"]:
    """Motion over a faint picture: the hue is its direction, the strength of the colour its length.

    To the right is red, downwards a yellow green, to the left cyan, upwards violet; alike in all frames.

    Args:
        flow: Displacement of what `behind` shows, px.
        behind: RGB in [0, 1].
    """
    length = flow.norm(dim=-1)
    ordered = length.flatten().sort().values
    full = ordered[round(_LARGEST * (len(ordered) - 1))].clamp_min(_LEAST)
    turn = torch.atan2(flow[..., 1], flow[..., 0]) / (2 * math.pi)
    offsets = flow.new_tensor([0.0, 2 / 3, 1 / 3])  # of red, green and blue along the circle of hues
    hue = (6 * ((turn[..., None] + offsets) % 1 - 0.5).abs() - 1).clamp(0, 1)
    strength = (length / full).clamp_max(1)[..., None]
    grey = 0.3 + 0.4 * behind.mean(-1, keepdim=True)
    return torch.lerp(grey.expand_as(hue), hue, strength)
