import pytest
import torch

from kg4d.geometry.rotations import quat_to_matrix
from kg4d.metrics.keys import METRIC_KEYS
from kg4d.metrics.surface import SurfaceDistances, chamfer, motion_chamfer, surface_distance

FRAMES = 3


def clip(count: int) -> torch.Tensor:
    """Points of a bent ellipsoid that waves; the longest side of its box is 2."""
    points = torch.nn.functional.normalize(torch.randn(count, 3), dim=-1) * torch.tensor([1.0, 0.5, 0.25])
    points = points + (points[:, :1] > 0) * torch.tensor([0.0, 0.4, 0.1]) * points[:, :1]
    points[:2] = torch.tensor([[-1.0, 0, 0], [1.0, 0, 0]])
    waves = [0.1 * torch.sin(3 * points[:, :1] + frame) * torch.tensor([0.0, 1.0, 0.5]) for frame in range(FRAMES)]
    return torch.stack([points + wave for wave in waves])


def test_chamfer_in_closed_form():
    target = torch.tensor([[0.0, 0, 0], [1.0, 0, 0]])
    assert float(chamfer(target, target)) == 0
    assert float(chamfer(target + torch.tensor([0.0, 0.2, 0]), target)) == pytest.approx(0.4)
    # the second point is 2 away from the nearest true one, and counts a quarter
    pred, weights = torch.tensor([[0.0, 0, 0], [3.0, 0, 0]]), torch.tensor([0.75, 0.25])
    assert float(chamfer(pred, target, weights)) == pytest.approx(2 / 4 + (0 + 1) / 2)


def test_both_sides_have_the_same_role():
    pred, target = clip(60), clip(80)
    assert torch.allclose(chamfer(pred[0], target[0]), chamfer(target[0], pred[0]))
    assert torch.allclose(motion_chamfer(pred, target), motion_chamfer(target, pred))


def test_motion_follows_the_points_of_the_first_frame():
    target = torch.tensor([[[0.0, 0, 0], [1.0, 0, 0]], [[0.0, 0, 0], [1.0, 0, 0]]])
    swapped = target.clone()
    swapped[1] = swapped[1].flip(0)  # each point is where the other one was
    assert float(chamfer(swapped[1], target[1])) == 0
    assert float(motion_chamfer(swapped, target)) == pytest.approx(2 * 1 / 2)


def test_identical_surfaces_are_not_apart():
    truth = clip(200)
    found = surface_distance(list(truth), truth)
    assert found.cd_3d.max() < 1e-4
    assert found.cd_4d.max() < 1e-4
    assert found.motion < 1e-4


def test_a_shift_after_the_first_frame_is_seen_by_the_clip_and_not_by_the_frames():
    truth, shift = clip(60), 0.01  # far less than points are apart
    pred = truth.clone()
    pred[1:] += torch.tensor([0.0, shift, 0.0])
    found = surface_distance(list(pred), truth)
    unit = float((truth.reshape(-1, 3).amax(0) - truth.reshape(-1, 3).amin(0)).max()) / 2
    assert found.cd_3d.max() < 1e-4
    assert torch.allclose(found.cd_4d, torch.tensor([0.0, 2 * shift, 2 * shift]) / unit, atol=1e-4)
    assert float(found.motion) == pytest.approx(2 * shift * (FRAMES - 1) / FRAMES / unit, abs=1e-4)


def test_turn_scale_and_shift_of_the_prediction_do_not_matter_nor_the_unit_of_both():
    truth, pred = clip(300), clip(200)
    plain = surface_distance(list(pred), truth)
    turned = 3 * pred @ quat_to_matrix(torch.randn(4)).mT + torch.tensor([5.0, 0.0, -1.0])
    for other in (surface_distance(list(turned), truth), surface_distance(list(pred), 7 * truth)):
        assert torch.allclose(other.cd_3d, plain.cd_3d, atol=1e-3)
        assert torch.allclose(other.cd_4d, plain.cd_4d, atol=1e-3)
        assert torch.allclose(other.motion, plain.motion, atol=1e-3)
    assert 0.05 < plain.cd_3d.mean() < 0.5  # what two samples of so few points are apart


def test_the_metric_is_the_mean_over_clips_and_knows_no_motion_without_tracks():
    truth = clip(60)
    metric = SurfaceDistances()
    metric.update(list(truth), truth)
    metric.update(
        [truth[0], truth[1, 1:], truth[2, 2:]], truth, [torch.ones(60), torch.ones(59), torch.ones(58)], tracked=False
    )
    values = metric.compute()
    assert {f"geometry/{name}" for name in values} <= set(METRIC_KEYS)
    assert float(values["motion"]) < 1e-4
    assert 0 < float(values["cd_3d"]) < 0.02
