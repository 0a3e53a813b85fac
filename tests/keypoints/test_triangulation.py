import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kg4d.geometry.cameras import Cameras
from kg4d.geometry.orbits import orbit
from kg4d.keypoints.triangulation import agreement, triangulate
from tests import make


def ring(count: int = 6) -> Cameras:
    return make.cameras([i * 360 / count for i in range(count)], [10.0] * count, size=256)


def points(seed: int = 0, count: int = 5) -> torch.Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) - 0.5


@given(st.integers(0, 2**31))
def test_exact_pixels_give_the_points_back_from_any_two_views(seed: int) -> None:
    cameras, truth = ring(7), points(seed)
    uv = cameras.project(truth).pixels
    weights = torch.zeros(7, 5)
    for j in range(5):
        views = torch.randperm(7, generator=torch.Generator().manual_seed(seed + j))[:2]  # 7: no two are opposite
        weights[views, j] = torch.tensor([0.3, 1.0])
    found = triangulate(uv, weights, cameras)
    assert found.valid.all()
    torch.testing.assert_close(found.points, truth, atol=2e-5, rtol=0)
    assert (found.reprojection_px < 1e-3).all()


def test_unused_entries_may_be_nan_and_do_not_count() -> None:
    cameras, truth = ring(), points()
    uv = cameras.project(truth).pixels
    weights = torch.ones(6, 5)
    weights[2] = 0.0
    uv[2] = torch.nan
    found = triangulate(uv, weights, cameras)
    assert found.valid.all()
    torch.testing.assert_close(found.points, truth, atol=2e-5, rtol=0)


def test_one_view_or_parallel_rays_are_not_valid() -> None:
    truth = points(count=3)
    uv = ring().project(truth).pixels
    weights = torch.zeros(6, 3)
    weights[0, 0] = 1.0  # one view; the second keypoint has none, the third has two
    weights[:2, 2] = 1.0
    found = triangulate(uv, weights, ring())
    assert found.valid.tolist() == [False, False, True]
    assert found.points[:2].isnan().all()
    assert found.reprojection_px[:2].isnan().all()

    twins = make.cameras([0.0, 0.4], size=256)
    apart = make.cameras([0.0, 4.0], size=256)
    assert not triangulate(twins.project(truth).pixels, torch.ones(2, 3), twins).valid.any()
    assert triangulate(apart.project(truth).pixels, torch.ones(2, 3), apart).valid.all()


def test_a_point_behind_a_camera_is_not_valid() -> None:
    """The pixels of a point that is mirrored through the first camera's centre fit only behind that camera."""
    cameras = make.cameras([0.0, 90.0], size=256)
    behind = torch.tensor([[0.1, 0.2, 3.0]])
    homogeneous = (behind @ cameras.viewmats[:, :3, :3].mT + cameras.viewmats[:, None, :3, 3]) @ cameras.Ks.mT
    uv = homogeneous[..., :2] / homogeneous[..., 2:]
    assert not triangulate(uv, torch.ones(2, 1), cameras).valid.any()


def test_noise_averages_out_and_weights_choose_whom_to_believe() -> None:
    cameras, truth = ring(24), points(count=60)
    exact = cameras.project(truth).pixels
    noise = 2.0 * torch.randn(exact.shape, generator=torch.Generator().manual_seed(1))
    few, many = (
        (triangulate((exact + noise)[:n], torch.ones(n, 60), cameras[:n]).points - truth).norm(dim=-1).mean()
        for n in (6, 24)
    )
    assert many < 0.6 * few
    lie = exact.clone()
    lie[0] += 30.0
    trusting, doubting = torch.ones(24, 60), torch.ones(24, 60)
    doubting[0] = 1e-3
    wrong = (triangulate(lie, trusting, cameras).points - truth).norm(dim=-1).mean()
    right = (triangulate(lie, doubting, cameras).points - truth).norm(dim=-1).mean()
    assert right < 0.01 * wrong


