"""Canonical Gaussians and a deformation, seen as one thing."""

import copy

import pytest
import torch

from kg4d.deform.settings import DeformationConfig, DeformationKind, HexPlaneConfig
from kg4d.gaussians.model import GaussianModel
from kg4d.keypoints.motion import KeypointMotion
from kg4d.representation.base import Representation
from kg4d.representation.build import build_representation
from kg4d.representation.settings import RepresentationConfig, RepresentationKind
from tests import make

TIMES = torch.tensor([0.0, 0.5, 1.0])
REST = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.5, 0.5, 0.0]])
KINDS = list(DeformationKind)


def build(kind: DeformationKind = DeformationKind.HSE) -> Representation:
    planes = HexPlaneConfig(resolution=6, time_resolution=4, channels=3)
    config = DeformationConfig(kind, width=8, depth=2, hexplane=planes)
    config.control_points.count = 6
    model = GaussianModel.from_state(make.random_gaussians(12, frames=None))
    return build_representation(RepresentationConfig(), config, model, 0.1, torch.Generator().manual_seed(0))


def started(kind: DeformationKind) -> Representation:
    representation = build(kind)
    known = torch.ones(3, dtype=torch.bool)
    representation.start(KeypointMotion(TIMES, REST, REST.expand(3, 3, 3), torch.tensor([-1, 0, 1]), known))
    return representation


def test_every_kind_of_representation_is_built() -> None:
    assert list(RepresentationKind) == [RepresentationKind.CANONICAL, RepresentationKind.SPACETIME]
    assert isinstance(build(), Representation)


@pytest.mark.parametrize("kind", KINDS)
def test_before_training_all_times_are_rest(kind: DeformationKind) -> None:
    representation = started(kind)
    rest, moving = representation.rest(), representation.states(TIMES)
    torch.testing.assert_close(moving.means, rest.means.expand(3, -1, -1))
    torch.testing.assert_close(moving.at(2).colors, rest.colors)


@pytest.mark.parametrize("kind", KINDS)
def test_motion_groups_hold_what_moves_and_nothing_of_the_static_stage(kind: DeformationKind) -> None:
    representation = started(kind)
    names = {id(parameter): name for name, parameter in representation.named_parameters()}
    moving = {names[id(p)] for group in representation.motion_groups() for p in group.parameters}
    own = {name for name in names.values() if name.startswith("gaussians.")}
    expected = set(names.values()) - (own - {"gaussians.skinning_logits"})
    if kind is not DeformationKind.SKINNED:
        expected -= {"gaussians.skinning_logits"}
    assert moving == expected


def test_keypoints_are_those_of_the_motion_or_barycentres() -> None:
    own = started(DeformationKind.SKINNED)
    assert torch.equal(own.keypoints(TIMES), REST.expand(3, 3, 3))
    plain = started(DeformationKind.HSE)
    state = plain.rest()
    expected = (state.keypoint_logits / 0.1).softmax(0).T @ state.means
    torch.testing.assert_close(plain.keypoints(TIMES), expected.expand(3, -1, -1))
    torch.testing.assert_close(plain.keypoints(TIMES, plain.states(TIMES)), plain.keypoints(TIMES))


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_keypoints_are_barycentres_whatever_the_motion_says_of_its_own(kind: DeformationKind) -> None:
    representation = started(kind)
    representation.correct_keypoints(lambda positions: positions + 1.0)
    state = representation.rest()
    expected = (state.keypoint_logits / 0.1).softmax(0).T @ state.means
    torch.testing.assert_close(representation.drawn_keypoints(TIMES), expected.expand(3, -1, -1))


def test_a_copy_learns_alone() -> None:
    one = started(DeformationKind.SKINNED)
    other = copy.deepcopy(one)
    with torch.no_grad():
        for group in other.motion_groups():
            for parameter in group.parameters:
                parameter.add_(1.0)
    torch.testing.assert_close(one.states(TIMES).means, one.rest().means.expand(3, -1, -1))
    assert not torch.allclose(other.states(TIMES).means[1], one.rest().means, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_gives_the_same_weights_and_a_state_dict_is_read_back(kind: DeformationKind) -> None:
    one, other = started(kind), build(kind)
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.add_(torch.rand(parameter.shape, generator=torch.Generator().manual_seed(1)))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.states(TIMES).means, other.states(TIMES).means)
