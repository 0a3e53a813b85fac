"""What a dynamic stage keeps beside its batches: flow fields, and terms about the motion alone."""

from dataclasses import replace

import torch

from kg4d.data.batches.dynamic import DynamicDataset
from kg4d.data.batches.settings import DynamicDataConfig
from kg4d.gaussians.moving import MovingGaussians
from kg4d.losses.settings import RigidityConfig
from kg4d.optim.objective import Objective
from kg4d.stages.dynamic import FlowFields
from kg4d.stages.motion_terms import Rigidity
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


def test_rigidity_starts_from_where_the_gaussians_rest_now() -> None:
    """They may have moved since their neighbours were found; what then rests costs nothing."""
    state = random_gaussians(12, frames=None)
    rigidity = Rigidity(RigidityConfig(weight=1.0, neighbours=4), state, seed=0)
    turned = replace(state, means=state.means * torch.tensor([1.0, 2.0, 1.0]))
    objective = Objective(0.5)
    rigidity.add(objective, MovingGaussians.still(turned, 2), turned, 0)
    assert objective.terms["rigidity"] < 2e-5
