r"""Drifting on the unit sphere :math:`S^{n}` in :math:`\mathbb R^{n+1}`: kernels of the angle, tangent velocities.

The kernels depend on :math:`c = x \cdot y` alone, so the score's tangent part is :math:`\ell'(c) (y - c x)`.

Sources: as `kg4d.flows.drifting`; Mardia & Jupp, Directional Statistics, 2000 (von Mises-Fisher); the heat kernel is
the sum over eigenfunctions of the Laplacian, :math:`e^{-l (l + n - 1) t}` times zonal harmonics.
"""

import math
from enum import StrEnum

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.flows.drifting import DriftConfig, Estimate, combine


class SphereKernel(StrEnum):
    """The shape of a kernel on the sphere whose width in angle is about h."""

    VON_MISES_FISHER = "von_mises_fisher"  # exp((c - 1) / h²)
    HEAT = "heat"  # heat that has spread from a point for a time h² / 2


def heat_kernel(c: Float[Tensor, "*batch"], dim: int, time: float) -> tuple[Tensor, Tensor]:
    """The density, by area, of heat that started at a point, relative to the uniform one; and its derivative by c.

    Args:
        c: Cosine of the angle to the start.
        dim: n of the sphere, >= 2.
        time: t > 0. The series has about 6 / sqrt(t) terms.

    Raises:
        ValueError: `dim` is below 2, or `time` so short (below 1e-3) that the series cancels in float32.
    """
    if dim < 2 or time < 1e-3:
        raise ValueError(f"need a sphere of dimension >= 2 and a time >= 1e-3, got {dim} and {time}")
    order = (dim - 1) / 2  # of the Gegenbauer polynomials C_l, C_l' = 2 order C_(l-1) of the next order
    x = c.double()
    previous, current = torch.zeros_like(x), torch.ones_like(x)
    slope_previous, slope = torch.zeros_like(x), torch.zeros_like(x)
    total, total_slope, degree = torch.zeros_like(x), torch.zeros_like(x), 0
    while degree * (degree + dim - 1) * time < 40:
        factor = (degree + order) / order * math.exp(-degree * (degree + dim - 1) * time)
        total, total_slope = total + factor * current, total_slope + factor * slope
        degree += 1
        a, b = 2 * (degree + order - 1) / degree, (degree + 2 * order - 2) / degree
        previous, current, slope_previous, slope = (
            current,
            a * x * current - b * previous,
            slope,
            a * (current + x * slope) - b * slope_previous,
        )
    return total.to(c), total_slope.to(c)


def sphere_estimate(
    at: Float[Tensor, "n d"], points: Float[Tensor, "m d"], bandwidth: float, kernel: SphereKernel
) -> Estimate:
    """The density of points on the sphere, smoothed by a kernel, and its tangent score.

    Args:
        at: Unit vectors: where.
        points: Unit vectors that are smoothed.
        bandwidth: h, radians.
        kernel: Its shape.

    Raises:
        ValueError: `bandwidth` is not positive, or too small for the heat kernel's series.
    """
    if bandwidth <= 0:
        raise ValueError(f"the bandwidth must be positive, got {bandwidth}")
    c = (at @ points.mT).clamp(-1.0, 1.0)
    if kernel is SphereKernel.VON_MISES_FISHER:
        logits, slope = (c - 1) / bandwidth**2, torch.full_like(c, bandwidth**-2)
    else:
        value, derivative = heat_kernel(c, at.shape[1] - 1, bandwidth**2 / 2)
        floor = torch.finfo(c.dtype).eps * value.max()  # where rounding of the series leaves nothing
        logits, slope = value.clamp_min(floor).log(), torch.where(value > floor, derivative / value.clamp_min(floor), 0)
    log_density = logits.logsumexp(1)
    pull = (logits - log_density[:, None]).exp() * slope
    score = pull @ points - (pull * c).sum(1, keepdim=True) * at
    return Estimate(log_density - math.log(len(points)), score)


def exponential_map(x: Float[Tensor, "n d"], tangent: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Where a walk along a great circle ends that starts at unit vectors `x` along `tangent`, as long as that is.

    >>> exponential_map(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, torch.pi / 2]])).round(decimals=6).abs()
    tensor([[0., 1.]])
    """
    angle = tangent.norm(dim=-1, keepdim=True)
    there = angle.cos() * x + torch.sinc(angle / torch.pi) * tangent
    point: Tensor = there / there.norm(dim=-1, keepdim=True)
    return point


def sphere_drift(
    q: Float[Tensor, "n d"],
    p: Float[Tensor, "m d"],
    bandwidth: float,
    config: DriftConfig | None = None,
    kernel: SphereKernel = SphereKernel.VON_MISES_FISHER,
    rate: float = 0.2,
) -> Float[Tensor, "n d"]:
    """The particles on the sphere after one step, as `kg4d.flows.drifting.drift` in flat space.

    Args:
        q: Particles, unit vectors.
        p: The target, unit vectors.
        bandwidth: h, radians.
        config: The mixture and the bounds of ratios; its flat kernel is not used.
        kernel: The kernel on the sphere.
        rate: Step in units of h²; no step is longer than h.
    """
    of_p = sphere_estimate(q, p, bandwidth, kernel)
    of_q = sphere_estimate(q, q, bandwidth, kernel)
    change = rate * bandwidth**2 * combine(of_p, of_q, config or DriftConfig())
    length = change.norm(dim=-1, keepdim=True)
    return exponential_map(q, change * (bandwidth / length.clamp_min(bandwidth)))
