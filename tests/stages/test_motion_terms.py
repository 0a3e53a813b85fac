"""What the dynamic stage leaves to small modules: flow fields, and priors of motions that go by frames."""

import torch
from torch import nn

from kg4d.data.batches.dynamic import DynamicDataConfig, DynamicDataset
from kg4d.deform.build import DeformationConfig, DeformationKind, build_deformation
from kg4d.deform.control_points import ControlPointsConfig
from kg4d.deform.identity import StaticDeformation
from kg4d.losses.motion_priors import ArapConfig, HandlesConfig
from kg4d.stages.dynamic import FlowFields
from kg4d.stages.motion_terms import add_arap, add_handles
from kg4d.stages.objective import Objective
from tests.data.tiny import FRAMES, make_tiny_scene

TIMES = torch.tensor([0.0, 0.5])


def test_a_field_is_formed_once_for_each_frame_and_stride() -> None:
    batch = DynamicDataset(make_tiny_scene(), DynamicDataConfig(FRAMES, [1, 2]), torch.ones(3), 0).batch(0)
    fields = FlowFields()
    first = fields.of(batch)
    assert len(first) == 5
    assert all(a is b for a, b in zip(first, fields.of(batch), strict=True))
    assert len({id(field) for field in first}) == 5  # the first frame with stride 1 and with stride 2 are two
    for field, flow in zip(first, batch.flow, strict=True):
        assert field is not None
        assert torch.equal(field.values[..., :2], flow)


def test_without_a_flow_there_is_no_field() -> None:
    scene = make_tiny_scene()
    scene = type(scene)(**{**vars(scene), "flow": None})
    batch = DynamicDataset(scene, DynamicDataConfig(2), torch.ones(3), 0).batch(0)
    assert FlowFields().of(batch) is None


def test_control_points_that_scatter_pay_and_others_have_none() -> None:
    means = torch.rand(30, 3, generator=torch.Generator().manual_seed(0))
    config = DeformationConfig(
        DeformationKind.CONTROL_POINTS, width=8, depth=1, control_points=ControlPointsConfig(6, 3)
    )
    deformation = build_deformation(config, 1.0, torch.Generator().manual_seed(0), means=means)
    objective = Objective(progress=0.5)
    add_arap(objective, deformation, TIMES, ArapConfig(weight=10.0, neighbours=20))  # more than there are
    assert objective.terms["arap"] < 1e-12
    for parameter in deformation.parameters():
        nn.init.normal_(parameter, std=0.5)
    add_arap(objective, deformation, TIMES, ArapConfig(weight=10.0))
    assert objective.terms["arap"] > 1e-4
    for config, module in ((ArapConfig(), deformation), (ArapConfig(weight=1.0), StaticDeformation())):
        empty = Objective(progress=0.5)
        add_arap(empty, module, TIMES, config)
        add_handles(empty, module, torch.tensor([-1]), HandlesConfig())
        assert empty.terms == {}
