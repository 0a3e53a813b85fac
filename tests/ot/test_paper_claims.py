"""Which claims of KG4D's appendices hold, on the smallest examples.

The loss is motivated by Wasserstein gradient flows; these tests say how far the motivation carries.
"""

import math

import ot
import pytest
import torch

from kg4d.ot.gaussian_w2 import gaussian_w2
from kg4d.ot.offset import wasserstein_offset_closed

EYE = torch.eye(2, dtype=torch.float64)


def uniform_w2(x: torch.Tensor, y: torch.Tensor) -> float:
    """Exact squared W2 between two sets of equally heavy points."""
    half = torch.full((len(x),), 1 / len(x), dtype=torch.float64)
    return float(ot.emd2(half, half, torch.cdist(x, y).square()))


def distance_to_product_of_marginals(means: torch.Tensor, sigma: float) -> float:
    """Total variation between an even mixture of discs and the product of its two marginals, on a grid."""
    axis = torch.linspace(-4, 4, 401, dtype=torch.float64)
    ridges = (-(axis - means[..., None]).square() / (2 * sigma**2)).exp()  # (components, 2, grid)
    ridges = ridges / ridges.sum(-1, keepdim=True)
    joint = (ridges[:, 0, :, None] * ridges[:, 1, None, :]).mean(0)
    marginals = ridges.mean(0)
    return float((joint - marginals[0, :, None] * marginals[1]).abs().sum() / 2)


def test_theorem_1_a_mixture_is_not_the_product_of_its_marginals() -> None:
    """So the flow of a mixture does not split into one flow per axis, except where the centres differ in one axis."""
    diagonal = torch.tensor([[-1.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
    assert distance_to_product_of_marginals(diagonal, 0.4) == pytest.approx(0.488, abs=2e-3)
    aligned = diagonal * torch.tensor([1.0, 0.0])
    assert distance_to_product_of_marginals(aligned, 0.4) < 1e-12
    assert distance_to_product_of_marginals(diagonal[:1], 0.4) < 1e-12


def test_theorem_2_in_one_dimension_the_kinetic_energy_is_the_squared_change_of_mean_and_width() -> None:
    """Along the geodesic N(m_t, s_t²) with velocity m' + (s' / s_t)(x - m_t) the energy is constant: dm² + ds²."""
    dm, ds = 1.7, 0.9
    for time in (0.0, 0.3, 1.0):
        m, s = dm * time, 0.5 + ds * time
        x = torch.linspace(m - 12 * s, m + 12 * s, 20_001, dtype=torch.float64)
        density = (-(x - m).square() / (2 * s**2)).exp() / (s * math.sqrt(2 * math.pi))
        energy = torch.trapezoid(density * (dm + ds / s * (x - m)).square(), x)
        assert float(energy) == pytest.approx(dm**2 + ds**2, rel=1e-9)


def test_theorem_2_in_two_dimensions_the_width_counts_once_per_axis() -> None:
    shift = torch.tensor([1.0, 2.0], dtype=torch.float64)
    found = gaussian_w2(torch.zeros_like(shift), 0.25 * EYE, shift, 4.0 * EYE)
    assert float(found) == pytest.approx(5.0 + 2 * 1.5**2)  # KG4D's form would have 5 + 1.5²


def test_theorem_2_fails_for_covariances_that_do_not_commute() -> None:
    """There the difference of the roots overestimates the distance; the Bures form is needed."""
    turn = torch.tensor([[1.0, -1.0], [1.0, 1.0]], dtype=torch.float64) / math.sqrt(2)
    root_a, root_b = torch.diag(torch.tensor([2.0, 0.5])).double(), torch.diag(torch.tensor([1.5, 0.3])).double()
    root_b = turn @ root_b @ turn.mT
    zero = torch.zeros(2, dtype=torch.float64)
    bures = gaussian_w2(zero, root_a @ root_a, zero, root_b @ root_b)
    assert (root_a - root_b).square().sum() > 1.05 * bures


def test_theorem_3_squared_w2_is_not_convex_along_geodesics() -> None:
    a = torch.tensor([[1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    b = torch.tensor([[1.01, -1.0], [-1.01, 1.0]], dtype=torch.float64)
    c = torch.tensor([[0.0, 2.0], [0.0, -2.0]], dtype=torch.float64)
    assert uniform_w2(a, b) == pytest.approx(float((a - b).square().sum(-1).mean()))  # so the pairing is row by row
    midpoint = (a + b) / 2
    ends = uniform_w2(a, c), uniform_w2(b, c)
    assert ends == pytest.approx((2.0, 2.02), abs=0.01)
    assert uniform_w2(midpoint, c) == pytest.approx(5.01, abs=0.01)


def misfit(points: torch.Tensor, start: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The functional of theorem 3, |y - (mean of the points - mean of the start)|²."""
    weights = torch.full((len(points),), 1 / len(points), dtype=points.dtype)
    return (wanted - wasserstein_offset_closed(weights, start, weights, points)).square().sum()


def test_theorem_3_the_functional_is_convex_along_geodesics_and_no_more() -> None:
    g = torch.Generator().manual_seed(0)
    start, wanted = torch.randn(5, 2, generator=g, dtype=torch.float64), torch.tensor([0.3, 0.1], dtype=torch.float64)
    for _ in range(20):
        x, y = torch.randn(2, 5, 2, generator=g, dtype=torch.float64)
        order = ot.emd(torch.ones(5) / 5, torch.ones(5) / 5, torch.cdist(x, y).square()).argmax(1)
        middle = misfit((x + y[order]) / 2, start, wanted)
        assert middle <= (misfit(x, start, wanted) + misfit(y, start, wanted)) / 2 + 1e-12
    rotated = (x - x.mean(0)) @ torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64) + x.mean(0)
    torch.testing.assert_close(misfit(rotated, start, wanted), misfit(x, start, wanted))  # flat: not strongly convex


def test_theorem_3_its_gradient_flow_is_a_rigid_translation() -> None:
    """Every point moves with -2 (mean - goal), so the mean decays as exp(-2 t) and the shape never changes."""
    g = torch.Generator().manual_seed(1)
    start, wanted = torch.randn(6, 2, generator=g, dtype=torch.float64), torch.tensor([1.0, -0.5], dtype=torch.float64)
    points, step = start.clone(), 1e-3
    for _ in range(1000):
        points.requires_grad_()
        (gradient,) = torch.autograd.grad(misfit(points, start, wanted), points)
        points = (points - step * len(points) * gradient).detach()  # the Wasserstein gradient undoes the weights 1 / n
    goal = start.mean(0) + wanted
    decay = (points.mean(0) - goal).norm() / (start.mean(0) - goal).norm()
    assert float(decay) == pytest.approx(math.exp(-2.0), rel=5e-3)
    torch.testing.assert_close(points - points.mean(0), start - start.mean(0))


def test_theorem_3_the_functional_jumps_along_a_weak_limit() -> None:
    """(1 - 1/n) at 0 and 1/n at n tends weakly to the point 0, while its mean stays at 1."""
    origin, wanted = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    for n in (10.0, 1e6):
        weights = torch.tensor([1 - 1 / n, 1 / n], dtype=torch.float64)
        points = torch.tensor([[0.0, 0.0], [n, 0.0]], dtype=torch.float64)
        offset = wasserstein_offset_closed(one, origin, weights, points)
        assert (wanted - offset).square().sum() < 1e-12
    assert (wanted - wasserstein_offset_closed(one, origin, one, origin)).square().sum() == 1.0
