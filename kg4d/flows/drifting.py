r"""Drifting: particles q that flow towards a set p by the gradient flow of a divergence between density estimates.

With :math:`r = q / p` of two kernel density estimates the flow of :math:`\int p f(r)` has the velocity
:math:`r f''(r) (\nabla \log p - \nabla \log q)`: one direction for all such divergences, each with its own weight. That
of MMD²/2 is :math:`\nabla (p - q)`. All vanish where the two sets are the same, as the same sums cancel term by term.

Source: Cao, Wei, Liu, Gradient Flow Drifting: Generative Modeling via Wasserstein Gradient Flows of KDE-Approximated
Divergences. "Reverse" and "forward" are used both ways there; here a divergence is named by its arguments.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.flows.kernels import Kernel


class Divergence(StrEnum):
    """What the particles q and the target p are compared by."""

    KL_QP = "kl_qp"  # KL(q | p): weight 1; q leaves modes of p out
    KL_PQ = "kl_pq"  # KL(p | q): weight 1 / r; strongest where q is missing
    CHI2_QP = "chi2_qp"  # chi²(q | p): weight 2 r; strongest where q has too much
    MMD = "mmd"  # half the squared maximum mean discrepancy: forces fall with the densities


@dataclass(frozen=True)
class DriftConfig:
    """How a velocity is made of two sets.

    Attributes:
        mixture: Share of each divergence; one alone has share 1.
        kernel: Shape of the kernel.
        clip: Bounds of r = q / p, around 1, within which density ratios are trusted.
    """

    mixture: Mapping[Divergence, float] = field(default_factory=lambda: {Divergence.KL_QP: 1.0})
    kernel: Kernel = Kernel.GAUSSIAN
    clip: tuple[float, float] = (0.1, 10.0)

    def __post_init__(self) -> None:
        if not self.mixture or min(self.mixture.values()) < 0:
            raise ValueError(f"need a divergence, and shares >= 0, got {dict(self.mixture)}")
        if not 0 < self.clip[0] <= 1 <= self.clip[1]:
            raise ValueError(f"the bounds of q / p must be positive and have 1 between them, got {self.clip}")


class Estimate(NamedTuple):
    """A kernel density estimate, unnormalised, at some points."""

    log_density: Float[Tensor, " n"]
    score: Float[Tensor, "n d"]  # gradient of log_density by the points


def estimate(
    at: Float[Tensor, "n d"],
    points: Float[Tensor, "m d"],
    bandwidth: float,
    kernel: Kernel = Kernel.GAUSSIAN,
    weights: Float[Tensor, " m"] | None = None,
) -> Estimate:
    """The density of weighted points, smoothed by a kernel.

    Args:
        at: Where.
        points: What is smoothed. A point of `at` among them counts like any other.
        bandwidth: h > 0, in the unit of the points.
        kernel: Its shape.
        weights: >= 0, not all 0; equal when None. Only their ratios count.

    Raises:
        ValueError: `bandwidth` is not positive.
    """
    if bandwidth <= 0:
        raise ValueError(f"the bandwidth must be positive, got {bandwidth}")
    s = torch.cdist(at, points, compute_mode="donot_use_mm_for_euclid_dist").square() / bandwidth**2
    logits = kernel.log(s)
    logits = logits - math.log(len(points)) if weights is None else logits + (weights / weights.sum()).log()
    log_density = logits.logsumexp(1)
    pull = (logits - log_density[:, None]).exp() * kernel.slope(s) * (2 / bandwidth**2)
    return Estimate(log_density, pull.sum(1, keepdim=True) * at - pull @ points)


def velocity(
    q: Float[Tensor, "n d"],
    p: Float[Tensor, "m d"],
    bandwidth: float,
    config: DriftConfig | None = None,
    q_weights: Float[Tensor, " n"] | None = None,
    p_weights: Float[Tensor, " m"] | None = None,
) -> Float[Tensor, "n d"]:
    """The velocity of each particle, in length per time, without gradient.

    Args:
        q: Particles.
        p: The target, unlabelled.
        bandwidth: h of both estimates, in the unit of the points.
        config: Divergence and kernel; KL(q | p) with a Gaussian when None.
        q_weights: Masses of the particles, as in `estimate`.
        p_weights: Masses of the target's points.
    """
    config = config or DriftConfig()
    q, p = q.detach(), p.detach()
    of_p = estimate(q, p, bandwidth, config.kernel, p_weights)
    of_q = estimate(q, q, bandwidth, config.kernel, q_weights)
    return combine(of_p, of_q, config)


def combine(of_p: Estimate, of_q: Estimate, config: DriftConfig) -> Float[Tensor, "n d"]:
    """The mixture's velocity from both estimates at the particles: also on manifolds, with their scores."""
    difference = of_p.score - of_q.score
    r = (of_q.log_density - of_p.log_density).exp().clamp(*config.clip)[:, None]
    total = torch.zeros_like(difference)
    for divergence, share in config.mixture.items():
        match divergence:
            case Divergence.KL_QP:
                part = difference
            case Divergence.KL_PQ:
                part = difference / r
            case Divergence.CHI2_QP:
                part = 2 * r * difference
            case Divergence.MMD:
                part = of_p.score * of_p.log_density.exp()[:, None] - of_q.score * of_q.log_density.exp()[:, None]
        total = total + share * part
    return total


