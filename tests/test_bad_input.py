"""A wrong input is one line and exit status 2; what is optional may be missing, and the log says so."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kg4d.data.scene_writer import write_scene
from kg4d.data.synthetic.scene import make_scene
from kg4d.fit import main, parser
from kg4d.render.build import build_renderer
from kg4d.utils.cli import run

ROOT = Path(__file__).parents[1]
TINY = (
    "gaussians.count=80",
    "gaussians.hull_resolution=24",
    "image_size=32",
    "static.steps=2",
    "dynamic.steps=2",
    "refine.steps=1",
    "rigidity.neighbours=4",
    "rigidity.samples=20",
    "trainer.progress_bar=false",
    "tracking.wandb.mode=disabled",
    "evaluation.networks=false",
    "export.formats=[]",
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "walker"
    write_scene(make_scene("walker", build_renderer("cpu"), size=32, frames=4), folder)
    return folder


def call(scene: object, tmp_path: Path, *words: str) -> int:
    config = str(ROOT / "experiments/kg4d.yaml")
    return run(main, parser(), ["--config", config, f"scene={scene}", f"output={tmp_path / 'runs'}", *TINY, *words])


def edit_json(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_arrays(path: Path, **changes: Callable[[np.ndarray], np.ndarray]) -> None:
    with np.load(path) as stored:
        arrays = dict(stored)
    for name, change in changes.items():
        arrays[name] = change(arrays[name])
    np.savez(path, **arrays)


def shrink_an_image(scene: Path) -> None:
    path = next((scene / "train").glob("*.png"))
    with Image.open(path) as image:
        image.resize((20, 20)).save(path)


def put_camera_inside(content: dict) -> None:
    for frame in content["frames"]:
        for row in range(3):
            frame["transform_matrix"][row][3] *= 0.01


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no video": (lambda s: (s / "transforms_train.json").unlink(), "transforms_train.json"),
    "half a json": (lambda s: (s / "transforms_train.json").write_text('{"frames": ['), "transforms_train.json"),
    "no frames": (lambda s: edit_json(s / "transforms_train.json", lambda c: c["frames"].clear()), "frames"),
    "one frame": (
        lambda s: edit_json(s / "transforms_train.json", lambda c: c["frames"].__delitem__(slice(1, 9))),
        "frame",
    ),
    "no images": (lambda s: shutil.rmtree(s / "train"), "train"),
    "sizes differ": (shrink_an_image, "train"),
    "camera inside": (lambda s: edit_json(s / "transforms_train.json", put_camera_inside), "camera"),
    "nan keypoints": (lambda s: edit_arrays(s / "keypoints.npz", uv=lambda a: a * np.nan), "keypoints.npz"),
    "half a test video": (lambda s: edit_json(s / "transforms_test.json", lambda c: c["frames"].pop()), "frames"),
    "flow of another size": (lambda s: edit_arrays(s / "flow.npz", flow=lambda a: a[:, :-3]), "flow.npz"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_scene_is_one_line(name: str, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken, says = BROKEN[name]
    scene = Path(shutil.copytree(sound, tmp_path / "scene"))
    broken(scene)
    assert call(scene, tmp_path) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("kg4d: error: ")
    assert says in lines[-1]
    assert not any("Traceback" in line for line in lines)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["wgf.wieght=1"], "wgf.weight"),
        (["kfc.mode=heat"], "kfc.mode"),
        (["static.steps=many"], "static.steps"),
        (["scene=synthetic:walrus"], "walker"),
        (["scene=synthetic:walker#many"], "number of frames"),
        (["dynamic.data.windows.frames=8", "dynamic.data.windows.overlap=8"], "overlap"),
        (["keypoints.count=99"], "keypoints.count"),
        (["dynamic.data.strides=[9]"], "strides"),
        (["evaluation.protocol=mine"], "gltf4d"),
        (["evaluation.metrics=[test/psnr, test/psrn]"], "test/psrn"),
        (["static.steps=-1"], "static.steps"),
        (["image_size=4"], "image_size"),
        (["background=[1.0]"], "background"),
        (["--variant", "half"], "half"),
        (["gaussians.count=4"], "rigidity.neighbours"),
        (["kfc.temperature=0"], "kfc.temperature"),
        (["deformation.depth=0"], "deformation.depth"),
        (["deformation.hse.space_frequencies=[]", "deformation.hse.include_input=false"], "deformation"),
        (["static.density.start=0.9"], "static.density"),
        (["gaussians.initial_opacity=1"], "gaussians.initial_opacity"),
        (["renderer.threads=0"], "renderer.threads"),
        (["seed=-1"], "seed"),
    ],
)
def test_a_wrong_request_is_one_line(
    words: list[str], says: str, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(sound, tmp_path, *words) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("kg4d: error: ")
    assert says in line


def test_a_missing_scene_and_a_missing_file_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(tmp_path / "nowhere", tmp_path) == 2
    assert "nowhere" in capsys.readouterr().err
    (tmp_path / "odd").mkdir()
    assert call(tmp_path / "odd", tmp_path) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert all(part in line for part in ("odd", "known formats", "D-NeRF", "scene folder"))
    assert run(main, parser(), ["--config", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("absent", "says"),
    [
        (["keypoints.npz"], "keypoints"),
        (["flow.npz"], "flow"),
        (["transforms_ring.json"], "ring"),
        (["transforms_test.json"], "test"),
        (["keypoints.npz", "flow.npz", "transforms_ring.json", "transforms_test.json"], "keypoints"),
    ],
)
def test_what_is_optional_may_be_missing_and_the_log_says_so(
    absent: list[str], says: str, sound: Path, tmp_path: Path
) -> None:
    scene = Path(shutil.copytree(sound, tmp_path / "scene"))
    for name in absent:
        (scene / name).unlink()
    assert call(scene, tmp_path) == 0
    folder = tmp_path / "runs/kg4d/full/seed0"
    assert says in (folder / "log.txt").read_text()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert "train/psnr" in metrics["metrics"]
    if "transforms_test.json" in absent:
        assert "test/psnr" not in metrics["metrics"]
        assert "test/psnr" in metrics["provenance"]["skipped"]


def test_keypoints_that_the_ring_lacks_are_not_used(sound: Path, tmp_path: Path) -> None:
    """Without them nothing ties the features to the figure, and all keypoints would be its centre."""
    scene = Path(shutil.copytree(sound, tmp_path / "scene"))
    with np.load(scene / "keypoints.npz") as stored:
        arrays = {name: stored[name] for name in stored if not name.startswith("ring_")}
    np.savez(scene / "keypoints.npz", **arrays)
    assert call(scene, tmp_path, "dynamic.steps=12") == 0
    folder = tmp_path / "runs/kg4d/full/seed0"
    assert "ring_uv" in (folder / "log.txt").read_text()
    header, *rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    found = [float(row[header.index("dynamic/kfc")]) for row in rows if row[1] == "dynamic"]
    assert found
    assert set(found) == {0.0}


def test_test_videos_may_leave_frames_out(sound: Path, tmp_path: Path) -> None:
    scene = Path(shutil.copytree(sound, tmp_path / "scene"))
    edit_json(
        scene / "transforms_test.json",
        lambda c: c.update(frames=[frame for frame in c["frames"] if frame["frame_index"] % 2]),
    )
    assert call(scene, tmp_path) == 0
    metrics = json.loads((tmp_path / "runs/kg4d/full/seed0/metrics.json").read_text())
    assert "keypoints/pck_0.05" in metrics["metrics"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU that is asked for is here")
def test_a_renderer_that_cannot_work_here_is_one_line(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(sound, tmp_path, "renderer.kind=cuda") == 2
    assert "renderer.kind" in capsys.readouterr().err.strip().splitlines()[-1]
