"""Natural gradient steps against closed forms and dense solves, and how they are stored."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from kg4d.errors import InputError
from kg4d.flows.settings import Solver
from kg4d.optim.build import ParameterGroup, build_optimizer
from kg4d.optim.natural_gradient import Motion, NaturalGradient
from kg4d.optim.schedules import set_learning_rates
from kg4d.optim.settings import OptimizerConfig, OptimizerKind, RpwgfConfig

F64 = torch.float64
FREE = 1e9  # a reach that holds nothing back


def features(rank: int = 6) -> Tensor:
    """(B, 2, p): two coordinates of 40 points, linear in six parameters."""
    g = torch.Generator().manual_seed(0)
    full = torch.randn(40, 2, 6, generator=g, dtype=F64)
    full[..., rank:] = 0  # moves nothing
    return full


def linear(phi: Tensor, theta: nn.Parameter) -> Motion:
    return Motion([theta], lambda _: lambda values: phi @ values)


def optimizer(motion: Motion, config: RpwgfConfig, *more: ParameterGroup) -> NaturalGradient:
    groups = [*more, ParameterGroup("network", list(motion.parameters), 1e-3)]
    made = build_optimizer(OptimizerConfig(OptimizerKind.RPWGF, rpwgf=config), groups, motion)
    assert isinstance(made, NaturalGradient)
    return made


@pytest.mark.parametrize("solver", [Solver.CG, Solver.MINRES])
@pytest.mark.parametrize("iterations", [6, 50])
def test_one_step_solves_linear_least_squares(solver: Solver, iterations: int) -> None:
    """T = Phi theta, half the mean squared distance, h = 1, no damping; also with more products than parameters."""
    phi, theta = features(), nn.Parameter(torch.zeros(6, dtype=F64))
    wanted = torch.randn(40, 2, generator=torch.Generator().manual_seed(1), dtype=F64)
    steps = optimizer(linear(phi, theta), RpwgfConfig(1.0, FREE, 0.0, solver, iterations))
    loss = (phi @ theta - wanted).square().sum(-1).mean() / 2
    loss.backward()
    steps.step()
    best = torch.linalg.lstsq(phi.flatten(0, 1), wanted.flatten()[:, None]).solution[:, 0]
    torch.testing.assert_close(theta.detach(), best, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("solver", list(Solver))
def test_a_step_is_that_of_a_dense_solve(solver: Solver) -> None:
    phi, theta = features(rank=4), nn.Parameter(torch.randn(6, dtype=F64, generator=torch.Generator().manual_seed(2)))
    before, theta.grad = theta.detach().clone(), torch.linspace(-1, 1, 6, dtype=F64)
    rows = phi.flatten(0, 1)
    dense = torch.linalg.solve(rows.mT @ rows / 40 + 0.1 * torch.eye(6, dtype=F64), theta.grad)
    optimizer(linear(phi, theta), RpwgfConfig(0.3, FREE, 0.1, solver, 20)).step()
    torch.testing.assert_close(theta.detach(), before - 0.3 * dense, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("solver", [Solver.CG, Solver.DUAL])
@pytest.mark.parametrize("damping", [1e-9, 0.5])
def test_no_step_is_longer_than_the_reach(solver: Solver, damping: float) -> None:
    phi, theta = features(), nn.Parameter(torch.zeros(6, dtype=F64))
    steps = optimizer(linear(phi, theta), RpwgfConfig(1.0, 0.02, damping, solver, 3))
    for factor in (1.0, 0.25):  # schedules scale it
        before = theta.detach().clone()
        theta.grad = torch.full((6,), 1e3, dtype=F64)
        set_learning_rates(steps, factor)
        steps.step()
        change = theta.detach() - before
        moved = (phi @ change).square().sum(-1).mean()
        length = (moved + damping * change.square().sum()).sqrt()
        assert float(length) == pytest.approx(factor * 0.02, rel=1e-6)


@pytest.mark.parametrize("solver", [Solver.CG, Solver.DUAL])
def test_the_parametrisation_does_not_matter(solver: Solver) -> None:
    """The same map in other parameters moves its points the same: what plain gradients cannot do."""
    g = torch.Generator().manual_seed(3)
    phi, change = features(), torch.randn(6, 6, generator=g, dtype=F64)
    wanted = torch.randn(40, 2, generator=g, dtype=F64)
    ends = []
    for basis in (phi, phi @ change):
        theta = nn.Parameter(torch.zeros(6, dtype=F64))
        (basis @ theta - wanted).square().sum(-1).mean().backward()
        optimizer(linear(basis, theta), RpwgfConfig(0.3, FREE, 1e-9, solver, 60)).step()
        ends.append((basis @ theta).detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-4, atol=1e-4)


def test_the_rest_goes_on_with_adam_bit_by_bit() -> None:
    def run(kind: OptimizerKind) -> Tensor:
        other, theta = nn.Parameter(torch.ones(5)), nn.Parameter(torch.zeros(6))
        groups = [ParameterGroup("colours", [other], 0.1), ParameterGroup("network", [theta], 0.1)]
        steps = build_optimizer(OptimizerConfig(kind), groups, linear(features().float(), theta))
        for k in range(5):
            other.grad, theta.grad = torch.arange(5.0) - k, torch.ones(6)
            steps.step()
            steps.zero_grad()
        return other.detach()

    assert torch.equal(run(OptimizerKind.RPWGF), run(OptimizerKind.ADAM))


@pytest.mark.parametrize("motion", [None, Motion([], lambda _: lambda theta: theta)])
def test_where_nothing_moves_it_is_adam(motion: Motion | None) -> None:
    ends = []
    for kind in OptimizerKind:
        theta = nn.Parameter(torch.zeros(3))
        steps = build_optimizer(OptimizerConfig(kind), [ParameterGroup("colours", [theta], 0.1)], motion)
        assert type(steps) is torch.optim.Adam
        for k in range(3):
            theta.grad = torch.arange(3.0) - k
            steps.step()
        ends.append(theta.detach())
    assert torch.equal(*ends)


def wavy(theta: nn.Parameter) -> Callable[[int], Callable[[Tensor], Tensor]]:
    """A map that is not linear, seen at other points in each step."""

    def at(step: int) -> Callable[[Tensor], Tensor]:
        x = torch.randn(7, len(theta), generator=torch.Generator().manual_seed(step))
        return lambda values: torch.tanh(x * values)

    return at


def test_a_restored_optimiser_goes_on_with_the_same_bits() -> None:
    theta, other = nn.Parameter(torch.full((4,), 0.1)), nn.Parameter(torch.ones(2))

    def made(theta: nn.Parameter, other: nn.Parameter) -> NaturalGradient:
        return optimizer(Motion([theta], wavy(theta)), RpwgfConfig(), ParameterGroup("colours", [other], 0.1))

    def go_on(steps: NaturalGradient, theta: nn.Parameter, other: nn.Parameter) -> None:
        for _ in range(3):
            (theta.sin().sum() + other.square().sum()).backward()
            steps.step()
            steps.zero_grad()

    steps = made(theta, other)
    go_on(steps, theta, other)
    stored = copy.deepcopy(steps.state_dict())
    theta2, other2 = nn.Parameter(theta.detach().clone()), nn.Parameter(other.detach().clone())
    restored = made(theta2, other2)
    restored.load_state_dict(stored)
    go_on(steps, theta, other)
    go_on(restored, theta2, other2)
    assert torch.equal(theta, theta2)
    assert torch.equal(other, other2)
    assert restored.param_groups[-1]["taken"] == 6


def test_without_a_gradient_nothing_moves_and_a_closure_is_called() -> None:
    theta = nn.Parameter(torch.zeros(6, dtype=F64))
    steps = optimizer(linear(features(), theta), RpwgfConfig())
    assert steps.step(lambda: 3.0) == 3.0
    theta.grad = torch.zeros(6, dtype=F64)
    steps.step()
    assert torch.equal(theta.detach(), torch.zeros(6, dtype=F64))


@pytest.mark.parametrize(("solver", "damping"), [(Solver.CG, 0.0), (Solver.DUAL, 1e-300)])
def test_a_singular_metric_without_damping_is_refused(solver: Solver, damping: float) -> None:
    phi, theta = features(rank=4), nn.Parameter(torch.zeros(6, dtype=F64))
    theta.grad = torch.ones(6, dtype=F64)  # along the last two nothing moves
    with pytest.raises(InputError, match=f"damping {damping:g}") as raised:
        optimizer(linear(phi, theta), RpwgfConfig(1.0, FREE, damping, solver, 20)).step()
    assert raised.value.where == "optimizer.rpwgf.damping"
    assert torch.equal(theta.detach(), torch.zeros(6, dtype=F64))


def test_a_singular_metric_is_no_harm_where_the_loss_wants_what_the_map_can_do() -> None:
    phi, theta = features(rank=4), nn.Parameter(torch.zeros(6, dtype=F64))
    wanted = torch.randn(40, 2, generator=torch.Generator().manual_seed(1), dtype=F64)
    ((phi @ theta - wanted).square().sum(-1).mean() / 2).backward()
    optimizer(linear(phi, theta), RpwgfConfig(1.0, FREE, 0.0, Solver.MINRES, 20)).step()
    least = torch.linalg.pinv(phi.flatten(0, 1)) @ wanted.flatten()
    torch.testing.assert_close(theta.detach(), least, rtol=1e-6, atol=1e-6)


def test_a_motion_that_has_burst_is_named() -> None:
    theta = nn.Parameter(torch.full((6,), 1e308, dtype=F64))
    theta.grad = torch.ones(6, dtype=F64)
    with pytest.raises(FloatingPointError, match="optimizer.rpwgf.reach"):
        optimizer(linear(1e9 * features(), theta), RpwgfConfig()).step()


@pytest.mark.parametrize(
    ("bad", "key"),
    [
        ({"step": 0.0}, "step"),
        ({"reach": 0.0}, "reach"),
        ({"iterations": 0}, "iterations"),
        ({"points": 0}, "points"),
        ({"damping": -1.0}, "damping"),
        ({"solver": Solver.DUAL, "damping": 0.0}, "damping"),
    ],
)
def test_settings_out_of_range_are_named(bad: dict[str, float], key: str) -> None:
    with pytest.raises(ValueError, match=f"^optimizer.rpwgf.{key}: must"):
        RpwgfConfig(**bad)
