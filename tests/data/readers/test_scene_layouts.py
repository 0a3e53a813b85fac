"""Folders that are fine although they differ from what we would write."""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kg4d.data.records import view_grid
from kg4d.data.scene import load_scene
from kg4d.data.scene_writer import write_scene
from kg4d.errors import InputError
from tests.data.damage import arrays, as_dnerf, edit, put, set_frame


def test_dnerf_folders_load(folder: Path, caplog: pytest.LogCaptureFixture):
    as_dnerf(folder, 30.0)
    with caplog.at_level(logging.INFO, "kg4d"):
        scene = load_scene(folder)
    assert scene.ring is scene.keypoints is scene.flow is scene.test is None
    assert scene.reference.frames.tolist() == [0, 1, 2, 3]
    assert scene.reference.views.tolist() == [0, 0, 0, 0]
    assert torch.allclose(scene.reference.cameras.Ks[0, 0, 0], torch.tensor(8 / math.tan(0.4)))
    assert torch.allclose(scene.reference.cameras.Ks[0, :2, 2], torch.tensor([8.0, 8.0]))
    expected = torch.tensor([4 * math.sin(math.pi / 6), 0.0, 4 * math.cos(math.pi / 6)])
    assert torch.allclose(scene.reference.cameras.centers[1], expected, atol=1e-5)
    origin = scene.reference.cameras.project(torch.zeros(3))
    assert torch.allclose(origin.pixels, torch.tensor(8.0), atol=1e-4)
    assert torch.allclose(origin.depths, torch.tensor(4.0), atol=1e-5)
    for what in ("views of the first frame", "held-out videos", "keypoints", "optical flow"):
        assert sum(f"no {what}" in record.message for record in caplog.records) == 1


def retimed(times: list[float]) -> Callable[[dict[str, Any]], None]:
    """The first entries of a file at these times, without `frame_index` and `view`."""

    def change(table: dict[str, Any]) -> None:
        table["frames"] = table["frames"][: len(times)]
        for frame, time in zip(table["frames"], times, strict=True):
            del frame["frame_index"], frame["view"]
            frame["time"] = time

    return change


def test_frames_and_views_are_derived_from_times(folder: Path):
    """Images of one time are different views; times that the video (0, 1/3, 2/3, 1) does not show count on from it."""
    edit("test", retimed([0.5, 0.5, 0.0, 1.0, 0.0, 1.0, 0.25, 0.75]))(folder)
    (folder / "keypoints.npz").unlink()
    test = load_scene(folder).test
    assert test.frames.tolist() == [5, 5, 0, 3, 0, 3, 4, 6]
    assert test.views.tolist() == [0, 1, 0, 0, 1, 1, 0, 0]


def test_a_test_video_of_later_frames_shows_those_frames(folder: Path):
    edit("test", retimed([0.6667, 1.0]))(folder)  # rounded otherwise than the video
    (folder / "keypoints.npz").unlink()
    scene = load_scene(folder)
    assert scene.test.frames.tolist() == [2, 3]
    assert scene.test.views.tolist() == [0, 0]


def test_the_images_of_a_view_stand_in_the_order_of_time(folder: Path):
    edit("test", retimed([0.0, 0.5, 1.0, 1 / 3]))(folder)
    (folder / "keypoints.npz").unlink()
    test = load_scene(folder).test
    assert test.frames.tolist() == [0, 4, 3, 1]
    assert view_grid(test) == [[0, 3, 1, 2]]


def test_the_motion_begins_with_the_first_frame(folder: Path, caplog: pytest.LogCaptureFixture):
    """A clip cut out of a longer video: all its files count from its first frame."""
    expected = load_scene(folder)

    def later(table: dict[str, Any]) -> None:
        for frame in table["frames"]:
            frame["time"] = 0.2 + 0.6 * frame["time"]

    for name in ("train", "ring", "test"):
        edit(name, later)(folder)
    with caplog.at_level(logging.WARNING, "kg4d"):
        scene = load_scene(folder)
    assert "transforms_train.json: the first frame is at time 0.2: all times count from there" in caplog.text
    for part in ("reference", "ring", "test"):
        assert torch.allclose(getattr(scene, part).times, 0.6 * getattr(expected, part).times, atol=1e-6)
    assert scene.reference.times[0] == 0


