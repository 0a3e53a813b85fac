r"""Kernels of density estimates in flat space, as functions of the squared distance.

:math:`k(x, y) = e^{\ell(s)}`, :math:`s = |x - y|^2 / h^2`. Their normalisation is left out: it cancels in
every velocity of `kg4d.flows.drifting` but that of MMD, where it is a factor of time.
"""

import math
from enum import StrEnum
from typing import assert_never

import torch
from jaxtyping import Float
from torch import Tensor


class Kernel(StrEnum):
    """The shape of a kernel of bandwidth h."""

    GAUSSIAN = "gaussian"  # exp(-s / 2): forces vanish beyond a few h
    LAPLACE = "laplace"  # exp(-sqrt(s)): forces of one strength, whatever the distance
    STUDENT = "student"  # 1 / (1 + s): heavy tails, forces as 1 / distance

    def log(self, s: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Logarithm of the kernel at s."""
        match self:
            case Kernel.GAUSSIAN:
                return -s / 2
            case Kernel.LAPLACE:
                return -_root(s)
            case Kernel.STUDENT:
                return -torch.log1p(s)
            case _:
                assert_never(self)

    def slope(self, s: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Derivative of `log` by s, <= 0."""
        match self:
            case Kernel.GAUSSIAN:
                return torch.full_like(s, -0.5)
            case Kernel.LAPLACE:
                return -0.5 / _root(s)
            case Kernel.STUDENT:
                return -1 / (1 + s)
            case _:
                assert_never(self)


def _root(s: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    return (s + 1e-6).sqrt()  # the tip of the Laplace kernel, rounded within h / 1000


def annealed(start: float, end: float, progress: float) -> float:
    """A bandwidth that falls geometrically from `start` to `end` while `progress` goes from 0 to 1.

    >>> round(annealed(0.4, 0.1, 0.5), 6)
    0.2
    """
    if start <= 0 or end <= 0:
        raise ValueError(f"bandwidths must be positive, got {start} and {end}")
    return start * math.pow(end / start, min(max(progress, 0.0), 1.0))
