"""What a scene lacks: times that follow from the rest, a file of another name, and everything else at once."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kg4d.data.scene import load_scene
from kg4d.errors import InputError
from tests.compare import assert_same
from tests.data.damage import edit


def bare(*keys: str) -> Callable[[dict[str, Any]], None]:
    """Take keys out of every entry."""

    def change(table: dict[str, Any]) -> None:
        for frame in table["frames"]:
            for key in keys:
                frame.pop(key, None)

    return change


def test_a_scene_without_times_is_evenly_spaced(folder: Path, caplog: pytest.LogCaptureFixture):
    expected = load_scene(folder)
    for name in ("train", "ring", "test"):
        edit(name, bare("time"))(folder)
    with caplog.at_level(logging.INFO, "kg4d"):
        assert_same(load_scene(folder), expected, atol=1e-6)
    assert "transforms_train.json: no frame has a time: i / (N - 1) for the i-th of 4" in caplog.text
    assert "transforms_ring.json: no frame has a time: that of the first frame" in caplog.text
    assert "transforms_test.json: no frame has a time: they are those of the frames of the reference" in caplog.text


def test_without_frame_index_the_names_of_images_give_the_order(folder: Path, caplog: pytest.LogCaptureFixture):
    """As other tools write it: in any order, with numbers that do not begin at 0."""
    expected = load_scene(folder)
    edit("train", bare("time", "frame_index", "view"))(folder)
    edit("test", bare("time", "frame_index"))(folder)  # whole videos, told by `view`

    def rename(table: dict[str, Any]) -> None:
        for number, frame in zip((8, 9, 10, 11), table["frames"], strict=True):
            (folder / f"{frame['file_path']}.png").rename(folder / f"train/frame_{number}.png")
            frame["file_path"] = f"train/frame_{number}.png"
        table["frames"] = [table["frames"][index] for index in (2, 0, 3, 1)]

    edit("train", rename)(folder)
    with caplog.at_level(logging.WARNING, "kg4d"):
        assert_same(load_scene(folder), expected, atol=1e-6)
    assert "in the order of the images' numbers" in caplog.text


def test_names_without_a_common_form_keep_the_order_of_the_file(folder: Path, caplog: pytest.LogCaptureFixture):
    expected = load_scene(folder)
    edit("train", bare("time", "frame_index"))(folder)

    def rename(table: dict[str, Any]) -> None:
        for name, frame in zip("dbca", table["frames"], strict=True):
            (folder / f"{frame['file_path']}.png").rename(folder / f"train/{name}.png")
            frame["file_path"] = f"train/{name}"

    edit("train", rename)(folder)
    with caplog.at_level(logging.WARNING, "kg4d"):
        assert_same(load_scene(folder), expected, atol=1e-6)
    assert "in the order of the file" in caplog.text


def test_frames_of_test_images_have_to_be_told(folder: Path):
    edit("test", bare("time", "frame_index", "view"))(folder)
    with pytest.raises(InputError, match=r"test.json: frames\[0\].time: is missing, and it is not told which frames"):
        load_scene(folder)


def test_transforms_json_is_the_reference_video(folder: Path, caplog: pytest.LogCaptureFixture):
    expected = load_scene(folder)
    (folder / "transforms_train.json").rename(folder / "transforms.json")
    with caplog.at_level(logging.WARNING, "kg4d"):
        assert_same(load_scene(folder), expected, atol=0)
    assert "transforms.json: read as the reference video" in caplog.text
    for name in ("transforms_ring.json", "transforms_test.json", "keypoints.npz", "flow.npz"):
        (folder / name).unlink()
    assert_same(load_scene(folder).reference, expected.reference, atol=0)


def test_transforms_json_gives_way_to_the_file_of_the_video(folder: Path, caplog: pytest.LogCaptureFixture):
    (folder / "transforms.json").write_text("{}")
    with caplog.at_level(logging.INFO, "kg4d"):
        assert len(load_scene(folder).reference) == 4
    assert "transforms.json: not read: transforms_train.json is" in caplog.text


def test_all_that_is_missing_is_named_at_once(folder: Path):
    for name in ("train/r_001.png", "train/r_003.png", "test/v1_002.png"):
        (folder / name).unlink()
    edit("train", lambda table: table["frames"][2].pop("transform_matrix"))(folder)
    edit("ring", lambda table: (table.pop("fl_x"), table.pop("camera_angle_x")))(folder)
    with pytest.raises(InputError) as caught:
        load_scene(folder)
    message = str(caught.value)
    assert message.startswith(f"{folder}/train/r_001.png: no such file; likewise train/r_003.png, test/v1_002.png;")
    assert "transforms_train.json: frames[2].transform_matrix: is missing" in message
    assert message.count("camera_angle_x: is missing, and so is fl_x") == 1  # not once for each image
    assert "\n" not in message


def test_a_missing_video_does_not_hide_what_else_is_missing(folder: Path):
    (folder / "transforms_train.json").unlink()
    (folder / "ring/r_004.png").unlink()
    edit("test", lambda table: table.update(frames=[]))(folder)
    with pytest.raises(InputError, match=r"train.json: no such file; likewise ring/r_004.png; transforms_test.json: f"):
        load_scene(folder)


def test_many_faults_are_one_short_line(folder: Path):
    table = json.loads((folder / "transforms_train.json").read_text())
    table["frames"] = [{"file_path": f"train/{index}"} for index in range(5000)]
    (folder / "transforms_train.json").write_text(json.dumps(table))
    with pytest.raises(InputError, match=r"likewise train/1.png, train/2.png, train/3.png and 4996 more") as caught:
        load_scene(folder)
    assert len(str(caught.value)) < 1000
