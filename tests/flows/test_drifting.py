import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kg4d.flows.drifting import (
    Divergence,
    DriftConfig,
    coverage_loss,
    divergence_value,
    drift,
    estimate,
    velocity,
)
from kg4d.flows.kernels import Kernel, annealed

F64 = torch.float64
SINGLE = [DriftConfig({divergence: 1.0}) for divergence in Divergence]
CONFIGS = [*SINGLE, DriftConfig({Divergence.KL_PQ: 0.5, Divergence.CHI2_QP: 0.5})]


def two_sets(seed: int = 0, n: int = 12, m: int = 15) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 2, generator=g, dtype=F64), 0.5 + torch.randn(m, 2, generator=g, dtype=F64)


@pytest.mark.parametrize("kernel", Kernel)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_score_is_the_gradient_of_the_density(kernel, weighted):
    q, p = two_sets()
    weights = torch.rand(15, generator=torch.Generator().manual_seed(1), dtype=F64) if weighted else None
    leaf = q.clone().requires_grad_()
    squares = (leaf[:, None] - p).square().sum(-1) / 0.7**2
    share = torch.full((15,), 1 / 15, dtype=F64) if weights is None else weights / weights.sum()
    log_density = (kernel.log(squares).exp() @ share).log()
    (expected,) = torch.autograd.grad(log_density.sum(), leaf)
    found = estimate(q, p, 0.7, kernel, weights)
    torch.testing.assert_close(found.log_density, log_density)
    torch.testing.assert_close(found.score, expected, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("kernel", Kernel)
def test_equal_sets_do_not_move(config, kernel):
    """To the last bit."""
    q, _ = two_sets()
    mine = DriftConfig(config.mixture, kernel)
    assert (velocity(q, q, 0.3, mine) == 0).all()
    assert velocity(q, q.flip(0), 0.3, mine).abs().max() < 1e-10  # another order of the sums


@pytest.mark.parametrize("config", CONFIGS)
def test_different_sets_move(config):
    q, p = two_sets()
    assert (velocity(q, p, 0.5, config).norm(dim=-1) > 1e-4).all()


@given(st.integers(0, 1000), st.floats(-3, 3), st.sampled_from(CONFIGS), st.sampled_from(list(Kernel)))
def test_turns_and_shifts_of_both_sets_turn_the_velocity(seed, angle, config, kernel):
    q, p = two_sets(seed)
    c, s = math.cos(angle), math.sin(angle)
    turn, shift = torch.tensor([[c, -s], [s, c]], dtype=F64), torch.tensor([0.3, -2.0], dtype=F64)
    mine = DriftConfig(config.mixture, kernel)
    there = velocity(q @ turn.mT + shift, p @ turn.mT + shift, 0.5, mine)
    torch.testing.assert_close(there, velocity(q, p, 0.5, mine) @ turn.mT, atol=1e-9, rtol=1e-6)


def test_wide_kernels_see_the_means_alone():
    """The same force on every particle, as that of KG4D's eq. 10."""
    q, p = two_sets()
    h = 1e3
    expected = ((p.mean(0) - q.mean(0)) / h**2).expand_as(q)
    torch.testing.assert_close(velocity(q, p, h), expected, rtol=1e-2, atol=0)


def test_each_divergence_is_a_weight_of_one_direction():
    q, p = two_sets()
    base = velocity(q, p, 0.8)
    r = (estimate(q, q, 0.8).log_density - estimate(q, p, 0.8).log_density).exp()[:, None]
    wide = (1e-6, 1e6)
    for divergence, weight in ((Divergence.KL_PQ, 1 / r), (Divergence.CHI2_QP, 2 * r)):
        torch.testing.assert_close(velocity(q, p, 0.8, DriftConfig({divergence: 1.0}, clip=wide)), weight * base)
    tight = DriftConfig({Divergence.KL_PQ: 1.0}, clip=(1.0, 1.0))
    torch.testing.assert_close(velocity(q, p, 0.8, tight), base)


def test_the_mmd_velocity_is_the_descent_of_mmd():
    q, p = two_sets()
    leaf = q.clone().requires_grad_()
    value = divergence_value(leaf, p, q, 0.6, Divergence.MMD)
    (gradient,) = torch.autograd.grad(value, leaf)
    found = velocity(q, p, 0.6, DriftConfig({Divergence.MMD: 1.0}))
    torch.testing.assert_close(found, -len(q) * gradient)  # the Wasserstein gradient undoes the masses 1 / n


@pytest.mark.parametrize("divergence", Divergence)
def test_energies_dissipate(divergence):
    g = torch.Generator().manual_seed(0)
    q = 0.5 * torch.randn(60, 2, generator=g, dtype=F64)
    p = torch.randn(60, 2, generator=g, dtype=F64) * torch.tensor([1.0, 0.4]) + 0.4
    axis = torch.linspace(-5, 5, 81, dtype=F64)
    grid, config = torch.cartesian_prod(axis, axis), DriftConfig({divergence: 1.0})
    values = []
    for _ in range(40):
        values.append(float(divergence_value(q, p, grid, 0.5, divergence)))
        q = drift(q, p, 0.5, config, rate=0.1)
    assert values == sorted(values, reverse=True)
    assert values[-1] < (0.7 if divergence is Divergence.MMD else 0.2) * values[0]


def test_the_loss_descends_along_the_flow():
    q, p = two_sets()
    alpha, opacity = torch.rand(15, dtype=F64) + 0.1, torch.rand(12, dtype=F64) + 0.1
    leaf = q.clone().requires_grad_()
    loss = coverage_loss(leaf, p, 0.5, None, opacity, alpha, rate=1e-3)
    (gradient,) = torch.autograd.grad(loss, leaf)
    speed = velocity(q, p, 0.5, None, opacity, alpha)
    shares = (opacity / opacity.sum())[:, None]
    torch.testing.assert_close(gradient, -2 * shares * 1e-3 * 0.25 * speed)
    assert float(coverage_loss(p, p, 0.5)) == 0
    padded = torch.cat([p, torch.full((3, 2), 50.0, dtype=F64)]), torch.cat([alpha, torch.zeros(3, dtype=F64)])
    torch.testing.assert_close(
        coverage_loss(q, padded[0], 0.5, target_weights=padded[1]), coverage_loss(q, p, 0.5, target_weights=alpha)
    )


def test_gradient_descent_on_the_loss_covers_the_target():
    """A disc of points grows over a square it was not paired with."""
    g = torch.Generator().manual_seed(0)
    target = torch.rand(400, 2, generator=g) - 0.5
    points = (0.05 * torch.randn(100, 2, generator=g)).requires_grad_()
    adam = torch.optim.Adam([points], lr=0.02)
    for k in range(150):
        adam.zero_grad()
        loss = coverage_loss(points, target, annealed(0.25, 0.05, k / 120))
        points.grad = torch.autograd.grad(loss, points)[0]
        adam.step()
    nearest = torch.cdist(target, points.detach()).min(1).values
    fair = torch.cdist(target, torch.rand(100, 2, generator=g) - 0.5).min(1).values
    assert nearest.mean() < 1.05 * fair.mean()


def test_a_step_is_never_longer_than_the_bandwidth():
    q, p = two_sets()
    moved = drift(q, p + 40.0, 0.5, DriftConfig(kernel=Kernel.GAUSSIAN), rate=1.9)
    assert (moved - q).norm(dim=-1).max() <= 0.5 * (1 + 1e-9)
    assert moved.isfinite().all()


def test_far_sets_have_finite_velocities():
    q, p = torch.zeros(3, 2), torch.full((4, 2), 1e4)
    for config in CONFIGS:
        assert velocity(q, p, 0.1, config).isfinite().all()


def test_wrong_values():
    q, p = two_sets()
    with pytest.raises(ValueError, match="bandwidth must be positive"):
        velocity(q, p, 0.0)
    with pytest.raises(ValueError, match="need a divergence"):
        DriftConfig({})
    with pytest.raises(ValueError, match="need a divergence"):
        DriftConfig({Divergence.MMD: -1.0})
    with pytest.raises(ValueError, match="have 1 between"):
        DriftConfig(clip=(2.0, 3.0))
    with pytest.raises(ValueError, match="positive"):
        annealed(0.1, 0.0, 0.5)
    assert annealed(0.4, 0.1, 2.0) == pytest.approx(0.1)
