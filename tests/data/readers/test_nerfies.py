import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from kg4d.data.normalisation import Normalisation, normalisation_of
from kg4d.data.scene import load_scene
from kg4d.data.sizes import Size
from kg4d.data.studies.world import moved, turn
from kg4d.errors import InputError
from kg4d.fit import main, parser
from kg4d.geometry.sampling import pixel_centers
from kg4d.utils.cli import run

SIZE = (24, 18)
FOCAL, CENTER = 20.0, (12.5, 8.5)


def rotation(azimuth: float) -> np.ndarray:
    """World to camera, OpenCV axes: looks at the origin from `azimuth` degrees."""
    c, s = math.cos(math.radians(azimuth)), math.sin(math.radians(azimuth))
    return np.array([[c, 0, -s], [0, -1, 0], [-s, 0, -c]])


def position(azimuth: float) -> np.ndarray:
    return 3 * np.array([math.sin(math.radians(azimuth)), 0.0, math.cos(math.radians(azimuth))])


def camera(azimuth: float, **other: Any) -> dict[str, Any]:
    return {
        "orientation": rotation(azimuth).tolist(),
        "position": position(azimuth).tolist(),
        "focal_length": FOCAL,
        "principal_point": list(CENTER),
        "skew": 0.0,
        "pixel_aspect_ratio": 1.0,
        "radial_distortion": [0.0, 0.0, 0.0],
        "tangential_distortion": [0.0, 0.0],
        "image_size": list(SIZE),
    } | other


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def picture(path: Path, index: int, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(index).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five training images, the third of which comes first in the list, and two held-out ones of another camera."""
    root, times = tmp_path / "room", {"left_2": 2, "left_0": 0, "left_1": 1, "left_3": 3, "left_4": 4}
    times |= {"right_1": 1, "right_3": 3}
    train, val = [name for name in times if "left" in name], ["right_1", "right_3"]
    write(root / "dataset.json", {"count": 7, "train_ids": train, "val_ids": val, "ids": [*train, *val]})
    write(root / "metadata.json", {name: {"warp_id": time, "camera_id": 0} for name, time in times.items()})
    for name, time in times.items():
        write(root / "camera" / f"{name}.json", camera(10.0 * time + (5 if "right" in name else 0)))
        picture(root / "rgb" / "1x" / f"{name}.png", time + 100 * ("right" in name))
    points = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    np.save(root / "points.npy", points)
    return root


def change(name: str, **entries: Any) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        table = json.loads((root / name).read_text())
        write(root / name, table | entries)

    return apply


def test_the_video_is_in_the_order_of_time_and_keeps_its_shape(folder: Path):
    scene = load_scene(folder)
    assert scene.backdrop
    assert scene.reference.images.shape == (5, 18, 24, 4)
    assert scene.reference.times.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert scene.reference.frames.tolist() == [0, 1, 2, 3, 4]
    assert scene.test is not None
    assert scene.test.times.tolist() == [0.25, 0.75]
    assert scene.test.frames.tolist() == [1, 3]
    third = np.array(Image.open(folder / "rgb/1x/left_2.png"))
    assert torch.equal((scene.reference.images[2, ..., :3] * 255).round().int(), torch.from_numpy(third).int())


def test_cameras_project_as_the_layout_says(folder: Path):
    cameras = load_scene(folder).reference.cameras
    point = np.array([0.3, -0.2, 0.5])
    local = rotation(20.0) @ (point - position(20.0))
    expected = FOCAL * local[:2] / local[2] + np.array(CENTER)
    assert np.allclose(cameras[2].project(torch.from_numpy(point).float()).pixels[0].numpy(), expected, atol=1e-4)


def test_a_smaller_size_has_the_cameras_of_its_pixels(folder: Path):
    whole, small = load_scene(folder).reference, load_scene(folder, 12).reference
    assert small.images.shape == (5, 9, 12, 4)
    assert (small.cameras.width, small.cameras.height) == (12, 9)
    point = torch.tensor([0.1, 0.2, 0.3])
    assert torch.allclose(small.cameras.project(point).pixels * 2, whole.cameras.project(point).pixels, atol=1e-4)


def test_the_folder_of_smaller_images_is_read_where_it_is_large_enough(folder: Path):
    for name in ("left_0", "left_1", "left_2", "left_3", "left_4", "right_1", "right_3"):
        picture(folder / "rgb" / "2x" / f"{name}.png", 0, (12, 9))
    assert load_scene(folder).reference.images.shape[1:3] == (18, 24)
    half = load_scene(folder, 12).reference
    truth = np.array(Image.open(folder / "rgb/2x/left_0.png"))
    assert torch.equal((half.images[0, ..., :3] * 255).round().int(), torch.from_numpy(truth).int())
    assert torch.allclose(half.cameras.Ks[0, :2, 2], torch.tensor(CENTER) / 2)


def test_radial_and_tangential_distortion_is_undone(folder: Path):
    radial, tangential = [-0.05, 0.01, 0.0], [0.002, -0.001]
    for name in ("left_0", "left_1", "left_2", "left_3", "left_4", "right_1", "right_3"):
        bent = {"radial_distortion": radial, "tangential_distortion": tangential}
        change(f"camera/{name}.json", **bent)(folder)
    point = np.array([0.3, -0.2, 0.5])
    local = rotation(0.0) @ (point - position(0.0))
    K = np.array([[FOCAL, 0, CENTER[0]], [0, FOCAL, CENTER[1]], [0, 0, 1]])
    bend = np.array([*radial[:2], *tangential, radial[2]])
    seen, _ = cv2.projectPoints(local[None], np.zeros(3), np.zeros(3), K, bend)
    blob = np.zeros((18, 24), np.float32)
    blob[int(seen[0, 0, 1]), int(seen[0, 0, 0])] = 1
    Image.fromarray((blob * 255).astype(np.uint8)).convert("RGB").save(folder / "rgb/1x/left_0.png")
    scene = load_scene(folder).reference
    weights = scene.images[0, ..., 0]
    rows, columns = torch.meshgrid(torch.arange(18) + 0.5, torch.arange(24) + 0.5, indexing="ij")
    found = torch.stack([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()
    expected = scene.cameras[0].project(torch.from_numpy(point).float()).pixels[0]
    assert torch.allclose(found, expected, atol=0.8)  # a pixel of the file, and no more
    assert not torch.allclose(scene.cameras.Ks[0, 0, 0], torch.tensor(FOCAL))


def test_points_and_regions(folder: Path):
    for name in ("right_1", "right_3"):
        mask = np.zeros((18, 24), np.uint8)
        mask[:6] = 255
        path = folder / "resized_mask" / "1x" / f"{name}.png.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - mask).save(path)  # what moves is black
    scene = load_scene(folder)
    assert scene.points is not None
    assert scene.points.points.shape == (200, 3)
    assert scene.regions["dynamic"][:, :6].all()
    assert not scene.regions["dynamic"][:, 6:].any()
    assert load_scene(folder, 12).regions["dynamic"].shape == (2, 9, 12)


def test_a_turned_room_is_the_same_to_the_fit(folder: Path):
    scene = load_scene(folder)
    other = moved(scene, turn((1, 2, 3), 70.0), 2.5, (1, -2, 3))
    here, there = (normalisation_of(each).scene(each) for each in (scene, other))
    assert scene.points is not None
    assert torch.allclose(here.points.points, there.points.points, atol=1e-4)
    assert torch.allclose(here.reference.cameras.viewmats, there.reference.cameras.viewmats, atol=1e-4)


def test_truth_is_in_the_order_of_time_and_of_the_images_size(folder: Path):
    assert load_scene(folder).truth is None
    depth = np.arange(1.0, 6.0)[:, None, None] * np.ones((5, 18, 24))
    depth[1, 0, 0] = 0
    flow = np.zeros((4, 2, 18, 24), np.float16)
    flow[:, 0], flow[:, 1] = 2, -4
    valid = np.ones((4, 18, 24), bool)
    valid[:, :9] = False
    (folder / "gt/mask").mkdir(parents=True)
    np.savez(folder / "gt/depth.npz", depth=depth.astype(np.float16))
    np.savez(folder / "gt/flow.npz", flow=flow, valid=valid)
    for index in range(5):
        mask = np.zeros((18, 24), np.uint8)
        mask[:, : 4 * index] = 255
        Image.fromarray(mask).save(folder / f"gt/mask/left_{index}.png")
    truth = load_scene(folder, 12).truth
    assert truth is not None
    assert truth.depth is not None
    assert truth.flow is not None
    assert truth.moving is not None
    assert torch.equal(truth.depth.depth, (torch.arange(1.0, 6.0))[:, None, None].expand(5, 9, 12))
    assert float(truth.depth.weights[1, 0, 0]) < 1
    assert float(truth.depth.weights[1, 5, 5]) == 1
    assert torch.allclose(truth.flow.flow[:, -1, -1], torch.tensor([1.0, -2.0]))
    assert float(truth.flow.weights[:, :3].max()) == 0
    assert float(truth.flow.weights[:, -3:].min()) == 1
    assert truth.moving.float().mean((1, 2)).tolist() == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6, 4 / 6])
    np.savez(folder / "gt/depth.npz", depth=depth[:3])
    with pytest.raises(InputError, match="T = 5"):
        load_scene(folder)


def behind(root: Path) -> None:
    np.save(root / "points.npy", np.full((4, 3), 100.0, np.float32))


def without_camera(root: Path) -> None:
    (root / "camera/left_3.json").unlink()


ERRORS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no camera": (without_camera, "left_3.json", "no such file"),
    "NaN camera": (change("camera/left_1.json", position=[0, math.nan, 1]), "left_1.json: position", "finite"),
    "no rotation": (
        change("camera/left_1.json", orientation=[[1, 0, 0], [0, 2, 0], [0, 0, 1]]),
        "left_1.json: orientation",
        "scales",
    ),
    "skewed": (change("camera/left_1.json", skew=0.1), "left_1.json: skew", "upright"),
    "another size": (lambda root: picture(root / "rgb/1x/left_1.png", 0, (20, 18)), "left_1.png", "20 x 18"),
    "all of another size": (
        lambda root: [picture(file, 0, (48, 36)) for file in (root / "rgb/1x").iterdir()],
        "left_0.json: image_size",
        "says 24 x 18, but left_0.png is 48 x 36 in 1x",
    ),
    "all of another shape": (
        lambda root: [picture(file, 0, (24, 24)) for file in (root / "rgb/1x").iterdir()],
        ".json",
        "24 x 24",
    ),
    "held-out ones of another size": (
        lambda root: [picture(root / f"rgb/1x/right_{index}.png", 0, (48, 36)) for index in (1, 3)],
        "right_1.json: image_size",
        "right_1.png is 48 x 36",
    ),
    "one camera of another size": (
        change("camera/left_3.json", image_size=[26, 20]),
        "left_3.json: image_size",
        "says 26 x 20",
    ),
    "infinite focal length": (
        change("camera/left_1.json", focal_length=math.inf),
        "left_1.json: focal_length",
        "finite",
    ),
    "NaN in a rotation": (
        change("camera/left_1.json", orientation=[[1, 0, 0], [0, math.nan, 0], [0, 0, 1]]),
        "left_1.json: orientation",
        "finite",
    ),
    "a frame without a camera": (
        change("dataset.json", train_ids=["left_0", "left_1", "left_9"]),
        "metadata.json: left_9",
        "is missing",
    ),
    "NaN points": (
        lambda root: np.save(root / "points.npy", np.full((4, 3), np.nan, np.float32)),
        "points.npy",
        "not finite",
    ),
    "in both lists": (
        change("dataset.json", val_ids=["left_1", "right_1"]),
        "dataset.json: train_ids",
        "'left_1' is in val_ids too",
    ),
    "no time": (change("metadata.json", left_1={}), "metadata.json: left_1.warp_id", "finite number"),
    "the same time twice": (change("metadata.json", left_1={"warp_id": 2}), "train_ids", "the same time"),
    "no image": (lambda root: (root / "rgb/1x/left_4.png").unlink(), "left_4.png", "no such file"),
    "points behind all cameras": (behind, "points.npy", "behind all cameras"),
    "a path as an id": (change("dataset.json", train_ids=["../left_1", "left_2"]), "dataset.json", "names of images"),
    "no images at all": (lambda root: (root / "rgb/1x").rename(root / "rgb/none"), "rgb", "no folder"),
    "near beyond far": (
        lambda root: write(root / "scene.json", {"scale": 1.0, "near": 2.0, "far": 1.0}),
        "scene.json",
        "near < far",
    ),
    "no far": (
        lambda root: write(root / "scene.json", {"scale": 1.0, "near": 2.0}),
        "scene.json: far",
        "finite number",
    ),
    "one frame": (change("dataset.json", train_ids=["left_1"]), "dataset.json: train_ids", "fewer than two"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_every_failure_is_one_line_that_names_the_place(folder: Path, name: str):
    damage, where, words = ERRORS[name]
    damage(folder)
    with pytest.raises(InputError) as caught:
        load_scene(folder)
    assert where in str(caught.value).split(": ")[0] + ": " + str(caught.value).split(": ")[1]
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ERRORS)
def test_a_fit_ends_with_status_2_and_that_line(
    folder: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
):
    ERRORS[name][0](folder)
    config = str(Path(__file__).parents[3] / "experiments/flag4d.yaml")
    words = [
        "image_size=16",
        "tracking.wandb.mode=disabled",
        "trainer.progress_bar=false",
        f"output={tmp_path / 'runs'}",
    ]
    assert run(main, parser(), ["--config", config, f"scene={folder}", *words]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("kg4d: error:")]
    assert len(lines) == 1
    assert ERRORS[name][2] in lines[0]
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["fox_walk", "man_room"])
def test_true_keypoints_lie_where_the_held_out_camera_sees_them(data_root: Path, name: str):
    scene = load_scene(data_root / "mono4d" / name)
    truth = np.load(data_root / "mono4d" / name / "gt/keypoints.npz")
    assert scene.test is not None
    for frame in range(0, 60, 20):
        pixels = scene.test.cameras[frame].project(torch.from_numpy(truth["xyz"][frame]).float()).pixels[0]
        given = torch.from_numpy(truth["uv"][1, frame]).float()
        if name == "fox_walk":  # without distortion the images stay as they are
            assert torch.allclose(pixels, given, atol=1e-3)
        mask, visible = scene.regions["dynamic"][frame], torch.from_numpy(truth["visible"][1, frame])
        inside = (pixels[visible].long().clamp(min=0) < torch.tensor([240, 180])).all(-1)
        x, y = pixels[visible][inside].long().unbind(-1)
        assert mask[y, x].float().mean() > 0.9


def test_a_pair_is_width_and_height_and_stretches_cameras_with_images(folder: Path):
    whole, small = load_scene(folder), load_scene(folder, Size(16, 9))
    assert small.reference.images.shape == (5, 9, 16, 4)
    assert small.test is not None
    assert small.test.images.shape == (2, 9, 16, 4)
    point = torch.tensor([0.1, 0.2, 0.3])
    stretch = torch.tensor([24 / 16, 18 / 9])
    there = whole.reference.cameras.project(point).pixels
    assert torch.allclose(small.reference.cameras.project(point).pixels * stretch, there, atol=1e-4)
    assert torch.equal(whole.resized(Size(16, 9)).reference.images, small.reference.images)


def test_a_pair_needs_images_that_are_large_enough_along_both_sides(folder: Path):
    for name in ("left_0", "left_1", "left_2", "left_3", "left_4", "right_1", "right_3"):
        picture(folder / "rgb" / "2x" / f"{name}.png", 0, (12, 9))
    half = load_scene(folder, Size(12, 9)).reference
    truth = np.array(Image.open(folder / "rgb/2x/left_0.png"))
    assert torch.equal((half.images[0, ..., :3] * 255).round().int(), torch.from_numpy(truth).int())
    taller = load_scene(folder, Size(12, 10)).reference
    assert torch.equal(taller.images, load_scene(folder).resized(Size(12, 10)).reference.images)


def test_near_and_far_are_in_the_world_of_the_cameras(folder: Path):
    assert load_scene(folder).depth_range is None
    write(folder / "scene.json", {"scale": 0.5, "center": [0, 0, 0]})
    assert load_scene(folder).depth_range is None
    write(folder / "scene.json", {"scale": 0.5, "center": [0, 0, 0], "near": 0.75, "far": 2.0})
    scene = load_scene(folder)
    assert scene.depth_range == (1.5, 4.0)
    larger = moved(scene, None, 2.5)
    assert larger.depth_range == (3.75, 10.0)
    found, same = normalisation_of(scene), normalisation_of(larger)
    assert found.depth_range is not None
    assert same.depth_range is not None
    assert found.depth_range == pytest.approx((1.5 / found.unit, 4.0 / found.unit))
    assert same.depth_range == pytest.approx(found.depth_range)
    assert Normalisation.from_state(json.loads(json.dumps(found.state()))).depth_range == found.depth_range


@pytest.mark.parametrize("bounds", [[3.0, 1.0], [1.0], "near", [0.0, 1.0], [math.nan, 2.0]])
def test_a_damaged_range_of_depths_is_refused(folder: Path, bounds: object):
    state = normalisation_of(load_scene(folder)).state() | {"depth_range": bounds}
    with pytest.raises((ValueError, TypeError)):
        Normalisation.from_state(state)


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["fox_walk", "man_room"])
def test_true_depth_and_flow_agree_with_the_cameras(data_root: Path, name: str):
    """What stands still is seen by the next camera where the flow says; man_room has a lens."""
    scene = load_scene(data_root / "mono4d" / name, 120)
    truth, video = scene.truth, scene.reference
    assert truth is not None
    assert truth.depth is not None
    assert truth.flow is not None
    assert truth.moving is not None
    assert truth.depth.depth.shape == truth.moving.shape == video.images.shape[:3]
    centers = pixel_centers(*video.images.shape[1:3])
    for frame in (0, 25, 58):
        points = video.cameras[frame].unproject(centers[None], truth.depth.depth[frame][None])[0]
        there = video.cameras[frame + 1].project(points).pixels[0]
        counts = (truth.flow.weights[frame] > 0.99) & ~truth.moving[frame]
        apart = (there - centers - truth.flow.flow[frame]).norm(dim=-1)[counts]
        assert float(apart.median()) < 0.02
    assert 0.03 < float(truth.moving.float().mean()) < 0.2
    assert scene.depth_range is not None
    near, far = scene.depth_range
    assert near < float(truth.depth.depth.min())
    assert far > float(truth.depth.depth.max())
