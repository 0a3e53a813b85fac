"""Small scenes as people have brought them (`cases/` of the data): each is read rightly, or refused with the reason."""

import logging
from pathlib import Path

import pytest
import torch

from kg4d.config.load import load_config
from kg4d.config.schema import ExperimentConfig
from kg4d.data.records import Scene
from kg4d.data.scene import load_scene
from kg4d.errors import InputError
from kg4d.runs.build import build_run

pytestmark = pytest.mark.realdata


@pytest.fixture(scope="module")
def cases(data_root: Path) -> Path:
    if not (data_root / "cases").is_dir():
        pytest.skip(f"no folder cases in {data_root}")
    return data_root / "cases"


def offset(scene: Scene) -> float:
    """Largest distance of a seen keypoint from the projection of its true position, px."""
    keypoints = scene.keypoints
    assert keypoints is not None
    assert keypoints.truth is not None
    frames = range(len(scene.reference))
    projected = [scene.reference.cameras[frame].project(keypoints.truth[frame]).pixels[0] for frame in frames]
    return float((torch.stack(projected) - keypoints.uv)[keypoints.weights > 0].norm(dim=-1).max())


def test_distortion_is_undone(cases: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its images were rendered without a lens, and its keypoints too: both move where the file says there is one."""
    with caplog.at_level(logging.INFO, "kg4d"):
        scene = load_scene(cases / "tf_opencv_distortion")
    assert "transforms_train.json: lens distortion undone" in caplog.text
    assert abs(float(scene.reference.cameras.Ks[0, 0, 0]) - 64.535) < 0.01  # 70.056 in the file
    plain = load_scene(cases / "tf_no_time")
    assert (scene.reference.images - plain.reference.images).abs().max() > 0.2
    assert torch.equal(scene.test.images, plain.test.images) if scene.test and plain.test else False
    assert 0.5 < offset(scene) < 1.5


def test_intrinsics_of_another_size_are_refused(cases: Path) -> None:
    with pytest.raises(InputError, match=r"train.json: cx, cy: \(64, 64\).* like those of 128 x 128 \(give w and h"):
        load_scene(cases / "tf_fl_of_full_size_no_wh")


def test_times_are_made_up_aloud(cases: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "kg4d"):
        scene = load_scene(cases / "tf_no_time")
    assert "no frame has a time: i / (N - 1) for the i-th of 8" in caplog.text
    assert torch.allclose(scene.reference.times, torch.linspace(0, 1, 8))
    assert offset(scene) < 1e-3


def test_a_lone_transforms_json_is_the_video(cases: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "kg4d"):
        scene = load_scene(cases / "tf_transforms_json_only")
    assert "transforms.json: read as the reference video" in caplog.text
    assert len(scene.reference) == 8
    assert offset(scene) < 1e-3


@pytest.mark.parametrize(
    ("start", "check"), [("auto", "have the same units"), ("ball", "check where the cameras look")]
)
def test_cameras_in_other_units_are_told(cases: Path, caplog: pytest.LogCaptureFixture, start: str, check: str) -> None:
    words = ["image_size=64", "gaussians.count=1000", f"gaussians.init={start}", "renderer.kind=cpu"]
    for name in ("tf_no_time", "tf_cameras_far_units"):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "kg4d"):
            build_run(load_config(ExperimentConfig, None, [f"scene={cases / name}", *words]))
        assert ("the first Gaussians cover" in caplog.text) == (name == "tf_cameras_far_units")
    assert "the first Gaussians cover 1 % of the reference's matte" in caplog.text
    assert check in caplog.text
