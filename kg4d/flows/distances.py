"""How far a law is from another: between moments, along a line, between sets of points, and round a circle."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.flows.laws import Gaussian
from kg4d.ot.plans import transport_plan
from kg4d.ot.settings import PlanConfig, PlanSolver


def moments(x: Float[Tensor, "B d"]) -> Gaussian:
    """The Gaussian with the mean and the covariance of a sample."""
    centred = x - x.mean(0)
    return Gaussian(x.mean(0), centred.mT @ centred / len(x))


def moments_w2(a: Gaussian, b: Gaussian) -> float:
    """The 2-Wasserstein distance of two Gaussians in any dimension; of other laws with these moments a lower bound.

    >>> a, b = (Gaussian(torch.zeros(3), s * torch.eye(3)) for s in (1.0, 4.0))
    >>> round(moments_w2(a, b) ** 2, 6)  # (2 - 1)² an axis
    3.0
    """
    root = _root(a.cov.double())
    cross = _root(root @ b.cov.double() @ root)
    bures = a.cov.double().trace() + b.cov.double().trace() - 2 * cross.trace()
    return math.sqrt(max(float((a.mean - b.mean).double().square().sum() + bures), 0.0))


def _root(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = vectors * values.clamp_min(0.0).sqrt() @ vectors.mT
    return root


def points_w2(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> float:
    """The exact 2-Wasserstein distance of two sets of equally heavy points. Needs POT (`kg4d[exact]`)."""
    cost, plan = optimal_plan(x, y)
    return math.sqrt(float((cost * plan).sum()))


def optimal_plan(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m"]]:
    """Squared distances, and the plan that is cheapest by them, between equally heavy points."""
    cost = torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
    a, b = (torch.full((1, len(part)), 1 / len(part), dtype=torch.float64) for part in (x, y))
    return cost, transport_plan(cost[None], a, b, PlanConfig(PlanSolver.EXACT))[0]


def histogram_distance(
    x: Float[Tensor, " n"], edges: Float[Tensor, " k1"], probabilities: Float[Tensor, " k"]
) -> float:
    """Total variation between a sample's histogram and the probabilities of the same bins; outside the bins counts."""
    counts = torch.histogram(x.double().cpu(), edges.double()).hist / len(x)
    outside = (1 - counts.sum()).clamp_min(0.0) + (1 - probabilities.sum()).clamp_min(0.0)
    return float(((counts - probabilities).abs().sum() + outside) / 2)


def kuiper(angles: Float[Tensor, " n"]) -> float:
    r"""How probable a sample of uniform angles is to look at least as uneven as this one (Kuiper's test).

    Where the circle is cut does not matter. By the asymptotic series :math:`2 \sum_j (4 j^2 s^2 - 1) e^{-2 j^2 s^2}` of
    :math:`s = V (\sqrt n + .155 + .24 / \sqrt n)` (Stephens 1970); exact to a few 1e-3 from n = 20 on.

    Args:
        angles: In radians, any range.
    """
    n = len(angles)
    order = (angles.double() / (2 * math.pi) % 1).sort().values
    rank = torch.arange(n, dtype=torch.float64)
    spread = float(((rank + 1) / n - order).max() + (order - rank / n).max())
    s = spread * (math.sqrt(n) + 0.155 + 0.24 / math.sqrt(n))
    if s < 0.4:  # the series converges slowly there, to 1 within 1e-6
        return 1.0
    squares = [(j * s) ** 2 for j in range(1, 101)]
    return min(1.0, max(0.0, 2 * sum((4 * q - 1) * math.exp(-2 * q) for q in squares)))
