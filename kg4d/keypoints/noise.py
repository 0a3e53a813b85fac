"""Robust estimates of how noisy positions in an image are."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

_MEDIAN = math.sqrt(2 * math.log(2))  # median length of a 2D normal vector of unit standard deviation


def robust_deviation(distances: Float[Tensor, " N"], weights: Float[Tensor, " N"]) -> float:
    """Standard deviation of a coordinate of 2D normal errors, from the weighted median of their lengths.

    The median keeps outliers from adding much, however far off they are; the weights keep unreliable positions from
    saying much about the others.

    Args:
        distances: Lengths of the errors, in any unit.
        weights: Confidence in each position, >= 0; those of zero are left out.

    Returns:
        In the unit of `distances`; 0 if no position has weight.
    """
    distances, order = distances[weights > 0].sort()
    if len(distances) == 0:
        return 0.0
    reached = weights[weights > 0][order].double().cumsum(0)
    return float(distances[reached >= reached[-1] / 2][0] / _MEDIAN)


def jitter(offsets: Float[Tensor, "T N 2"], weights: Float[Tensor, "T N"]) -> float:
    """Standard deviation of the part of 2D errors that is independent between frames, from second differences in time.

    A fit that is too smooth misses positions by similar amounts in consecutive frames, and that is not their noise;
    noise differs in every frame.

    Args:
        offsets: Errors of N positions in T frames, in any unit. May be NaN where the weight is zero.
        weights: Confidence in each position, >= 0; those of zero are left out.

    Returns:
        In the unit of `offsets`. If no position is known in three consecutive frames, this is `robust_deviation`.
    """
    offsets = torch.where(weights[..., None] > 0, offsets, 0.0)
    triples = torch.minimum(torch.minimum(weights[:-2], weights[2:]), weights[1:-1])
    if not bool((triples > 0).any()):
        return robust_deviation(offsets.norm(dim=-1).flatten(), weights.flatten())
    # a second difference of independent errors has 1 + 4 + 1 times their variance
    return robust_deviation(offsets.diff(n=2, dim=0).norm(dim=-1).flatten(), triples.flatten()) / math.sqrt(6)
