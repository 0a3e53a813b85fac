"""Tracks of the keypoints as JSON."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kg4d.errors import InputError
from kg4d.formats.base import ExportSource
from kg4d.formats.tracks import export_tracks
from kg4d.priors.keypoints.pose_files.poses import Poses
from kg4d.priors.keypoints.pose_files.read import read_keypoint_file
from tests import make
from tests.formats.test_build import Rising

SOURCE = ExportSource(Rising(), make.tiny_scene(), fps=4)


def test_the_file_has_what_the_model_says(tmp_path: Path) -> None:
    table = json.loads(export_tracks(SOURCE, tmp_path).paths[0].read_text())
    assert table["names"] == ["top", "left", "right"]
    assert table["parents"] == [-1, 0, 0]
    assert table["fps"] == 4
    times = SOURCE.scene.reference.times
    torch.testing.assert_close(torch.tensor(table["times"]), times)
    torch.testing.assert_close(torch.tensor(table["xyz"]), SOURCE.model.keypoints(times))


def test_it_can_be_given_as_keypoints_of_the_video(tmp_path: Path) -> None:
    poses = read_keypoint_file(export_tracks(SOURCE, tmp_path).paths[0], make.SIZE, make.SIZE)
    assert isinstance(poses, Poses)
    reference = SOURCE.scene.reference
    for frame, points in enumerate(SOURCE.model.keypoints(reference.times)):
        expected = reference.cameras[frame].project(points).pixels[0]
        torch.testing.assert_close(poses.uv[frame, 0], expected)
    assert bool((poses.weights > 0).all())


def test_what_is_behind_the_camera_has_no_pixel(tmp_path: Path) -> None:
    class Behind(Rising):
        def keypoints(self, times: torch.Tensor) -> torch.Tensor:
            return super().keypoints(times) + 3 * SOURCE.scene.reference.cameras.centers[0]

    table = json.loads(export_tracks(replace(SOURCE, model=Behind()), tmp_path).paths[0].read_text())
    assert table["uv"] == [[None] * 3] * make.FRAMES


def test_a_scene_without_keypoints_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no keypoints"):
        export_tracks(replace(SOURCE, scene=replace(SOURCE.scene, keypoints=None)), tmp_path)
    assert not list(tmp_path.iterdir())