def test_an_entry_may_have_a_lens_of_its_own(folder: Path):
    edit("ring", set_frame(1, fl_x=40.0, fl_y=41.0, cx=7.0, cy=9.0))(folder)
    Ks = load_scene(folder).ring.cameras.Ks
    assert Ks[1].tolist() == [[40, 0, 7], [0, 41, 9], [0, 0, 1]]
    assert torch.equal(Ks[2:], Ks[:1].expand(len(Ks) - 2, 3, 3))
    assert Ks[0, 0, 0] != 40


def test_file_paths_may_carry_an_extension(folder: Path):
    def spell(table: dict[str, Any]) -> None:
        for frame in table["frames"]:
            frame["file_path"] += ".png"

    edit("train", spell)(folder)
    assert len(load_scene(folder).reference) == 4


def test_what_is_not_seen_may_be_nan_and_becomes_zero(folder: Path):
    nan = put((0, 1, 2, 0), np.nan)  # keypoint 2 is hidden in frame 1
    arrays("keypoints.npz", uv=nan)(folder)
    keypoints = load_scene(folder).keypoints
    assert keypoints.weights[1, 2] == 0
    assert keypoints.uv.isfinite().all()


def test_what_lies_outside_the_image_has_no_weight(folder: Path):
    arrays("keypoints.npz", uv=put((0, 0, 0, 0), -3.0), ring_uv=put((0, 0, 1), 16.5))(folder)
    keypoints = load_scene(folder).keypoints
    assert keypoints.weights[0].tolist() == [0, 1, 1]
    assert keypoints.ring_weights[0].tolist() == [0, 1, 1]


def test_visibility_is_the_confidence_where_there_is_no_other(folder: Path):
    arrays("keypoints.npz", weights=None, ring_weights=None)(folder)
    arrays("flow.npz", weights=None, visible_next=lambda a: a & (np.arange(16) < 8))(folder)
    scene = load_scene(folder)
    assert scene.keypoints.weights[1].tolist() == [1, 1, 0]
    assert scene.keypoints.ring_weights[3].tolist() == [0, 1, 1]
    assert scene.flow.weights[..., :8].any()
    assert not scene.flow.weights[..., 8:].any()


def test_detected_keypoints_need_neither_truth_nor_visibility(folder: Path):
    with np.load(folder / "keypoints.npz") as archive:
        kept = {name: archive[name] for name in ("names", "parents")}
        kept |= {"uv": archive["uv"][:1], "confidence": archive["weights"] * 0.5}
    np.savez(folder / "keypoints.npz", **kept)
    keypoints = load_scene(folder).keypoints
    assert keypoints.weights.max() == 0.5
    assert keypoints.truth is keypoints.ring_uv is keypoints.test_uv is keypoints.test_visible is None


def test_leans_of_bones_are_read_written_and_checked(folder: Path, tmp_path: Path):
    leans = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    with np.load(folder / "keypoints.npz") as archive:
        given = dict(archive)
    np.savez(folder / "keypoints.npz", **given, leans=leans)
    scene = load_scene(folder)
    write_scene(scene, tmp_path / "again", {}, torch.zeros(4, 4, 3))
    for found in (scene, load_scene(tmp_path / "again")):
        assert found.keypoints is not None
        assert np.array_equal(found.keypoints.leans, leans)
    np.savez(folder / "keypoints.npz", **given, leans=2 * leans)
    with pytest.raises(InputError, match=r"leans: holds NaN or values outside \[-1, 1\]"):
        load_scene(folder)
