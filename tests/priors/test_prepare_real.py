"""Real pictures and videos, through the commands."""

import json
from pathlib import Path

import pytest
import torch

from kg4d.data.scene import load_scene
from kg4d.utils.files import cache_folder
from tests.priors.commands import fitted, prepared, tiny_video, tiny_views

pytestmark = [pytest.mark.realdata, pytest.mark.slow]

ROBOT = {  # pixels of the first frame, by eye
    "names": ["chest", "head", "left_hand", "right_hand", "left_foot", "right_foot"],
    "parents": [-1, "chest", "chest", "chest", "chest", "chest"],
    "uv": [[249, 225], [241, 170], [357, 102], [152, 285], [344, 426], [185, 426]],
}


@pytest.fixture(autouse=True)
def inputs(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where they are; the cache folder is new, with the weights of the old one."""
    weights, cache = cache_folder() / "weights", tmp_path / "cache"
    cache.mkdir()
    if weights.is_dir():
        (cache / "weights").symlink_to(weights)
    monkeypatch.setenv("KG4D_CACHE", str(cache))
    return data_root / "inputs"


def covered(alphas: torch.Tensor) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what any frame covers."""
    rows, columns = alphas[..., 0].gt(0.5).any(0).nonzero().T
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


@pytest.mark.parametrize("name", ["dancing_robot_fg", "blooming_rose_fg"])
def test_a_video(name: str, inputs: Path, tmp_path: Path) -> None:
    source = inputs / f"videos/{name}.mp4"
    assert prepared(source, tmp_path / "scene", "framing.size=96", "keypoints.count=12", "frames=6") == 0
    scene = load_scene(tmp_path / "scene")
    left, top, right, bottom = covered(scene.reference.alphas)
    assert max(right - left, bottom - top) == pytest.approx(0.8 * 96, abs=2)
    assert (left + right) / 2 == pytest.approx(48, abs=2)
    assert (top + bottom) / 2 == pytest.approx(48, abs=2)
    assert scene.keypoints is not None
    inside = scene.reference.alphas[0, ..., 0][scene.keypoints.uv[0, :, 1].long(), scene.keypoints.uv[0, :, 0].long()]
    assert (inside > 0.5).all()
    assert scene.flow is not None
    assert (scene.flow.weights[0] > 0.5).sum() > 0.5 * (scene.reference.alphas[0] > 0.5).sum()
    if name == "blooming_rose_fg":
        return  # one fit is enough
    assert fitted("video_to_4d", tmp_path / "scene", tmp_path / "runs", "static.steps=30") == 0
    metrics = json.loads((tmp_path / "runs/video_to_4d/full/seed0/metrics.json").read_text())["metrics"]
    assert metrics["train/psnr"] > 12


def test_a_video_with_keypoints_that_somebody_marked(inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "k.json").write_text(json.dumps(ROBOT))
    source = inputs / "videos/dancing_robot_fg.mp4"
    words = [f"priors.keypoints.path={tmp_path / 'k.json'}", "priors.frames=5", "priors.framing.size=96"]
    assert fitted("video_to_4d", source, tmp_path / "runs", *words) == 0
    [folder] = list((tmp_path / "cache/priors/scenes").iterdir())
    keypoints = load_scene(folder).keypoints
    assert keypoints is not None
    assert keypoints.names == tuple(ROBOT["names"])
    chest, head, left_hand, right_hand = keypoints.uv[0, :4]
    assert head[1] < chest[1] < right_hand[1]
    assert right_hand[0] < chest[0] < left_hand[0]
    feet = keypoints.uv[:, 4:]
    assert (feet - feet[:1]).norm(dim=-1).max() < 0.06 * 96  # they stand still while it dances


def test_an_image(inputs: Path, tmp_path: Path, svd_folder: Path, zero123_folder: Path) -> None:
    source = inputs / "images/catstatue_rgba.png"
    assert prepared(source, tmp_path / "scene", *tiny_video(svd_folder), *tiny_views(zero123_folder)) == 0
    record = json.loads((tmp_path / "scene/scene.json").read_text())
    assert {"video-diffusion", "views-zero123"} < set(record["cache_keys"])
    scene = load_scene(tmp_path / "scene")
    assert len(scene.reference) == 3
    left, top, right, bottom = covered(scene.reference.alphas[:1])
    assert max(right - left, bottom - top) == pytest.approx(0.8 * 32, abs=2)
    assert fitted("image_to_4d", tmp_path / "scene", tmp_path / "runs", f"guidance.model={zero123_folder}") == 0
