"""The map by which a natural gradient measures its steps: what it is made of, and for which motions it works."""

import pytest
import torch
from torch import Tensor

from kg4d.deform.settings import DeformationKind
from kg4d.errors import InputError
from kg4d.flows.settings import Solver
from kg4d.geometry.rotations import quat_to_matrix
from kg4d.optim.build import ParameterGroup, build_optimizer
from kg4d.optim.natural_gradient import NaturalGradient
from kg4d.optim.settings import OptimizerConfig, OptimizerKind, RpwgfConfig
from kg4d.representation.base import Representation
from kg4d.stages.motion_map import MovedGaussians, motion_of
from tests.representation.test_canonical import TIMES, started

MOVING = [kind for kind in DeformationKind if kind not in (DeformationKind.NONE, DeformationKind.FLAG4D)]
NO_FORWARD_DERIVATIVE = (DeformationKind.HEXPLANE, DeformationKind.CONTROL_POINTS)


def flat(representation: Representation, step: int, points: int = 40) -> Tensor:
    motion = motion_of(representation, points, seed=0)
    theta = torch.cat([parameter.detach().flatten() for parameter in motion.parameters])
    return motion.points(step)(theta)


@pytest.mark.parametrize("kind", [*MOVING, DeformationKind.NONE])
def test_it_is_the_drawn_motion_of_some_gaussians(kind: DeformationKind) -> None:
    representation, only = started(kind), torch.tensor([3, 0, 7])
    moving = representation.states(TIMES)
    found = MovedGaussians(representation)(only, TIMES).reshape(3, 3, 12)
    torch.testing.assert_close(found[..., :3], moving.means[:, only])
    axes = found[..., 3:].reshape(3, 3, 3, 3)
    unit = moving.quats / moving.quats.norm(dim=-1, keepdim=True)
    factor = quat_to_matrix(unit) * moving.scales[..., None, :]
    torch.testing.assert_close(axes @ axes.mT, (factor @ factor.mT)[:, only])


@pytest.mark.parametrize("kind", MOVING)
def test_points_are_a_pure_function_of_the_step(kind: DeformationKind) -> None:
    representation = started(kind)
    assert flat(representation, 3).shape == (40, 12)
    assert torch.equal(flat(representation, 3), flat(representation, 3))
    assert not torch.equal(flat(representation, 3), flat(representation, 4))


def test_what_moves_nothing_and_what_belongs_to_one_gaussian_is_left_to_adam() -> None:
    representation = started(DeformationKind.SKINNED)
    names = {id(parameter): name for name, parameter in representation.named_parameters()}
    moved = {names[id(parameter)] for parameter in motion_of(representation, 16, 0).parameters}
    assert moved == {"deformation.translations", "deformation.quats"}
    assert "gaussians.skinning_logits" in names.values()
    assert motion_of(started(DeformationKind.NONE), 16, 0).parameters == []


def test_motions_that_need_all_gaussians_are_refused() -> None:
    with pytest.raises(InputError, match="set it to adam"):
        motion_of(started(DeformationKind.FLAG4D), 16, 0)


def optimizer(representation: Representation, config: RpwgfConfig) -> NaturalGradient:
    groups: list[ParameterGroup] = representation.motion_groups()
    motion = motion_of(representation, config.points, 0)
    made = build_optimizer(OptimizerConfig(OptimizerKind.RPWGF, rpwgf=config), groups, motion)
    assert isinstance(made, NaturalGradient)
    return made


@pytest.mark.parametrize(("solver", "points"), [(Solver.CG, 160), (Solver.DUAL, 32)])
@pytest.mark.parametrize("kind", MOVING)
def test_every_motion_learns_or_says_what_it_needs(kind: DeformationKind, solver: Solver, points: int) -> None:
    """Ten steps towards a shift that grows with time."""
    representation = started(kind)
    config = RpwgfConfig(step=1.0, reach=0.1, damping=0.01, solver=solver, points=points)
    steps = optimizer(representation, config)
    rest, errors = representation.rest().detach().means, []

    def step() -> None:
        offset = representation.states(TIMES).means - rest - 0.3 * TIMES[:, None, None]
        loss = offset.square().sum(-1).mean() / 2
        errors.append(float(loss.detach()))
        loss.backward()
        steps.step()
        steps.zero_grad()

    if solver is not Solver.DUAL and kind in NO_FORWARD_DERIVATIVE:
        with pytest.raises(InputError, match="set it to dual"):
            step()
        return
    for _ in range(10):
        step()
    assert errors[-1] < 0.7 * errors[0]
