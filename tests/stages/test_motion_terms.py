"""The flow fields of a dynamic stage."""

import torch

from kg4d.data.batches.dynamic import DynamicDataConfig, DynamicDataset
from kg4d.stages.dynamic import FlowFields
from tests import make
from tests.make import FRAMES


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
