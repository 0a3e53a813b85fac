r"""Coordinates from heatmaps (KG4D eq. 8), with the confidence that goes with them.

Eq. 8 takes a softmax "per axis" and does not say how the other axis is reduced first. Whether it works depends on
that, so each reading of the equation has a name. `JOINT` is the default: with logsumexp over the other axis, the
softmax per axis is exactly the marginal of the softmax over all pixels,

.. math:: softmax_x(LSE_y(M / \tau)) = \sum_y softmax_{xy}(M / \tau),

and the gradient of a coordinate is :math:`\partial x / \partial M_p = \pi_p (x_p - x) / \tau` with :math:`\pi` the
joint softmax: alive for a flat map (zero logits can learn), dead for a delta (no temperature below 0.02).

Limits of every reading: a flat map reads as the image centre, two equal peaks as their midpoint, and a keypoint outside
the image as a point inside. `std` and `entropy` tell these apart from a sharp peak. A peak outweighs the background
when (peak - background) / temperature is at least about ln(100 H W / pixels of the blob).
"""

import math
from typing import NamedTuple, assert_never

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.keypoints.settings import KeypointReading


class KeypointCoordinates(NamedTuple):
    """The point that each heatmap stands for."""

    pixels: Float[Tensor, "*batch 2"]  # (x right, y down), px; the centre of the top left pixel is (0.5, 0.5)
    std: Float[Tensor, "*batch"]  # px, sqrt(var x + var y), detached; about 0.4 of the image side for a flat map
    entropy: Float[Tensor, "*batch"]  # of the two marginals, in [0, 1], detached; 0 is a delta, 1 is a flat map


def soft_argmax(
    logits: Float[Tensor, "*batch H W"],
    *,
    temperature: float,
    reading: KeypointReading = KeypointReading.JOINT,
) -> KeypointCoordinates:
    """Expected position under the distribution of each heatmap (KG4D eq. 8), computed in float32 or wider.

    Args:
        logits: Heatmaps M; larger is more likely. Adding a constant changes nothing (except for `MASS`).
        temperature: Divides the maps before the softmax, > 0, in their unit.
        reading: How the map becomes a distribution.

    Raises:
        ValueError: The temperature is not positive.

    >>> M = torch.zeros(4, 6)
    >>> M[1, 4] = 1.0
    >>> soft_argmax(M, temperature=0.02).pixels
    tensor([4.5000, 1.5000])
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    height, width = logits.shape[-2:]
    x = torch.arange(width, dtype=logits.dtype, device=logits.device) + 0.5
    y = torch.arange(height, dtype=logits.dtype, device=logits.device) + 0.5
    px, py = _marginals(logits, temperature, reading)
    pixels = torch.stack([(px * x).sum(-1), (py * y).sum(-1)], dim=-1)
    with torch.no_grad():
        variance = (px * (x - pixels[..., :1]).square()).sum(-1) + (py * (y - pixels[..., 1:]).square()).sum(-1)
        entropy = torch.special.entr(px).sum(-1) + torch.special.entr(py).sum(-1)
        entropy = entropy / math.log(max(height * width, 2))
    return KeypointCoordinates(pixels, variance.sqrt(), entropy)


def _marginals(
    logits: Float[Tensor, "*batch H W"], temperature: float, reading: KeypointReading
) -> tuple[Float[Tensor, "*batch W"], Float[Tensor, "*batch H"]]:
    """Distributions over columns and over rows."""
    scaled = logits / temperature
    match reading:
        case KeypointReading.JOINT:
            density = _floored(scaled).flatten(-2).softmax(-1).reshape(logits.shape)
            return density.sum(-2), density.sum(-1)
        case KeypointReading.SEPARABLE:
            return scaled.sum(-2).softmax(-1), scaled.sum(-1).softmax(-1)
        case KeypointReading.MAX:
            return scaled.amax(-2).softmax(-1), scaled.amax(-1).softmax(-1)
        case KeypointReading.MEAN:
            return scaled.mean(-2).softmax(-1), scaled.mean(-1).softmax(-1)
        case KeypointReading.LITERAL:
            return scaled.softmax(-1).mean(-2), scaled.softmax(-2).mean(-1)
        case KeypointReading.MASS:
            density = logits.clamp_min(0)
            return _normalised(density.sum(-2)), _normalised(density.sum(-1))
        case _:
            assert_never(reading)


def _floored(logits: Float[Tensor, "*batch H W"]) -> Float[Tensor, "*batch H W"]:
    """Raise what lies a factor of e^60 below the peak to that.

    It has no mass, but its exponential would be a denormal number, with which processors calculate many times more
    slowly.
    """
    values = logits.detach()
    floor = values.amax((-2, -1), keepdim=True) - 60
    return logits + (floor - values).clamp_min_(0)


def _normalised(mass: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    """Divide by the sum; an empty row becomes uniform, as it does under a softmax."""
    total = mass.sum(-1, keepdim=True)
    return torch.where(total > 1e-12, mass / total.clamp_min(1e-12), 1 / mass.shape[-1])
