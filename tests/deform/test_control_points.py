"""Beyond the contract of all deformations: kernels, places, and what a neighbourhood can do."""

import pytest
import torch
from torch import nn

from kg4d.deform.base import RestGaussians
from kg4d.deform.build import build_deformation
from kg4d.deform.control_points import ControlPoints
from kg4d.deform.settings import ControlPointsConfig, DeformationConfig, DeformationKind
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.rotations import quat_multiply, quat_rotate
from kg4d.losses.settings import ArapConfig
from kg4d.optim.objective import Objective
from tests import make

TIMES = torch.tensor([0.0, 0.4, 1.0])


def gaussians(count: int = 40) -> GaussianState:
    return make.random_gaussians(count, spread=0.3)


def build(points: int = 8, neighbours: int = 4) -> ControlPoints:
    config = DeformationConfig(
        DeformationKind.CONTROL_POINTS, width=8, depth=1, control_points=ControlPointsConfig(points, neighbours)
    )
    module = build_deformation(config, RestGaussians(gaussians().means, 0.5), torch.Generator().manual_seed(1))
    assert isinstance(module, ControlPoints)
    return module


def move_alike(module: ControlPoints, shift: torch.Tensor, turn: torch.Tensor) -> None:
    """Let every control point make one rigid motion about the origin, at all times after the first."""
    unit = turn / turn.norm()
    rotated = quat_rotate(unit, module.rest)
    motion = torch.cat(
        [rotated + shift - module.rest, (unit - torch.tensor([1.0, 0, 0, 0])).expand(len(rotated), 4)], -1
    )

    def mlp(space: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return motion * (time[:, 0] > 0).float()[:, None, None]  # the first feature is the time itself

    module.mlp.forward = mlp  # type: ignore[assignment]


def test_control_points_that_make_one_rigid_motion_carry_all_gaussians_along() -> None:
    state, module = gaussians(), build()
    shift, turn = torch.tensor([0.1, -0.2, 0.3]), torch.tensor([0.8, 0.1, -0.4, 0.2])
    move_alike(module, shift, turn)
    moved = module(state, TIMES)
    torch.testing.assert_close(moved.means[2], quat_rotate(turn, state.means) + shift)
    torch.testing.assert_close(moved.quats[2], quat_multiply(turn / turn.norm(), state.quats))
    assert torch.equal(moved.means[0], state.means)  # the first frame is canonical
    torch.testing.assert_close(module.positions(TIMES)[1], quat_rotate(turn, module.rest) + shift)


def test_shares_are_normalised_gaussian_kernels_of_the_nearest() -> None:
    state, module = gaussians(), build(8, 3)
    nn.init.normal_(module.log_radii, -1.0, 0.3)
    squared = torch.cdist(state.means, module.rest).square()
    kernels = (-squared / (2 * module.log_radii.exp().square())).exp()
    nearest = squared.argsort(-1)[:, :3]
    kept = torch.zeros_like(kernels).scatter(1, nearest, kernels.gather(1, nearest))
    ids, shares = module._followed(state.means)
    found = torch.zeros_like(kernels).scatter(1, ids, shares)
    torch.testing.assert_close(found, kept / kept.sum(-1, keepdim=True))


def test_one_search_serves_all_steps_until_the_gaussians_change() -> None:
    state, module = gaussians(), build()
    module(state, TIMES)
    found = module._nearest
    module(state, TIMES[1:])
    assert module._nearest is found
    state.means.neg_()
    module(state, TIMES)
    assert not torch.equal(module._nearest.ids, found.ids)


def test_the_search_gives_moving_gaussians_no_gradient_of_its_own() -> None:
    state, module = gaussians(), build()
    state.means.requires_grad_()
    module(state, TIMES).means.sum().backward()
    assert not module._nearest.squared.requires_grad
    assert state.means.grad is not None


def test_a_gaussian_follows_none_but_its_own_control_points() -> None:
    state, module = gaussians(), build(8, 1)
    nn.init.normal_(module.mlp.rest[-1].weight, std=0.3)
    moved = module(state, TIMES).means
    nearest = torch.cdist(state.means, module.rest).argmin(-1)
    alone = module.positions(TIMES)[:, nearest] - module.rest[nearest]
    at_node = (state.means[:, None] == module.rest).all(-1).any(-1)  # control points are Gaussians' centres
    assert at_node.sum() == 8
    torch.testing.assert_close((moved - state.means)[:, at_node], alone[:, at_node], atol=1e-5, rtol=0)


def test_coincident_control_points_have_finite_kernels() -> None:
    config = DeformationConfig(DeformationKind.CONTROL_POINTS, control_points=ControlPointsConfig(4, 4))
    module = build_deformation(config, RestGaussians(torch.zeros(6, 3), 1.0), torch.Generator())
    state = gaussians(6)
    module(state, TIMES).means.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("wrong", [ControlPointsConfig(41), ControlPointsConfig(1), ControlPointsConfig(8, 0)])
def test_counts_that_cannot_be_are_refused(wrong: ControlPointsConfig) -> None:
    config = DeformationConfig(DeformationKind.CONTROL_POINTS, control_points=wrong)
    with pytest.raises(ValueError, match="at least one neighbour"):
        build_deformation(config, RestGaussians(gaussians().means, 0.5), torch.Generator())


def test_control_points_that_scatter_pay_if_they_are_asked_to_move_rigidly() -> None:
    module = build(6, 3)
    module.arap = ArapConfig(weight=10.0, neighbours=20)  # more than there are
    still, scattered, free = (Objective(progress=0.5) for _ in range(3))
    module.regularisers(still, TIMES)
    assert still.terms["arap"] < 1e-12
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    module.regularisers(scattered, TIMES)
    assert scattered.terms["arap"] > 1e-4
    module.arap = ArapConfig()
    module.regularisers(free, TIMES)
    assert free.terms == {}


def test_edges_are_found_once_and_again_when_other_control_points_are_loaded() -> None:
    module = build(6, 3)
    module.arap = ArapConfig(weight=10.0, neighbours=2)
    module.regularisers(Objective(progress=0.5), TIMES)
    found = module._edges
    module.regularisers(Objective(progress=0.5), TIMES)
    assert module._edges is found
    module.load_state_dict({**module.state_dict(), "rest": module.rest.flip(0) * torch.tensor([1.0, 9.0, 1.0])})
    module.regularisers(Objective(progress=0.5), TIMES)
    assert not torch.equal(module._edges.weights, found.weights)
