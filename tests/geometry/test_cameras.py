from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kg4d.geometry.cameras import Cameras
from kg4d.geometry.orbits import orbit


def axis_camera() -> Cameras:
    """At the origin, looking along +Z; focal length 10 px, principal point (8, 6)."""
    K = torch.tensor([[10.0, 0.0, 8.0], [0.0, 10.0, 6.0], [0.0, 0.0, 1.0]])
    return Cameras(torch.eye(4)[None], K[None], width=16, height=12)


def test_opencv_axes() -> None:
    points = torch.tensor([[0.0, 0.0, 2.0], [1.0, 0.0, 2.0], [0.0, 1.0, 2.0]])
    pixels, depths = axis_camera().project(points)
    torch.testing.assert_close(pixels[0], torch.tensor([[8.0, 6.0], [13.0, 6.0], [8.0, 11.0]]))
    torch.testing.assert_close(depths, torch.full((1, 3), 2.0))


@pytest.mark.parametrize("depth", [-1.0, 0.0])
def test_points_behind_stay_finite_and_are_told_by_their_depth(depth: float) -> None:
    point = torch.tensor([0.1, 0.2, depth], requires_grad=True)
    pixels, depths = axis_camera().project(point)
    pixels.sum().backward()
    assert depths.item() == depth
    assert pixels.isfinite().all()
    assert point.grad is not None
    assert point.grad.isfinite().all()


def test_centers_project_nowhere_but_are_found() -> None:
    cameras = orbit([10.0, 200.0], [20.0, -30.0], 1.5, 60.0, 32, 32)
    torch.testing.assert_close(cameras.centers.norm(dim=-1), torch.full((2,), 1.5))
    assert cameras.project(cameras.centers[0]).depths[0].abs() < 1e-6


def test_picking_keeps_a_set() -> None:
    cameras = orbit([0.0, 90.0, 180.0], [0.0, 0.0, 0.0], 2.0, 60.0, 32, 32)
    assert len(cameras[1]) == 1
    assert len(cameras[1:]) == 2
    torch.testing.assert_close(cameras[[2, 0]].viewmats, cameras.viewmats[[2, 0]])
    torch.testing.assert_close(cameras[torch.tensor([1])].viewmats, cameras[1].viewmats)


def test_resized_scales_pixels() -> None:
    cameras = orbit([30.0], [10.0], 2.0, 50.0, 64, 32)
    points = torch.tensor([[0.1, 0.2, 0.3], [-0.3, 0.1, 0.0]])
    expected = cameras.project(points).pixels * torch.tensor([0.5, 2.0])
    small = cameras.resized(32, 64)
    assert (small.width, small.height) == (32, 64)
    torch.testing.assert_close(small.project(points).pixels, expected)


def test_projecting_keeps_leading_axes() -> None:
    cameras = orbit([0.0, 90.0], [0.0, 0.0], 2.0, 50.0, 8, 8)
    assert cameras.project(torch.zeros(4, 5, 3)).pixels.shape == (2, 4, 5, 2)
    assert cameras.project(torch.zeros(3)).depths.shape == (2,)


def test_a_pixel_at_a_depth_is_one_point() -> None:
    pixels, depths = torch.tensor([[[8.0, 6.0], [13.0, 16.0]]]), torch.tensor([[3.0, 2.0]])
    expected = torch.tensor([[[0.0, 0.0, 3.0], [1.0, 2.0, 2.0]]])
    torch.testing.assert_close(axis_camera().unproject(pixels, depths), expected)


@given(st.integers(0, 1000), st.sampled_from([(), (1,), (4, 5)]))
def test_unprojecting_undoes_projecting(seed: int, axes: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(seed)
    cameras = orbit([0.0, 70.0, 200.0], [0.0, 20.0, -30.0], 2.0, 50.0, 64, 48)
    skewed = cameras.Ks + torch.tensor([[0.0, 3.0, 5.0], [0.0, 7.0, -4.0], [0.0, 0.0, 0.0]])
    cameras = replace(cameras, Ks=skewed)
    points = torch.rand(*axes, 3, generator=generator) - 0.5
    seen = cameras.unproject(*cameras.project(points))
    torch.testing.assert_close(seen, points.expand(3, *axes, 3), atol=1e-5, rtol=0)
