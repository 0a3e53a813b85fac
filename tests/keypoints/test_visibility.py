import pytest
import torch

from kg4d.geometry.orbits import orbit
from kg4d.keypoints.visibility import depth_visible

CAMERAS = orbit([0.0, 180.0], [0.0, 0.0], 2.0, 60.0, 16, 16)


def wall(distance: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth and alpha of a wall that fills the left half of both images."""
    depth, alpha = torch.zeros(2, 16, 16, 1), torch.zeros(2, 16, 16, 1)
    depth[:, :, :8], alpha[:, :, :8] = distance, 1.0
    return depth, alpha


def test_hidden_behind_the_wall_free_beside_it() -> None:
    points = torch.tensor([[-0.3, 0.0, 0.0], [0.3, 0.0, 0.0]])  # left and right in the front view, at depth 2
    seen = depth_visible(points, CAMERAS, *wall(1.5), tolerance=0.1)
    assert seen.tolist() == [[False, True], [True, False]]
    assert depth_visible(points, CAMERAS, *wall(2.5), tolerance=0.1).all()


def test_tolerance_lets_joints_lie_inside_the_body() -> None:
    joint = torch.tensor([-0.3, 0.0, 0.0])
    assert depth_visible(joint, CAMERAS[0], *(x[:1] for x in wall(1.95)), tolerance=0.1).tolist() == [True]
    assert depth_visible(joint, CAMERAS[0], *(x[:1] for x in wall(1.95)), tolerance=0.01).tolist() == [False]


def test_outside_and_behind_are_not_visible() -> None:
    depth, alpha = torch.zeros(2, 16, 16, 1), torch.zeros(2, 16, 16, 1)
    points = torch.tensor([[[9.0, 0.0, 0.0], [0.0, 0.0, 3.0]]])  # beside the image; behind the front camera
    seen = depth_visible(points, CAMERAS, depth, alpha, tolerance=0.0)
    assert seen.shape == (2, 1, 2)
    assert seen[:, 0].tolist() == [[False, False], [False, True]]


def test_half_covered_pixels_hide_a_point_and_thinner_ones_do_not() -> None:
    depth, alpha = wall(1.5)
    point = torch.tensor([-0.3, 0.0, 0.0])
    assert not depth_visible(point, CAMERAS, depth, 0.5 * alpha, tolerance=0.1)[0]
    assert depth_visible(point, CAMERAS, depth, 0.4 * alpha, tolerance=0.1)[0]


def test_errors() -> None:
    with pytest.raises(ValueError, match="tolerance"):
        depth_visible(torch.zeros(3), CAMERAS, *wall(1.0), tolerance=-0.1)