def test_weight_2_is_the_same_view_twice() -> None:
    cameras, truth = ring(3), points()
    uv = cameras.project(truth).pixels
    uv = uv + 5 * torch.randn(uv.shape, generator=torch.Generator().manual_seed(2))
    weighted = triangulate(uv, torch.tensor([1.0, 2.0, 1.0])[:, None].expand(3, 5), cameras)
    repeated = triangulate(uv[[0, 1, 1, 2]], torch.ones(4, 5), cameras[[0, 1, 1, 2]])
    torch.testing.assert_close(weighted, repeated)


def test_reprojection_error_is_the_weighted_root_mean_square() -> None:
    """Two views see the point exactly, of three; the third is 1 px off with next to no weight, so it alone errs."""
    cameras, truth = ring(3), torch.zeros(1, 3)
    uv = cameras.project(truth).pixels
    uv[2, 0, 0] += 1.0
    weights = torch.tensor([[1.0], [1.0], [1e-6]])
    found = triangulate(uv, weights, cameras)
    assert found.reprojection_px.item() == pytest.approx(math.sqrt(1e-6 / 2), rel=1e-2)


@given(st.integers(0, 2**31))
def test_views_that_contradict_the_others_are_told_apart(seed: int) -> None:
    cameras, truth = ring(9), points(seed)
    generator = torch.Generator().manual_seed(seed)
    uv = cameras.project(truth).pixels + 0.3 * torch.randn(9, 5, 2, generator=generator)
    wrong = torch.zeros(9, 5, dtype=torch.bool)
    wrong[torch.randperm(9, generator=generator)[:2]] = True
    angle = 2 * math.pi * torch.rand(9, 5, generator=generator)
    uv = torch.where(wrong[..., None], uv + 40 * torch.stack([angle.cos(), angle.sin()], dim=-1), uv)
    trust = agreement(uv, torch.ones(9, 5), cameras, tolerance_px=5.0)
    assert trust[~wrong].min() > 0.8
    assert (triangulate(uv, trust, cameras).points - truth).norm(dim=-1).max() < 0.03


def test_agreement_of_exact_views_is_whole_and_unused_entries_do_not_count() -> None:
    cameras, truth = ring(), points()
    uv, weights = cameras.project(truth).pixels, torch.ones(6, 5)
    assert agreement(uv, weights, cameras, tolerance_px=5.0).min() > 1 - 1e-6
    weights[2], uv[2] = 0.0, torch.nan
    assert agreement(uv, weights, cameras, tolerance_px=5.0).min() > 1 - 1e-6


def test_agreement_without_two_directions_changes_nothing() -> None:
    twins = make.cameras([0.0, 0.4], size=256)
    uv = twins.project(points()).pixels + torch.tensor([[[0.0, 0.0]], [[0.0, 9.0]]])
    assert torch.equal(agreement(uv, torch.ones(2, 5), twins, tolerance_px=5.0), torch.ones(2, 5))
    assert torch.equal(agreement(uv[:1], torch.ones(1, 5), twins[0], tolerance_px=5.0), torch.ones(1, 5))


@pytest.mark.realdata
def test_real_ring_keypoints(data_root: Path) -> None:
    folder = data_root / "gltf4d" / "fox"
    layout = json.loads((folder / "transforms_ring.json").read_text())
    azimuths = [frame["azimuth"] for frame in layout["frames"]]
    cameras = orbit(
        azimuths, [0.0] * len(azimuths), 2.0, math.degrees(layout["camera_angle_x"]), layout["w"], layout["h"]
    )
    keypoints = np.load(folder / "keypoints.npz")
    weights = torch.from_numpy(keypoints["ring_visible"]).float()
    found = triangulate(torch.from_numpy(keypoints["ring_uv"]), weights, cameras)
    assert found.valid.all()
    torch.testing.assert_close(found.points, torch.from_numpy(keypoints["xyz"][0]), atol=1e-4, rtol=0)


def test_errors() -> None:
    cameras = ring(2)
    uv, weights = cameras.project(points()).pixels, torch.ones(2, 5)
    with pytest.raises(ValueError, match="weights"):
        triangulate(uv, -weights, cameras)
    with pytest.raises(ValueError, match="weights"):
        triangulate(uv, weights * torch.nan, cameras)
    with pytest.raises(ValueError, match="uv"):
        triangulate(uv * torch.nan, weights, cameras)
