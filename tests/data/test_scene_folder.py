import json
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from kg4d.data.scene import load_scene
from kg4d.errors import InputError

Damage = Callable[[Path], None]


def edit(name: str, change: Callable[[dict[str, Any]], None]) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / f"transforms_{name}.json"
        table = json.loads(path.read_text())
        change(table)
        path.write_text(json.dumps(table))

    return damage


def arrays(file: str, **changes: Callable[[np.ndarray], np.ndarray] | None) -> Damage:
    """Replace arrays by functions of themselves; None removes one."""

    def damage(folder: Path) -> None:
        with np.load(folder / file) as archive:
            kept = dict(archive)
        for name, change in changes.items():
            value = kept.pop(name)
            if change is not None:
                kept[name] = change(value)
        np.savez(folder / file, **kept)

    return damage


def text(name: str, content: str | bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def image(name: str, width: int, height: int, alpha: int = 255, mode: str = "RGBA") -> Damage:
    return lambda folder: Image.new("RGBA", (width, height), (9, 9, 9, alpha)).convert(mode).save(folder / name)


def set_frame(index: int, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda table: table["frames"][index].update(values)


def drop_frame_key(index: int, key: str) -> Callable[[dict[str, Any]], None]:
    return lambda table: table["frames"][index].pop(key) and None


def keep(count: int) -> Callable[[dict[str, Any]], None]:
    return lambda table: table.update(frames=table["frames"][:count])


def put(where: tuple[int, ...], value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array[where] = value
        return array

    return change


def camera(distance: float, turned: bool = False) -> list[list[float]]:
    """OpenGL camera-to-world on +Z, looking at the origin or away from it."""
    sign = -1.0 if turned else 1.0
    return [[sign, 0, 0, 0], [0, 1, 0, 0], [0, 0, sign, distance], [0, 0, 0, 1]]


def every_camera(matrix: list[list[float]]) -> Callable[[dict[str, Any]], None]:
    return lambda table: [frame.update(transform_matrix=matrix) for frame in table["frames"]] and None


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
    "grey image": (image("ring/r_001.png", 16, 16, mode="L"), "ring/r_001.png", "grey"),
    "no JSON": (text("transforms_train.json", "{frames"), "transforms_train.json", "JSON"),
    "binary JSON": (text("transforms_ring.json", b"\xff\xfe\x00"), "transforms_ring.json", "JSON"),
    "JSON list": (text("transforms_test.json", "[]"), "transforms_test.json", "JSON object"),
    "no frames key": (edit("train", lambda t: t.pop("frames")), "transforms_train.json: frames", "missing"),
    "zero frames": (edit("train", keep(0)), "transforms_train.json: frames", "empty"),
    "zero ring": (edit("ring", keep(0)), "transforms_ring.json: frames", "empty"),
    "one frame": (edit("train", keep(1)), "transforms_train.json: frames", "at least two"),
    "no file_path": (edit("train", drop_frame_key(2, "file_path")), "frames[2].file_path", "missing"),
    "no time": (edit("test", drop_frame_key(1, "time")), "frames[1].time", "finite number"),
    "text as time": (edit("train", set_frame(1, time="soon")), "frames[1].time", "'soon'"),
    "truth as time": (edit("train", set_frame(1, time=True)), "frames[1].time", "True"),
    "NaN time": (edit("train", set_frame(1, time=math.nan)), "frames[1].time", "finite"),
    "time in seconds": (edit("train", set_frame(3, time=3.0)), "frames[3].time", "[0, 1]"),
    "times backwards": (edit("train", set_frame(2, time=0.1)), "frames[2].time", "not in order"),
    "duplicated time": (edit("train", set_frame(1, time=0.0)), "frames[1].time", "duplicated"),
    "frame numbers": (edit("train", set_frame(2, frame_index=7)), "frames[2].frame_index", "count"),
    "broken frame number": (edit("train", set_frame(2, frame_index=1.5)), "frames[2].frame_index", "integer"),
    "image listed twice": (edit("train", set_frame(2, file_path="./train/r_001")), "frames[2].file_path", "again"),
    "view listed twice": (edit("ring", set_frame(2, view=1)), "transforms_ring.json: frames[2]", "view 1"),
    "test frame twice": (edit("test", set_frame(2, frame_index=1)), "transforms_test.json: frames[2]", "frame 1"),
    "later ring": (edit("ring", set_frame(4, time=0.5, frame_index=1)), "frames[4]", "another moment"),
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
        edit("train", lambda t: [t.pop(key) for key in ("fl_x", "camera_angle_x")] and None),
        "transforms_train.json: camera_angle_x",
        "missing",
    ),
    "negative focal length": (edit("train", lambda t: t.update(fl_x=-3)), "transforms_train.json: fl_x", "positive"),
    "angle in degrees": (
        edit("train", lambda t: t.update(camera_angle_x=0 * t.pop("fl_x") + 49.1)),
        "transforms_train.json: camera_angle_x",
        "radians",
    ),
    "NaN centre": (edit("train", lambda t: t.update(cx=math.nan)), "transforms_train.json: cx", "finite"),
    "unequal images": (image("train/r_002.png", 18, 18), "train/r_002.png", "18 x 18"),
    "not square": (image("train/r_000.png", 16, 12), "train/r_000.png", "not square"),
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


def as_dnerf(folder: Path, degrees: float) -> None:
    """Rewrite as the D-NeRF data set does: one angle, a moving camera, bare frames, nothing else."""
    for name in ("transforms_ring.json", "transforms_test.json", "keypoints.npz", "flow.npz"):
        (folder / name).unlink()
    path = folder / "transforms_train.json"
    table = json.loads(path.read_text())
    frames = []
    for index, frame in enumerate(table["frames"]):
        angle = math.radians(degrees * index)
        matrix = [
            [math.cos(angle), 0, math.sin(angle), 4 * math.sin(angle)],
            [0, 1, 0, 0],
            [-math.sin(angle), 0, math.cos(angle), 4 * math.cos(angle)],
            [0, 0, 0, 1],
        ]
        bare = {"file_path": frame["file_path"], "rotation": 0.3, "time": frame["time"], "transform_matrix": matrix}
        frames.append(bare)
    path.write_text(json.dumps({"camera_angle_x": 0.8, "frames": frames}))


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
    for name in ("transforms_ring.json", "transforms_test.json", "keypoints.npz", "flow.npz"):
        assert sum(f"no {name}" in record.message for record in caplog.records) == 1


def test_frames_and_views_are_derived_from_times(folder: Path):
    """A test file of moving cameras need not be in order, and images of one time are different views."""
    times = [0.5, 0.5, 0.0, 1.0, 0.0, 1.0, 0.25, 0.75]

    def strip(table: dict[str, Any]) -> None:
        for frame, time in zip(table["frames"], times, strict=True):
            del frame["frame_index"], frame["view"]
            frame["time"] = time

    edit("test", strip)(folder)
    (folder / "keypoints.npz").unlink()
    test = load_scene(folder).test
    assert test.frames.tolist() == [2, 2, 0, 4, 0, 4, 1, 3]
    assert test.views.tolist() == [0, 1, 0, 0, 1, 1, 0, 0]


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
