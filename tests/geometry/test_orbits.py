import json
import math
from pathlib import Path

import pytest
import torch

from kg4d.geometry.orbits import intrinsics_from_fov, look_at, orbit, turned, viewmats_from_opengl


def test_azimuth_0_is_plus_z_and_90_plus_x() -> None:
    centers = orbit([0.0, 90.0, 180.0, 0.0], [0.0, 0.0, 0.0, 30.0], 2.0, 49.1, 64, 64).centers
    expected = torch.tensor([[0.0, 0, 2], [2, 0, 0], [0, 0, -2], [0, 1, math.sqrt(3)]])
    torch.testing.assert_close(centers, expected, atol=1e-6, rtol=0)


def test_image_axes_of_the_front_view() -> None:
    """From +Z, world +X is to the right and world +Y is up, which is towards smaller rows."""
    pixels, depths = orbit([0.0], [0.0], 2.0, 90.0, 40, 40).project(0.5 * torch.eye(3))
    torch.testing.assert_close(pixels[0], torch.tensor([[25.0, 20.0], [20.0, 15.0], [20.0, 20.0]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(depths[0], torch.tensor([2.0, 2.0, 1.5]))


def test_every_view_is_a_rigid_motion_that_centres_the_origin() -> None:
    cameras = orbit([0.0, 77.0, -130.0], [0.0, 60.0, -80.0], 1.7, 33.0, 50, 30)
    rotation = cameras.viewmats[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(3, 3, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(3))
    pixels, depths = cameras.project(torch.zeros(3))
    torch.testing.assert_close(pixels, torch.tensor([[25.0, 15.0]]).expand(3, 2))
    torch.testing.assert_close(depths, torch.full((3,), 1.7))


def test_field_of_view_reaches_the_upper_edge() -> None:
    K = intrinsics_from_fov(49.1, 256, 256)
    assert K[0, 0].item() == pytest.approx(280.222, abs=1e-3)
    edge = K @ torch.tensor([0.0, -math.tan(math.radians(49.1 / 2)), 1.0])
    assert edge[1].item() == pytest.approx(0.0, abs=1e-4)


def test_opengl_pose_of_the_front_view() -> None:
    """OpenGL's camera looks along its -Z, so a camera at (0, 0, 2) that sees the origin has the identity rotation."""
    pose = torch.eye(4)
    pose[2, 3] = 2.0
    expected = orbit([0.0], [0.0], 2.0, 49.1, 8, 8).viewmats
    torch.testing.assert_close(viewmats_from_opengl(pose[None]), expected, atol=1e-6, rtol=0)


def test_opengl_round_trip() -> None:
    viewmats = orbit([33.0, -100.0], [12.0, 45.0], 2.0, 49.1, 8, 8).viewmats
    pose = torch.linalg.inv(viewmats) @ torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    torch.testing.assert_close(viewmats_from_opengl(pose), viewmats, atol=1e-6, rtol=0)


@pytest.mark.realdata
@pytest.mark.parametrize("part", ["train", "test", "ring"])
def test_real_scenes_have_these_cameras(part: str, data_root: Path) -> None:
    layout = json.loads((data_root / "gltf4d" / "fox" / f"transforms_{part}.json").read_text())
    frames = layout["frames"]
    cameras = orbit(
        [frame["azimuth"] for frame in frames],
        [frame["elevation"] for frame in frames],
        frames[0]["radius"],
        math.degrees(layout["camera_angle_x"]),
        layout["w"],
        layout["h"],
    )
    poses = torch.tensor([frame["transform_matrix"] for frame in frames])
    torch.testing.assert_close(viewmats_from_opengl(poses), cameras.viewmats, atol=1e-5, rtol=0)
    expected = torch.tensor([[layout["fl_x"], 0, layout["cx"]], [0, layout["fl_y"], layout["cy"]], [0, 0, 1]])
    torch.testing.assert_close(cameras.Ks[0], expected)


def test_errors() -> None:
    with pytest.raises(ValueError, match="fov_y_degrees"):
        intrinsics_from_fov(180.0, 8, 8)
    with pytest.raises(ValueError, match="radius"):
        orbit([0.0], [0.0], 0.0, 50.0, 8, 8)
    with pytest.raises(ValueError, match="2 azimuths but 1"):
        orbit([0.0, 1.0], [0.0], 1.0, 50.0, 8, 8)
    with pytest.raises(ValueError, match="up direction"):
        orbit([0.0], [90.0], 1.0, 50.0, 8, 8)
    with pytest.raises(ValueError, match="target"):
        look_at(torch.zeros(1, 3), torch.zeros(3), torch.tensor([0.0, 1.0, 0.0]))
    with pytest.raises(ValueError, match="rotations"):
        viewmats_from_opengl(2 * torch.eye(4)[None])
    with pytest.raises(ValueError, match="rotations"):
        viewmats_from_opengl(torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0]))[None])


def test_turned_cameras_keep_the_axis_where_they_saw_it() -> None:
    camera = orbit([25.0], [30.0], 2.0, 49.1, 64, 48)
    center, axis = torch.tensor([0.2, -0.1, 0.3]), torch.tensor([0.1, 2.0, -0.3])
    cameras = turned(camera, torch.tensor([0.0, 15.0, 140.0, 360.0]), center, axis)
    on_axis = torch.stack([center, center + 0.1 * axis])
    pixels, depths = cameras.project(on_axis)
    torch.testing.assert_close(pixels, pixels[:1].expand_as(pixels), atol=1e-3, rtol=0)
    torch.testing.assert_close(depths, depths[:1].expand_as(depths))
    torch.testing.assert_close(cameras.viewmats[::3], camera.viewmats.expand(2, 4, 4), atol=1e-6, rtol=0)


def test_a_camera_is_turned_to_the_right_as_an_orbit_is() -> None:
    camera = orbit([10.0], [20.0], 2.0, 49.1, 64, 64)
    up = torch.tensor([0.0, 1.0, 0.0])
    torch.testing.assert_close(
        turned(camera, torch.tensor([35.0]), torch.zeros(3), up).viewmats,
        orbit([45.0], [20.0], 2.0, 49.1, 64, 64).viewmats,
        atol=1e-6,
        rtol=0,
    )
