"""Pictures of depth and motion."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kg4d.data.images import linear_rgb
from kg4d.formats.pictures import depth_pictures, motion_pictures

GREY = torch.full((4, 5, 3), 0.5)


def test_the_nearer_the_brighter_and_nothing_is_black() -> None:
    depth = torch.tensor([[[1.0, 2.0, 4.0, 0.0]]])
    picture = depth_pictures(depth)
    one, two, four, nothing = picture[0, 0, :, 0].tolist()
    assert 1 >= one > two > four > nothing == 0
    assert torch.equal(picture[..., 0], picture[..., 2])
    assert float(depth_pictures(torch.zeros(2, 3, 4)).max()) == 0


@given(unit=st.floats(1e-3, 1e3))
def test_the_unit_of_depth_does_not_show(unit: float) -> None:
    depth = 1 + torch.rand(2, 6, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(depth_pictures(unit * depth), depth_pictures(depth), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("direction", "color"),
    [((1, 0), (1, 0, 0)), ((-1, 0), (0, 1, 1)), ((0, 1), (0.5, 1, 0)), ((0, -1), (0.5, 0, 1))],
)
def test_the_hue_is_the_direction(direction: tuple[int, int], color: tuple[float, ...]) -> None:
    flow = 7 * torch.tensor(direction, dtype=torch.float32).expand(2, 4, 5, 2)
    picture = motion_pictures(flow, GREY)
    torch.testing.assert_close(picture, torch.tensor(color, dtype=torch.float32).expand(2, 4, 5, 3), atol=1e-5, rtol=0)


def test_the_strength_is_the_length_and_no_motion_is_grey() -> None:
    flow = torch.zeros(1, 1, 3, 2)
    flow[..., 0] = torch.tensor([0.0, 5.0, 10.0])
    still, half, full = motion_pictures(flow, GREY[:1, :3])[0, 0]
    assert still.tolist() == pytest.approx([0.5] * 3)
    assert full.tolist() == pytest.approx([1, 0, 0], abs=1e-6)
    assert half.tolist() == pytest.approx([0.75, 0.25, 0.25], abs=1e-6)
    tiny = motion_pictures(1e-3 * flow, GREY[:1, :3])
    assert float((tiny - 0.5).abs().max()) < 0.01


def test_light_of_colours_is_that_of_srgb() -> None:
    colors = torch.tensor([[0.0, 0.5, 1.0], [0.04, 0.2, 0.8], [-1.0, 2.0, 0.0]])
    expected = torch.tensor([[0, 0.21404, 1], [0.04 / 12.92, 0.03310, 0.60383], [0, 1, 0]])
    torch.testing.assert_close(linear_rgb(colors), expected, atol=1e-4, rtol=0)
