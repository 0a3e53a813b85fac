import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from kg4d.data.scene import load_scene
from kg4d.errors import InputError
from tests.data.damage import (
    Damage,
    angle_in_degrees,
    arrays,
    camera,
    drop_frame_key,
    edit,
    every_camera,
    image,
    keep,
    no_focal_length,
    put,
    set_frame,
    text,
)

NAN_CAMERA = [[math.nan] * 4, *camera(2.0)[1:]]
SCALED = [[2.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 2.0, 2], [0, 0, 0, 1]]
MIRRORED = [[-1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]]
CYCLE = np.array([1, 2, 0])

# name: what is done to a good scene; where the error points; words of the error
ERRORS: dict[str, tuple[Damage, str, str]] = {
    "no folder": (lambda folder: shutil.rmtree(folder), "tiny:", "no such folder"),
    "no reference": (
        lambda folder: (folder / "transforms_train.json").unlink(),
        "transforms_train.json",
        "no such file",
    ),
    "no image": (lambda folder: (folder / "train/r_002.png").unlink(), "train/r_002.png", "no such file"),
    "damaged image": (text("train/r_001.png", b"png?"), "train/r_001.png", "cannot be read"),
    "no JSON": (text("transforms_train.json", "{frames"), "transforms_train.json", "JSON"),
    "binary JSON": (text("transforms_ring.json", b"\xff\xfe\x00"), "transforms_ring.json", "JSON"),
    "JSON list": (text("transforms_test.json", "[]"), "transforms_test.json", "JSON object"),
    "no frames key": (edit("train", lambda t: t.pop("frames")), "transforms_train.json: frames", "missing"),
    "zero frames": (edit("train", keep(0)), "transforms_train.json: frames", "empty"),
    "zero ring": (edit("ring", keep(0)), "transforms_ring.json: frames", "empty"),
    "one frame": (edit("train", keep(1)), "transforms_train.json: frames", "at least two"),
    "no file_path": (edit("train", drop_frame_key(2, "file_path")), "frames[2].file_path", "missing"),
    "no time": (edit("test", drop_frame_key(1, "time")), "frames[1].time", "missing, as in 1 of 8"),
    "text as time": (edit("train", set_frame(1, time="soon")), "frames[1].time", "'soon'"),
    "truth as time": (edit("train", set_frame(1, time=True)), "frames[1].time", "True"),
    "NaN time": (edit("train", set_frame(1, time=math.nan)), "frames[1].time", "finite"),
    "time in seconds": (edit("train", set_frame(3, time=3.0)), "frames[3].time", "[0, 1]"),
    "times backwards": (edit("train", set_frame(2, time=0.1)), "frames[2].time", "not in order"),
    "test before the video": (edit("train", set_frame(0, time=0.1)), "frames[0].time", "before the first frame"),
    "duplicated time": (edit("train", set_frame(1, time=0.0)), "frames[1].time", "duplicated"),
    "frame numbers": (edit("train", set_frame(2, frame_index=7)), "frames[2].frame_index", "count"),
    "broken frame number": (edit("train", set_frame(2, frame_index=1.5)), "frames[2].frame_index", "integer"),
    "image listed twice": (edit("train", set_frame(2, file_path="./train/r_001")), "frames[2].file_path", "again"),
    "view listed twice": (edit("ring", set_frame(2, view=1)), "transforms_ring.json: frames[2]", "view 1"),
    "test frame twice": (edit("test", set_frame(2, frame_index=1)), "transforms_test.json: frames[2]", "frame 1"),
    "later ring": (edit("ring", set_frame(4, time=1 / 3, frame_index=1)), "frames[4]", "another moment"),
    "no matrix": (edit("train", drop_frame_key(0, "transform_matrix")), "frames[0].transform_matrix", "no matrix"),
    "3 x 4 matrix": (edit("train", set_frame(1, transform_matrix=camera(2.0)[:3])), "frames[1]", "(3, 4)"),
    "ragged matrix": (edit("train", set_frame(1, transform_matrix=[[1], [1, 2]])), "frames[1]", "no matrix"),
    "NaN camera": (edit("ring", set_frame(3, transform_matrix=NAN_CAMERA)), "frames[3].transform_matrix", "NaN"),
    "scaled camera": (edit("train", set_frame(1, transform_matrix=SCALED)), "frames[1].transform_matrix", "rigid"),
    "mirrored camera": (edit("train", set_frame(1, transform_matrix=MIRRORED)), "frames[1].transform_matrix", "rigid"),
    "camera in the object": (
        edit("train", every_camera(camera(0.2))),
        "frames[0].transform_matrix",
        "inside the object",
    ),
    "camera at the origin": (
        edit("train", every_camera(camera(0.0))),
        "frames[0].transform_matrix",
        "inside the object",
    ),
    "ring camera inside": (
        edit("ring", set_frame(0, transform_matrix=camera(0.1))),
        "frames[0].transform_matrix",
        "inside",
    ),
    "camera turned away": (edit("train", every_camera(camera(2.0, turned=True))), "frames[0].transform_matrix", "away"),
    "one turned away": (edit("ring", set_frame(0, transform_matrix=camera(2.0, turned=True))), "frames[0]", "away"),
    "wrong w": (edit("train", lambda t: t.update(w=32)), "transforms_train.json: w", "32"),
    "wrong h": (edit("ring", lambda t: t.update(h="16")), "transforms_ring.json: h", "'16'"),
    "no focal length": (
        edit("train", no_focal_length),
        "transforms_train.json: camera_angle_x",
        "missing",
    ),
    "negative focal length": (edit("train", lambda t: t.update(fl_x=-3)), "transforms_train.json: fl_x", "positive"),
    "angle in degrees": (
        edit("train", angle_in_degrees),
        "transforms_train.json: camera_angle_x",
        "radians",
    ),
    "NaN centre": (edit("train", lambda t: t.update(cx=math.nan)), "transforms_train.json: cx", "finite"),
    "unequal images": (image("train/r_002.png", 18, 18), "train/r_002.png", "18 x 18"),
    "not as high as h": (image("train/r_000.png", 16, 12), "transforms_train.json: w", "16 x 12"),
    "empty matte": (image("test/v1_002.png", 16, 16, alpha=0), "test/v1_002.png", "empty matte"),
    "keypoints no archive": (text("keypoints.npz", b"PK no"), "keypoints.npz", "archive"),
    "keypoints one array": (text("keypoints.npz", b"\x93NUMPY"), "keypoints.npz", "archive"),
    "no names": (arrays("keypoints.npz", names=None), "keypoints.npz: names", "missing"),
    "no weights": (arrays("keypoints.npz", weights=None, visible=None), "keypoints.npz: visible", "missing"),
    "wrong J": (arrays("keypoints.npz", uv=lambda a: a[:, :, :2]), "keypoints.npz: uv", "J = 3"),
    "wrong J in the ring": (arrays("keypoints.npz", ring_uv=lambda a: a[:, :2]), "keypoints.npz: ring_uv", "J = 3"),
    "wrong T": (arrays("keypoints.npz", xyz=lambda a: a[:2]), "keypoints.npz: xyz", "T = 4"),
    "wrong R": (arrays("keypoints.npz", ring_weights=lambda a: a[:2]), "keypoints.npz: ring_weights", "R = 6"),
    "wrong V": (arrays("keypoints.npz", uv=lambda a: a[:2], visible=lambda a: a[:2]), "keypoints.npz: uv", "2 test"),
    "NaN where seen": (arrays("keypoints.npz", uv=put((0, 2, 1, 0), np.nan)), "keypoints.npz: uv", "[0, 2, 1]"),
    "NaN in the ring": (arrays("keypoints.npz", ring_uv=put((1, 1, 0), np.inf)), "keypoints.npz: ring_uv", "[1, 1]"),
    "NaN truth": (arrays("keypoints.npz", xyz=put((1, 1, 0), np.nan)), "keypoints.npz: xyz", "NaN"),
    "confidence above one": (arrays("keypoints.npz", weights=put((0, 0), 1.5)), "keypoints.npz: weights", "[0, 1]"),
    "NaN confidence": (arrays("keypoints.npz", weights=put((0, 0), np.nan)), "keypoints.npz: weights", "[0, 1]"),
    "text as keypoints": (arrays("keypoints.npz", uv=lambda a: a.astype(str)), "keypoints.npz: uv", "not numbers"),
    "parent out of range": (arrays("keypoints.npz", parents=put((1,), 3)), "keypoints.npz: parents", "-1 to 2"),
    "parents in a circle": (arrays("keypoints.npz", parents=lambda a: CYCLE), "keypoints.npz: parents", "circle"),
    "flow of another size": (arrays("flow.npz", flow=lambda a: a[:, :8]), "flow.npz: flow", "H = 16"),
    "flow of other frames": (arrays("flow.npz", weights=lambda a: a[:1]), "flow.npz: weights", "T-1 = 3"),
    "NaN flow": (arrays("flow.npz", flow=put((0, 8, 8, 0), np.nan)), "flow.npz: flow", "[0, 8, 8]"),
    "no valid": (arrays("flow.npz", weights=None, valid=None), "flow.npz: valid", "missing"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_every_failure_is_one_line_that_names_the_place(folder: Path, name: str):
    damage, where, words = ERRORS[name]
    damage(folder)
    with pytest.raises(InputError) as caught:
        load_scene(folder)
    message = str(caught.value)
    place = message.split(": ")[0] + ": " + message.split(": ")[1]
    assert where in place + ":"
    assert words in message
    assert "\n" not in message
    assert message.endswith(")")


def test_other_sizes_between_files(folder: Path):
    for index in range(6):
        image(f"ring/r_{index:03d}.png", 18, 18)(folder)
    edit("ring", lambda t: t.update(w=18, h=18))(folder)
    with pytest.raises(InputError, match=r"transforms_ring.json: its images are 18 x 18"):
        load_scene(folder)
