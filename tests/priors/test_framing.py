from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kg4d.data.records import Flow
from kg4d.errors import InputError
from kg4d.priors.framing import Crop, crop_of
from kg4d.priors.preview import preview
from kg4d.priors.settings import FramingConfig
from tests import make


def clip(height: int, width: int, *boxes: tuple[int, int, int, int]) -> torch.Tensor:
    images = torch.zeros(len(boxes), height, width, 4)
    for image, (left, top, right, bottom) in zip(images, boxes):
        image[top:bottom, left:right] = 1
    return images


@given(left=st.integers(0, 60), top=st.integers(0, 40), width=st.integers(8, 60), height=st.integers(8, 60))
def test_the_object_is_centred_at_its_share(left: int, top: int, width: int, height: int) -> None:
    images = clip(100, 120, (left, top, left + width, top + height))
    frame = crop_of(images[..., 3:], FramingConfig(64, 0.8))
    framed = frame.images(images)
    assert framed.shape == (1, 64, 64, 4)
    rows, columns = (framed[0, ..., 3] > 0.5).nonzero().unbind(-1)
    spans = [(int(axis.min()), int(axis.max()) + 1) for axis in (rows, columns)]
    assert abs(max(end - start for start, end in spans) - 0.8 * 64) <= 4
    for start, end in spans:
        assert abs((start + end) / 2 - 32) <= 4


def test_one_frame_holds_the_whole_clip() -> None:
    images = clip(64, 64, (0, 10, 10, 20), (50, 10, 64, 20))
    framed = crop_of(images[..., 3:], FramingConfig(80, 0.8)).images(images)
    assert framed[0, ..., 3].sum() > 0
    assert framed[1, ..., 3].sum() > framed[0, ..., 3].sum()
    union = (framed[..., 3] > 0.5).any(0).any(0).nonzero()
    assert int(union.max()) - int(union.min()) + 1 == 64


def test_points_and_flow_go_with_the_pixels() -> None:
    images = clip(60, 90, (40, 20, 60, 30))
    frame = crop_of(images[..., 3:], FramingConfig(100, 0.5))
    corners = torch.tensor([[40.0, 20.0], [60.0, 30.0]])
    assert torch.allclose(frame.points(corners), torch.tensor([[25.0, 37.5], [75.0, 62.5]]))
    flow = Flow(torch.full((1, 60, 90, 2), 3.0), images[..., 3])
    framed = frame.flow(flow)
    assert framed.flow.shape == (1, 100, 100, 2)
    seen = framed.weights > 0.5
    assert torch.allclose(framed.flow[seen], torch.tensor(3.0 * frame.scale))
    assert torch.equal(seen, frame.images(images)[..., 3] > 0.5)


def test_the_own_frame_can_be_kept() -> None:
    images = clip(32, 32, (0, 0, 8, 8))
    frame = crop_of(images[..., 3:], FramingConfig(32, None))
    assert frame == Crop(0, 0, 32, 32)
    assert torch.equal(frame.images(images), images)
    with pytest.raises(InputError, match=r"framing.share.*32 x 20"):
        crop_of(images[:, :20, :, 3:], FramingConfig(32, None))


def test_an_empty_matte_has_no_frame() -> None:
    with pytest.raises(InputError, match="nothing is opaque"):
        crop_of(torch.zeros(1, 8, 8, 1), FramingConfig())


@pytest.mark.parametrize("values", [{"size": 8}, {"share": 0.0}, {"share": 1.2}])
def test_framing_out_of_range_is_refused(values: dict) -> None:
    with pytest.raises(ValueError, match="framing"):
        FramingConfig(**values)


def test_the_preview_shows_what_there_is() -> None:
    scene = make.tiny_scene()
    full = preview(scene)
    bare = preview(replace(scene, ring=None, flow=None, keypoints=None))
    size = scene.reference.cameras.height
    assert bare.shape[0] == 2 * size
    assert full.shape[0] >= 4 * size
    assert ((full >= 0) & (full <= 1)).all()
    assert not torch.equal(full[:size, : bare.shape[1]], bare[:size])  # the keypoints are drawn
