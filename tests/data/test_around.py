"""Cameras around a scene: they start at the reference camera, and hang on no axis of the world."""

from dataclasses import replace

import torch

from kg4d.data.around import cameras_around
from kg4d.data.studies.world import moved, turn
from tests import make

ANGLES = torch.tensor([0.0, 40.0, 90.0, 180.0, -90.0])


def test_they_start_at_the_reference_camera_and_end_behind_the_object():
    scene = make.tiny_scene()
    cameras = cameras_around(scene, ANGLES)
    first = scene.reference.cameras[0]
    torch.testing.assert_close(cameras.viewmats[0], first.viewmats[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(
        cameras.centers[3], -first.centers[0] * torch.tensor([1.0, -1.0, 1.0]), atol=1e-5, rtol=0
    )
    assert cameras.centers[2, 0] > 0.5 * first.centers.norm()  # to the right of a camera on +Z is +X


def test_a_turned_and_moved_world_turns_and_moves_them():
    scene = make.tiny_scene()
    there = moved(scene, turn([1, 2, -1], 65.0), scale=3.0, shift=[5.0, 1.0, -3.0])
    here, far = cameras_around(scene, ANGLES), cameras_around(there, ANGLES)
    relative = [c.viewmats @ torch.linalg.inv(c.viewmats[:1]) for c in (here, far)]
    scaled = relative[0].clone()
    scaled[:, :3, 3] *= 3
    torch.testing.assert_close(relative[1], scaled, atol=1e-3, rtol=0)


def test_one_view_turns_about_its_own_upward_axis():
    scene = replace(make.tiny_scene(), ring=None)
    here, far = cameras_around(scene, ANGLES), cameras_around(moved(scene, turn([3, -1, 2], 110.0)), ANGLES)
    relative = [c.viewmats @ torch.linalg.inv(c.viewmats[:1]) for c in (here, far)]
    torch.testing.assert_close(relative[1], relative[0], atol=1e-4, rtol=0)
