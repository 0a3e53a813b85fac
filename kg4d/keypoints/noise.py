"""How noisy positions in an image are."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

_MEDIAN = math.sqrt(2 * math.log(2))  # of the length of two normal errors of deviation 1


def deviation(distances: Float[Tensor, " N"], weights: Float[Tensor, " N"]) -> float:
    """Deviation of one coordinate of normal errors in the plane, from the median of their lengths; 0 without any.

    A median, so that a share of wrong positions adds little, however far off they are; weighted, so that positions
    which are hardly believed say little about the others.

    Args:
        distances: Lengths of the errors.
        weights: Confidence >= 0; what has none is not counted.
    """
    distances, order = distances[weights > 0].sort()
    if len(distances) == 0:
        return 0.0
    reached = weights[weights > 0][order].double().cumsum(0)
    return float(distances[reached >= reached[-1] / 2][0] / _MEDIAN)


def jitter(offsets: Float[Tensor, "T N 2"], weights: Float[Tensor, "T N"]) -> float:
    """Deviation of one coordinate of what errors do from one frame to the next, from their second differences in time.

    A fit that misses positions misses them alike in frames that follow each other, and that is no noise of theirs;
    noise is another one in each frame. Where no position is known in three frames on end, the same as `deviation`.

    Args:
        offsets: Errors of N positions over time.
        weights: Confidence >= 0; what has none is not counted, and may be anything.
    """
    offsets = torch.where(weights[..., None] > 0, offsets, 0.0)
    triples = torch.minimum(torch.minimum(weights[:-2], weights[2:]), weights[1:-1])
    if not bool((triples > 0).any()):
        return deviation(offsets.norm(dim=-1).flatten(), weights.flatten())
    return deviation(offsets.diff(n=2, dim=0).norm(dim=-1).flatten(), triples.flatten()) / math.sqrt(6)