def step_of(
    q: Float[Tensor, "n d"], speed: Float[Tensor, "n d"], bandwidth: float, rate: float
) -> Float[Tensor, "n d"]:
    """How far each particle goes: `rate` h² along its velocity, but at most h, the reach of the estimates."""
    change: Tensor = rate * bandwidth**2 * speed
    length = change.norm(dim=-1, keepdim=True)
    step: Tensor = change * (bandwidth / length.clamp_min(bandwidth))
    return step


def drift(
    q: Float[Tensor, "n d"],
    p: Float[Tensor, "m d"],
    bandwidth: float,
    config: DriftConfig | None = None,
    rate: float = 0.2,
) -> Float[Tensor, "n d"]:
    """The particles after one step.

    Args:
        q: Particles.
        p: The target.
        bandwidth: h, in the unit of the points; see `annealed`.
        config: Divergence and kernel.
        rate: Step in units of h²: the time constant of a density estimate. Stable well below 2.
    """
    return q + step_of(q, velocity(q, p, bandwidth, config), bandwidth, rate)


def coverage_loss(
    points: Float[Tensor, "n d"],
    target: Float[Tensor, "m d"],
    bandwidth: float,
    config: DriftConfig | None = None,
    point_weights: Float[Tensor, " n"] | None = None,
    target_weights: Float[Tensor, " m"] | None = None,
    rate: float = 0.2,
) -> Float[Tensor, ""]:
    r"""The drifting loss: :math:`\sum_i a_i |x_i - \text{sg}(x_i + \eta v_i)|^2`, for sets nobody has paired.

    Its gradient is :math:`-2 a_i \eta v_i`: gradient descent on whatever made the points follows the flow. Its value is
    the mean squared step, 0 where the two sets are the same.

    Args:
        points: Particles, as projected centres of Gaussians, differentiable.
        target: Their unlabelled target, as the pixels of a matte.
        bandwidth: h > 0, in the unit of the points.
        config: Divergence and kernel.
        point_weights: Masses of the particles, as opacities; they weigh the loss too.
        target_weights: Masses of the target's points, as a matte's alpha.
        rate: eta in units of h².
    """
    speed = velocity(points, target, bandwidth, config, point_weights, target_weights)
    change = step_of(points.detach(), speed, bandwidth, rate)
    weights = torch.ones_like(points[:, 0]) if point_weights is None else point_weights.detach()
    squares = (points - (points.detach() + change)).square().sum(-1)
    return (weights / weights.sum() * squares).sum()


def divergence_value(
    q: Float[Tensor, "n d"],
    p: Float[Tensor, "m d"],
    at: Float[Tensor, "k d"],
    bandwidth: float,
    divergence: Divergence,
    kernel: Kernel = Kernel.GAUSSIAN,
) -> Float[Tensor, ""]:
    """A divergence between both estimates, by the sum over points `at` of a grid that covers them.

    The estimates are normalised on the grid. For MMD the exact value by sums of kernels over pairs, whatever `at` is.
    """
    if divergence is Divergence.MMD:
        kernels = [
            kernel.log(torch.cdist(a, b).square() / bandwidth**2).exp().mean() for a, b in ((q, q), (p, p), (q, p))
        ]
        return (kernels[0] + kernels[1] - 2 * kernels[2]) / 2
    log_q, log_p = (estimate(at, points, bandwidth, kernel).log_density.log_softmax(0) for points in (q, p))
    match divergence:
        case Divergence.KL_QP:
            return (log_q.exp() * (log_q - log_p)).sum()
        case Divergence.KL_PQ:
            return (log_p.exp() * (log_p - log_q)).sum()
        case Divergence.CHI2_QP:
            return (2 * log_q - log_p).exp().sum() - 1
