"""What a dynamic stage keeps beside its batches: flow fields, and terms about the motion alone."""

from dataclasses import replace

import pytest
import torch

from kg4d.data.batches.dynamic import DynamicDataConfig, DynamicDataset
from kg4d.deform.identity import Identity
from kg4d.gaussians.model import GaussianModel
from kg4d.gaussians.moving import MovingGaussians
from kg4d.gaussians.state import GaussianState
from kg4d.losses.motion_priors import RigidityConfig, SteadinessConfig
from kg4d.optim.objective import Objective
from kg4d.representation.canonical import CanonicalGaussians
from kg4d.stages.dynamic import FlowFields
from kg4d.stages.motion_terms import Rigidity, Steadiness
from tests import make
from tests.make import FRAMES, random_gaussians


def test_a_field_is_formed_once_for_each_frame_and_stride() -> None:
    batch = DynamicDataset(make.tiny_scene(), DynamicDataConfig(FRAMES, [1, 2]), torch.ones(3), 0).batch(0)
    fields = FlowFields()
    first = fields.of(batch)
    assert len(first) == 5
    assert all(a is b for a, b in zip(first, fields.of(batch), strict=True))
    assert len({id(field) for field in first}) == 5  # the first frame with stride 1 and with stride 2 are two
    for field, flow in zip(first, batch.flow, strict=True):
        assert field is not None
        assert torch.equal(field.values[..., :2], flow)


def test_without_a_flow_there_is_no_field() -> None:
    scene = make.tiny_scene()
    scene = type(scene)(**{**vars(scene), "flow": None})
    batch = DynamicDataset(scene, DynamicDataConfig(2), torch.ones(3), 0).batch(0)
    assert FlowFields().of(batch) is None


class _Thrown(Identity):
    """Everything falls: x = t²."""

    def forward(self, canonical: GaussianState, times: torch.Tensor) -> MovingGaussians:
        moving = MovingGaussians.still(canonical, len(times))
        return replace(moving, means=moving.means + times[:, None, None] ** 2)


@pytest.mark.parametrize("pointwise", [True, False])
def test_steadiness_looks_at_ways_about_a_moment(pointwise: bool) -> None:
    falling = _Thrown()
    falling.pointwise = pointwise
    representation = CanonicalGaussians(GaussianModel.from_state(make.blobs()), falling, 0.1)
    objective = Objective(0.5)
    Steadiness(SteadinessConfig(weight=2.0, samples=5), 1 / 15, seed=0).add(objective, representation, 3)
    expected = torch.tensor(2 * 3**0.5 / 15**2)  # the second derivative of t² in each axis
    torch.testing.assert_close(objective.terms["steadiness"], expected, atol=1e-5, rtol=1e-2)


@pytest.mark.parametrize(("weight", "distance"), [(0.0, 0.1), (1.0, 0.0), (1.0, 1.0)])
def test_no_steadiness_without_weight_or_with_two_frames(weight: float, distance: float) -> None:
    representation = CanonicalGaussians(GaussianModel.from_state(make.blobs()), Identity(), 0.1)
    objective = Objective(0.5)
    Steadiness(SteadinessConfig(weight=weight), distance, seed=0).add(objective, representation, 0)
    assert not objective.terms


def test_rigidity_starts_from_where_the_gaussians_rest_now() -> None:
    """They may have moved since their neighbours were found; what then rests costs nothing."""
    state = random_gaussians(12, frames=None)
    rigidity = Rigidity(RigidityConfig(weight=1.0, neighbours=4), state, seed=0)
    turned = replace(state, means=state.means * torch.tensor([1.0, 2.0, 1.0]))
    objective = Objective(0.5)
    rigidity.add(objective, MovingGaussians.still(turned, 2), turned, 0)
    assert objective.terms["rigidity"] < 2e-5
