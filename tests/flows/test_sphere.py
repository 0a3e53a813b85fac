import math

import pytest
import torch

from kg4d.flows.drifting import Divergence, DriftConfig
from kg4d.flows.sphere import SphereKernel, exponential_map, heat_kernel, sphere_drift, sphere_estimate

F64 = torch.float64
CONFIGS = [DriftConfig({divergence: 1.0}) for divergence in Divergence]


def directions(count: int, seed: int, dim: int = 3) -> torch.Tensor:
    x = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return x / x.norm(dim=-1, keepdim=True)


def test_the_heat_kernel_is_a_density_that_spreads_by_the_heat_equation():
    """Against area on S²: mass 1, d/dt k = ((1 - c²) k')', and k' is its derivative."""
    c = torch.linspace(-1, 1, 20_001, dtype=F64)
    value, slope = heat_kernel(c, 2, 0.1)
    assert float(torch.trapezoid(value / 2, c)) == pytest.approx(1, abs=1e-6)
    h = float(c[1] - c[0])
    inner = slice(200, -200)
    torch.testing.assert_close(((value[2:] - value[:-2]) / (2 * h))[inner], slope[1:-1][inner], atol=1e-4, rtol=1e-4)
    flux = (1 - c.square()) * slope
    by_time = (heat_kernel(c, 2, 0.1 + 1e-5)[0] - heat_kernel(c, 2, 0.1 - 1e-5)[0]) / 2e-5
    torch.testing.assert_close(((flux[2:] - flux[:-2]) / (2 * h))[inner], by_time[1:-1][inner], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("dim", [2, 3, 5])
def test_the_heat_kernel_has_mass_1_in_other_dimensions(dim):
    angle = torch.linspace(0, math.pi, 20_001, dtype=F64)
    area = angle.sin() ** (dim - 1)
    value, _ = heat_kernel(angle.cos(), dim, 0.3)
    assert float(torch.trapezoid(value * area, angle) / torch.trapezoid(area, angle)) == pytest.approx(1, abs=1e-7)
    assert (value > 0).all()
    assert float(heat_kernel(angle.cos(), dim, 20.0)[0].std()) < 1e-6  # uniform in the end


@pytest.mark.parametrize("kernel", SphereKernel)
def test_the_score_is_the_tangent_gradient(kernel):
    x, y = directions(6, 0), directions(9, 1)
    found = sphere_estimate(x, y, 0.6, kernel)
    torch.testing.assert_close((found.score * x).sum(-1), torch.zeros(6, dtype=F64), atol=1e-10, rtol=0)
    for e in torch.eye(3, dtype=F64):
        tangent = e - (x @ e)[:, None] * x
        there, back = (sphere_estimate(exponential_map(x, s * tangent), y, 0.6, kernel) for s in (1e-5, -1e-5))
        slope = (there.log_density - back.log_density) / 2e-5
        torch.testing.assert_close((found.score * tangent).sum(-1), slope, atol=1e-6, rtol=1e-5)


def test_walks_end_on_the_sphere_where_they_should():
    x, v = directions(5, 0), directions(5, 1)
    tangent = v - (x * v).sum(-1, keepdim=True) * x
    there = exponential_map(x, tangent)
    torch.testing.assert_close(there.norm(dim=-1), torch.ones(5, dtype=F64))
    torch.testing.assert_close((there * x).sum(-1).acos(), tangent.norm(dim=-1))
    assert torch.equal(exponential_map(x, torch.zeros_like(x)), x / x.norm(dim=-1, keepdim=True))


@pytest.mark.parametrize("kernel", SphereKernel)
@pytest.mark.parametrize("config", CONFIGS)
def test_equal_sets_stay_and_turns_turn(kernel, config):
    q, p = directions(10, 0), directions(12, 1)
    torch.testing.assert_close(sphere_drift(q, q, 0.5, config, kernel), q, atol=1e-14, rtol=0)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(2), dtype=F64))[0]
    moved = sphere_drift(q, p, 0.5, config, kernel)
    torch.testing.assert_close(sphere_drift(q @ turn.mT, p @ turn.mT, 0.5, config, kernel), moved @ turn.mT)
    assert (moved - q).norm(dim=-1).min() > 0


@pytest.mark.parametrize("kernel", SphereKernel)
@pytest.mark.parametrize("dim", [3, 4])
def test_particles_end_where_the_target_is(kernel, dim):
    """From one cap to two others: mean direction and spread of the target."""
    g = torch.Generator().manual_seed(0)
    poles = torch.zeros(2, dim)
    poles[0, 0], poles[1, 1] = 1, 1
    p = poles.repeat(60, 1) + 0.25 * torch.randn(120, dim, generator=g)
    q = torch.ones(dim) + 0.3 * torch.randn(120, dim, generator=g)
    p, q = (x / x.norm(dim=-1, keepdim=True) for x in (p, q))
    before = torch.cdist(p, q).min(1).values.mean()
    for k in range(150):
        q = sphere_drift(q, p, 0.6 if k < 60 else 0.3, kernel=kernel, rate=0.5)
    torch.testing.assert_close(q.mean(0), p.mean(0), atol=0.03, rtol=0)
    torch.testing.assert_close(q.mT @ q / 120, p.mT @ p / 120, atol=0.04, rtol=0)
    assert torch.cdist(p, q).min(1).values.mean() < 0.5 * before


def test_small_kernels_agree_with_flat_ones():
    """Near a point the sphere is flat, and both kernels are the Gaussian of width h there."""
    near = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=F64) * 0.05
    x = torch.cat([near, torch.ones(8, 1, dtype=F64)], 1)
    x = x / x.norm(dim=-1, keepdim=True)
    scores = [sphere_estimate(x, x.flip(0)[:5], 0.06, kernel).score for kernel in SphereKernel]
    torch.testing.assert_close(*scores, atol=0.05, rtol=0.02)


def test_wrong_values():
    x = directions(3, 0)
    with pytest.raises(ValueError, match="bandwidth must be positive"):
        sphere_estimate(x, x, 0.0, SphereKernel.HEAT)
    with pytest.raises(ValueError, match="a time >= 1e-3"):
        sphere_estimate(x, x, 0.01, SphereKernel.HEAT)
    with pytest.raises(ValueError, match="dimension >= 2"):
        heat_kernel(x[:, 0], 1, 0.1)
