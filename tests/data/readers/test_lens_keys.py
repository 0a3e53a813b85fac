"""Scenes through a lens: what is read is what a pinhole camera would have seen; intrinsics of other sizes."""

import json
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from kg4d.data.records import Flow, Keypoints, PosedImages, Scene
from kg4d.data.scene import load_scene
from kg4d.data.scene_writer import write_scene
from kg4d.errors import InputError
from kg4d.geometry.sampling import pixel_centers
from tests import make
from tests.compare import assert_same
from tests.data.damage import edit, set_frame

SIZE, FRAMES, STEP = 64, 3, 0.04
BARREL = {"camera_model": "OPENCV", "k1": -0.35, "k2": 0.12, "p1": 0.004, "p2": -0.003}
FISHEYE = {"camera_model": "OPENCV_FISHEYE", "k1": 0.03, "k2": -0.01, "k3": 0.002, "k4": 0.0}
LENSES = {"radial and tangential": BARREL, "fisheye": FISHEYE}


def project(points: Tensor, keys: dict[str, Any], K: Tensor, distance: float) -> Tensor:
    """Pixels of world points, (n, 3), in a camera at `distance` on +Z, by OpenCV."""
    seen = (points.double() * torch.tensor([1.0, -1, -1]) + torch.tensor([0, 0, distance])).numpy()
    matrix, none = K.double().numpy(), np.zeros(3)
    if keys["camera_model"] == "OPENCV_FISHEYE":
        numbers = np.array([keys[f"k{i}"] for i in range(1, 5)])
        found, _ = cv2.fisheye.projectPoints(seen[:, None], none, none, matrix, numbers)
    else:
        numbers = np.array([keys[name] for name in ("k1", "k2", "p1", "p2")])
        found, _ = cv2.projectPoints(seen, none, none, matrix, numbers)
    return torch.from_numpy(found).reshape(-1, 2).float()


def points_of(frame: int) -> Tensor:
    """Points of a plane through the origin, which moves sideways."""
    line = torch.linspace(-0.6, 0.6, 5)
    x, y = torch.meshgrid(line, line, indexing="xy")
    return torch.stack([x.flatten() + STEP * frame, y.flatten(), torch.zeros(25)], dim=-1)


def dots(at: Tensor) -> Tensor:
    """White dots on black, opaque."""
    away = (pixel_centers(SIZE, SIZE)[:, :, None] - at).square().sum(-1)
    bright = torch.exp(-0.5 * away / 1.2**2).amax(-1)
    return torch.stack([bright, bright, bright, torch.ones_like(bright)], dim=-1)


def flow_of(keys: dict[str, Any], K: Tensor) -> Tensor:
    """Flow of the plane between images of the lens, from a fine grid of its points."""
    line = torch.linspace(-1.2, 1.2, 400)
    x, y = torch.meshgrid(line, line, indexing="xy")
    plane = torch.stack([x.flatten(), y.flatten(), torch.zeros(line.numel() ** 2)], dim=-1)
    here, there = project(plane, keys, K, 2.0), project(plane + torch.tensor([STEP, 0, 0]), keys, K, 2.0)
    inside = ((here >= 0) & (here < SIZE)).all(-1)
    cells = here[inside].long()
    index = cells[:, 1] * SIZE + cells[:, 0]
    total = torch.zeros(SIZE * SIZE, 3).index_add_(
        0, index, torch.cat([(there - here)[inside], torch.ones(len(cells), 1)], dim=-1)
    )
    return (total[:, :2] / total[:, 2:]).reshape(SIZE, SIZE, 2)


