from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kg4d.data.scene import load_scene
from kg4d.errors import InputError

pycolmap = pytest.importorskip("pycolmap")

CAMERA = "OPENCV", 24, 18, [20.0, 21.0, 12.5, 8.5, -0.03, 0.01, 0.001, -0.002]


def rotation(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])


def model(camera: tuple = CAMERA, count: int = 5) -> "pycolmap.Reconstruction":
    name, width, height, params = camera
    made = pycolmap.Reconstruction()
    made.add_camera_with_trivial_rig(
        pycolmap.Camera(model=name, width=width, height=height, params=params, camera_id=1)
    )
    for index in range(count):
        matrix = np.hstack([rotation(0.1 * index), np.array([[0.1 * index], [0.0], [3.0]])])
        image = pycolmap.Image(name=f"frame_{index}.png", camera_id=1, image_id=index + 1)
        made.add_image_with_trivial_frame(image, pycolmap.Rigid3d(matrix))
    for point in np.random.default_rng(0).normal(size=(50, 3)):
        made.add_point3D(point, pycolmap.Track(), np.array([255, 0, 51], dtype=np.uint8))
    return made


def stored(root: Path, made: "pycolmap.Reconstruction", text: bool = False) -> Path:
    folder = root / "room" / "sparse" / "0"
    folder.mkdir(parents=True)
    (made.write_text if text else made.write_binary)(str(folder))
    (root / "room" / "images").mkdir()
    for image in made.images.values():
        pixels = np.random.default_rng(image.image_id).integers(0, 256, (18, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "room" / "images" / image.name)
    return root / "room"


@pytest.mark.parametrize("text", [False, True])
def test_text_and_binary_models_are_the_same_scene(tmp_path: Path, text: bool):
    scene = load_scene(stored(tmp_path, model(("PINHOLE", 24, 18, [20.0, 21.0, 12.5, 8.5])), text))
    assert scene.backdrop
    assert scene.reference.images.shape == (5, 18, 24, 4)
    assert scene.reference.times.tolist() == [0, 0.25, 0.5, 0.75, 1]
    expected = torch.tensor([[20.0, 0, 12.5], [0, 21, 8.5], [0, 0, 1]])
    assert torch.allclose(scene.reference.cameras.Ks[2], expected)
    point = np.array([0.2, -0.1, 0.4])
    local = rotation(0.2) @ point + np.array([0.2, 0, 3.0])
    pixel = np.array([20 * local[0] / local[2] + 12.5, 21 * local[1] / local[2] + 8.5])
    seen = scene.reference.cameras[2].project(torch.from_numpy(point).float()).pixels[0]
    assert np.allclose(seen.numpy(), pixel, atol=1e-4)
    assert scene.points is not None
    assert scene.points.points.shape == (50, 3)
    assert torch.allclose(scene.points.colors[0], torch.tensor([1.0, 0.0, 0.2]))


def test_distortion_is_undone_and_frames_are_held_out(tmp_path: Path):
    root = stored(tmp_path, model())
    (root / "test.txt").write_text("frame_1.png\nframe_3.png\n")
    scene = load_scene(root)
    assert len(scene.reference) == 3
    assert scene.test is not None
    assert scene.test.times.tolist() == [0.25, 0.75]
    focal = scene.reference.cameras.Ks[0, 0, 0]
    assert not torch.isclose(focal, torch.tensor(20.0))


def test_a_frame_that_is_left_out_leaves_a_gap_and_numbers_count(tmp_path: Path):
    made = model(("PINHOLE", 24, 18, [20.0, 21.0, 12.5, 8.5]), count=3)
    for key, number in {1: 10, 2: 2, 3: 4}.items():
        made.images[key].name = f"frame_{number}.png"
    scene = load_scene(stored(tmp_path, made))
    assert scene.reference.times.tolist() == [0, 0.25, 1]
    assert torch.allclose(scene.reference.cameras.viewmats[:, 0, 3], torch.tensor([0.1, 0.2, 0.0]))


def test_faults_name_their_place(tmp_path: Path):
    root = stored(tmp_path, model())
    (root / "test.txt").write_text("frame_9.png\n")
    with pytest.raises(InputError, match="frame_9.png, which the model has not"):
        load_scene(root)
    (root / "test.txt").unlink()
    (root / "images" / "frame_2.png").unlink()
    with pytest.raises(InputError, match=r"frame_2.png: no such file"):
        load_scene(root)
    (root / "sparse/0/points3D.bin").unlink()
    with pytest.raises(InputError, match="points3D.bin: no such file"):
        load_scene(root)


def test_what_is_no_model_is_an_error(tmp_path: Path):
    root = stored(tmp_path, model())
    (root / "sparse/0/images.bin").write_bytes(b"\xff" * 40)
    with pytest.raises(InputError, match="sparse/0"):
        load_scene(root)
    (tmp_path / "other").mkdir()
    other = stored(tmp_path / "other", model(("FOV", 24, 18, [20.0, 20.0, 12.0, 9.0, 0.1])))
    with pytest.raises(InputError, match="FOV is not known"):
        load_scene(other)


def test_points_behind_all_cameras_are_refused(tmp_path: Path):
    made = model(count=3)
    for number in list(made.points3D):
        made.points3D[number].xyz = np.array([0.0, 0.0, -50.0])
    with pytest.raises(InputError, match="behind all cameras"):
        load_scene(stored(tmp_path, made))


def test_a_camera_with_nan_is_refused(tmp_path: Path):
    root = stored(tmp_path, model(count=3), text=True)
    images = root / "sparse/0/images.txt"
    lines = images.read_text().splitlines()
    at = next(index for index, line in enumerate(lines) if line.endswith("frame_1.png"))
    fields = lines[at].split()
    lines[at] = " ".join([*fields[:5], "nan", *fields[6:]])
    images.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError):
        load_scene(root)


def test_images_of_another_shape_than_their_camera_are_refused(tmp_path: Path):
    root = stored(tmp_path, model(count=3))
    for file in (root / "images").iterdir():
        Image.fromarray(np.zeros((24, 24, 3), np.uint8)).save(file)
    with pytest.raises(InputError, match="the images are 24 x 24"):
        load_scene(root)


def test_an_image_whose_camera_is_missing_is_refused(tmp_path: Path):
    root = stored(tmp_path, model(count=3), text=True)
    cameras = root / "sparse/0/cameras.txt"
    cameras.write_text("".join(line for line in cameras.read_text().splitlines(True) if line.startswith("#")))
    with pytest.raises(InputError):
        load_scene(root)