@pytest.fixture(params=LENSES)
def through(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A scene of dots through a lens, with keypoints and flow in pixels of its files."""
    keys = LENSES[request.param]
    cameras = make.cameras([0.0] * FRAMES, size=SIZE)
    K = cameras.Ks[0].clone()
    K[0, 2], K[1, 2] = 34.0, 31.0
    cameras = replace(cameras, Ks=K.expand(FRAMES, 3, 3).clone())
    uv = torch.stack([project(points_of(frame), keys, K, 2.0) for frame in range(FRAMES)])
    frames = torch.arange(FRAMES)
    ring = make.cameras([0.0, 180.0], size=SIZE)
    scene = Scene(
        name="dots",
        reference=PosedImages(
            cameras, torch.stack([dots(at) for at in uv]), frames / (FRAMES - 1), frames, torch.zeros(FRAMES).long()
        ),
        ring=PosedImages(
            ring,
            dots(ring[0].project(points_of(0)).pixels[0]).expand(2, SIZE, SIZE, 4),
            torch.zeros(2),
            torch.zeros(2).long(),
            torch.arange(2),
        ),
        keypoints=Keypoints(
            names=tuple(f"point {index}" for index in range(25)),
            parents=(-1,) * 25,
            uv=uv,
            weights=torch.ones(FRAMES, 25),
            ring_uv=ring.project(points_of(0)).pixels,
            ring_weights=torch.ones(2, 25),
            truth=torch.stack([points_of(frame) for frame in range(FRAMES)]),
        ),
        flow=Flow(flow_of(keys, K).expand(FRAMES - 1, SIZE, SIZE, 2), torch.ones(FRAMES - 1, SIZE, SIZE)),
    )
    write_scene(scene, tmp_path / "dots")
    edit("train", lambda table: table.update(keys))(tmp_path / "dots")
    return tmp_path / "dots", keys


def test_images_show_points_where_the_pinhole_camera_sees_them(through: tuple[Path, dict[str, Any]]):
    scene = load_scene(through[0])
    found = 0
    for frame in range(FRAMES):
        pixels = scene.reference.cameras[frame].project(points_of(frame)).pixels[0]
        inside = ((pixels > 4) & (pixels < SIZE - 4)).all(-1)
        for x, y in pixels[inside].tolist():
            near = (pixel_centers(SIZE, SIZE) - torch.tensor([x, y])).norm(dim=-1) < 4
            bright = scene.reference.images[frame, ..., 0] * near
            centroid = (pixel_centers(SIZE, SIZE) * bright[..., None]).sum((0, 1)) / bright.sum()
            assert (centroid - torch.tensor([x, y])).norm() < 0.3
            found += 1
    assert found > 40
    K = scene.reference.cameras.Ks[0]
    assert abs(K[0, 0] - 70.06) > 2  # not that of the file


def test_keypoints_go_with_the_images(through: tuple[Path, dict[str, Any]]):
    scene = load_scene(through[0], 32)
    keypoints = scene.keypoints
    seen = 0
    for frame in range(FRAMES):
        expected = scene.reference.cameras[frame].project(points_of(frame)).pixels[0]
        used = keypoints.weights[frame] > 0
        assert torch.equal(used, ((expected >= 0) & (expected <= 32)).all(-1))
        assert (keypoints.uv[frame] - expected)[used].norm(dim=-1).max() < 1e-2
        seen += int(used.sum())
    assert seen > 40
    assert torch.allclose(keypoints.ring_uv, scene.ring.cameras.project(points_of(0)).pixels, atol=1e-4)  # no lens


def test_test_videos_and_rings_have_lenses_of_their_own(folder: Path):
    """Points of the tiny scene, distorted by hand, come back; those of the reference stay."""
    expected = load_scene(folder)
    table = json.loads((folder / "transforms_test.json").read_text())
    K = torch.tensor([[table["fl_x"], 0, table["cx"]], [0, table["fl_y"], table["cy"]], [0, 0, 1]])
    numbers = np.array([-0.2, 0.05, 0, 0])

    def distorted(uv: np.ndarray) -> np.ndarray:
        rays = (torch.from_numpy(uv).double() - K[:2, 2]) / K.diagonal()[:2]
        at_one = torch.cat([rays, torch.ones_like(rays[..., :1])], dim=-1).reshape(-1, 3).numpy()
        found, _ = cv2.projectPoints(at_one, np.zeros(3), np.zeros(3), K.double().numpy(), numbers)
        return found.reshape(uv.shape)

    with np.load(folder / "keypoints.npz") as stored:
        arrays = dict(stored)
    arrays["uv"] = np.concatenate([arrays["uv"][:1], distorted(arrays["uv"][1:])])
    arrays["ring_uv"] = distorted(arrays["ring_uv"])
    np.savez(folder / "keypoints.npz", **arrays)
    for name in ("ring", "test"):
        edit(name, lambda table: table.update(camera_model="OPENCV", k1=-0.2, k2=0.05))(folder)
    found = load_scene(folder)
    assert torch.equal(found.keypoints.uv, expected.keypoints.uv)
    truth = expected.keypoints.truth
    ring = found.ring.cameras.project(truth[0]).pixels
    used = found.keypoints.ring_weights > 0
    assert used.sum() >= 15
    assert (found.keypoints.ring_uv - ring)[used].norm(dim=-1).max() < 1e-2
    for view in range(2):
        test = found.test.cameras[view * 4].project(truth).pixels[0]
        assert (found.keypoints.test_uv[view] - test)[found.keypoints.test_visible[view]].norm(dim=-1).max() < 1e-2


def test_flow_is_that_between_the_undistorted_images(through: tuple[Path, dict[str, Any]]):
    """The plane faces the camera: without a lens its flow is the same everywhere."""
    scene = load_scene(through[0])
    expected = scene.reference.cameras.Ks[0, 0, 0] * STEP / 2
    inner = scene.flow.flow[0, 6:-6, 6:-6]
    assert (inner[..., 0] - expected).abs().max() < 0.15
    assert (inner[..., 0] - expected).abs().mean() < 0.03
    assert inner[..., 1].abs().max() < 0.1
    assert (scene.flow.weights[0, 6:-6, 6:-6] > 0.9).all()


def test_the_log_says_that_distortion_was_undone(
    through: tuple[Path, dict[str, Any]], caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO, "kg4d"):
        load_scene(through[0])
    assert "transforms_train.json: lens distortion undone" in caplog.text


def test_what_the_view_cuts_off_is_told(folder: Path, caplog: pytest.LogCaptureFixture):
    image = np.full((16, 16, 4), 255, np.uint8)
    cv2.imwrite(str(folder / "train/r_001.png"), image)  # opaque up to its corners
    edit("train", lambda table: table.update(k1=0.8))(folder)
    (folder / "keypoints.npz").unlink()
    with caplog.at_level(logging.WARNING, "kg4d"):
        load_scene(folder)
    assert "images lose up to" in caplog.text


SAME: dict[str, Callable[[dict[str, Any]], Any]] = {
    "coefficients of 0": lambda table: table.update(camera_model="OPENCV", k1=0, k2=0.0, k3=0, k4=0, p1=0, p2=0.0),
    "a pinhole": lambda table: table.update(camera_model="PINHOLE"),
    "no fisheye": lambda table: table.update(is_fisheye=False, k1=0.0),
    "other keys of nerfstudio": lambda table: table.update(aabb_scale=4, applied_transform=[[1, 0, 0, 0]]),
    "intrinsics of twice the size": lambda table: table.update(
        {key: 2 * table[key] for key in ("w", "h", "fl_x", "fl_y", "cx", "cy")}
    ),
    "an angle, and twice the size": lambda table: (
        table.pop("fl_x"),
        table.pop("fl_y"),
        table.update(w=32, h=32, cx=16, cy=16),
    ),
    "a width alone": lambda table: (
        table.update(w=32, fl_x=2 * table["fl_x"], cx=16, cy=16),
        table.pop("h"),
        table.pop("fl_y"),
    ),
    "intrinsics of half the size in an entry": lambda table: set_frame(
        1, w=8, h=8, fl_x=table["fl_x"] / 2, fl_y=table["fl_y"] / 2, cx=4, cy=4
    )(table),
}


@pytest.mark.parametrize("name", SAME)
def test_what_says_the_same_reads_the_same(folder: Path, name: str):
    expected = load_scene(folder)
    edit("train", SAME[name])(folder)
    assert_same(load_scene(folder), expected, atol=1e-5)


def without_size(**keys: float) -> Callable[[dict[str, Any]], Any]:
    return lambda table: (table.pop("w"), table.pop("h"), table.update(keys))


WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], str, str]] = {
    "an unknown model": (
        lambda t: t.update(camera_model="FTHETA"),
        "camera_model",
        "'FTHETA' is not known (known models: PINHOLE,",
    ),
    "a model that is no name": (lambda t: t.update(camera_model=3), "camera_model", "3 is not known"),
    "in an entry": (set_frame(1, camera_model="EQUIRECTANGULAR"), "frames[1].camera_model", "'EQUIRECTANGULAR' is not"),
    "panorama": (lambda t: t.update(latlong=True), "latlong", "is not known"),
    "f-theta": (lambda t: t.update(ftheta_p0=0.0), "ftheta_p0", "is not known"),
    "a pinhole that bends": (lambda t: t.update(camera_model="PINHOLE", k1=0.1), "k1", "PINHOLE does not have"),
    "k4 of two meanings": (
        lambda t: t.update(k4=0.1),
        "k4",
        "OPENCV does not have (name its camera_model: FULL_OPENCV",
    ),
    "a coefficient that is none": (lambda t: t.update(k1="x"), "k1", "finite number"),
    "NaN": (lambda t: t.update(p2=math.nan), "p2", "finite number"),
    "no inverse": (lambda t: t.update(k1=-2.0), "transforms_train.json", "cannot be undone over images of 16 x 16"),
    "the principal point of twice the size": (
        without_size(cx=16, cy=16),
        "cx, cy",
        "like those of 32 x 32 (give w and h",
    ),
    "of half the size": (without_size(cx=4, cy=4), "cx, cy", "like those of 8 x 8"),
    "the focal length of twice the size": (
        lambda t: (without_size(fl_x=2 * t["fl_x"])(t), t.pop("cx"), t.pop("cy")),
        "fl_x",
        "those of images 32 px wide",
    ),
    "w and h of the full size, the rest of the images": (
        lambda t: t.update(w=32, h=32),
        "cx, cy",
        "lies far from the middle",
    ),
    "another shape": (lambda t: t.update(w=32, h=24), "w", "is 32 and h 24, the images are 16 x 16"),
    "w of 0": (lambda t: t.update(w=0), "w", "must be positive"),
}


@pytest.mark.parametrize("name", WRONG)
def test_intrinsics_that_cannot_be_right_are_refused(folder: Path, name: str):
    change, where, words = WRONG[name]
    edit("train", change)(folder)
    with pytest.raises(InputError) as caught:
        load_scene(folder)
    assert str(caught.value.where).endswith(where)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_principal_point_of_a_crop_is_believed(folder: Path, caplog: pytest.LogCaptureFixture):
    edit("train", lambda table: table.update(cx=2.0))(folder)
    with caplog.at_level(logging.WARNING, "kg4d"):
        scene = load_scene(folder)
    assert scene.reference.cameras.Ks[0, 0, 2] == 2
    assert "the principal point lies far from the middle" in caplog.text
