"""What a fit shows of itself while it goes on: lines in its log, and in W&B, read back from what that has written."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from kg4d.data.spans import Span
from kg4d.data.videos import read_clip
from kg4d.pipeline import fit
from tests.offline_runs import OfflineRun, keep_wandb_in, offline_runs
from tests.tiny_runs import tiny

ROOT = Path(__file__).parents[2]
SHOWN = (
    *("tracking.wandb.mode=offline", "trainer.progress_bar=true", "trainer.preview_every=20", "image_size=64"),
    *("static.steps=22", "dynamic.steps=22", "export.formats=[mp4]"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        keep_wandb_in(tmp_path_factory.mktemp("home"), patch)
        return fit(tiny(tmp_path_factory.mktemp("runs"), *SHOWN))


@pytest.fixture(scope="module")
def run(folder: Path) -> OfflineRun:
    (found,) = offline_runs(folder)
    return found


def values_of(run: OfflineRun, name: str) -> dict[int, Any]:
    """What was logged under a name, by step over all stages."""
    return {row["_step"]: row[name] for row in run.history if name in row}


def file_of(folder: Path, run: OfflineRun, name: str) -> Path:
    (files,) = folder.glob("wandb/offline-run-*/files")
    return files / list(values_of(run, f"{name}.path").values())[-1]


def test_runs_can_be_told_apart_and_grouped(run: OfflineRun) -> None:
    assert (run.group, run.job_type, run.name, run.exit_code) == ("kg4d", "fit", "full/seed0", 0)
    config = run.config
    assert (config["variant"], config["scene"], config["seed"]) == ("full", "synthetic:walker", 0)
    assert config["protocol"] == config["evaluation"]["protocol"] == "gltf4d"
    assert len(config["git_commit"]) >= 40


def test_every_metric_is_in_the_charts_and_in_the_summary(folder: Path, run: OfflineRun) -> None:
    reached = json.loads((folder / "metrics.json").read_text())
    assert {"test/psnr", "test/ssim", "train/psnr", "keypoints/error_3d"} <= reached["metrics"].keys()
    last = run.history[-1]["_step"]
    for key, value in reached["metrics"].items():
        assert values_of(run, key) == {last: value}
        assert run.summary[key] == value
    table = json.loads(file_of(folder, run, "per_view").read_text())
    assert table["columns"] == ["view", *reached["per_view"]]
    assert [row[0] for row in table["data"]] == [0, 1, 2, 3]
    assert [row[1:] for row in table["data"]] == [list(row) for row in zip(*reached["per_view"].values(), strict=True)]


@pytest.mark.parametrize("stage", ["static", "dynamic", "refine"])
def test_rates_and_held_out_views_are_curves_over_steps(run: OfflineRun, stage: str) -> None:
    logged = values_of(run, f"{stage}/psnr")
    drawn = values_of(run, f"{stage}/renders_per_second")
    assert drawn.keys() <= logged.keys()
    assert all(value > 0 for value in drawn.values())
    groups = {name for row in run.history for name in row if name.startswith(f"{stage}/learning_rate/")}
    assert groups
    held_out = values_of(run, f"{stage}/test_psnr")
    assert len(held_out) == (1 if stage == "refine" else 2)  # preview_every, and the end
    assert held_out.keys() <= logged.keys() | {step - 1 for step in values_of(run, f"preview/{stage}.path")}
    if stage == "static":  # rates fall, and drawing for people is no step
        rates = list(values_of(run, "static/learning_rate/means").values())
        assert rates == sorted(rates, reverse=True)
        assert rates[0] > rates[-1] > 0


def test_the_last_curve_point_agrees_with_the_metrics(run: OfflineRun) -> None:
    """A few images spread over all test views: near the mean over all."""
    assert list(values_of(run, "refine/test_psnr").values())[-1] == pytest.approx(run.summary["test/psnr"], abs=1.5)


def test_videos_pictures_histograms_and_points(folder: Path, run: OfflineRun) -> None:
    for view in ("reference", "test_0"):
        assert len(values_of(run, f"compared/{view}.path")) == 2
        clip = read_clip(file_of(folder, run, f"compared/{view}"), Span(100)).frames[..., :3]
        bar = clip.shape[1] - 64
        assert (clip.shape[0], clip.shape[2], bar) == (16, 3 * 64, 16)
        predicted, truth, error = clip[:, bar:].split(64, dim=2)
        assert ((predicted - truth).abs() - error).abs().mean() < 0.03
        assert clip[:, :bar].mean() < 0.4  # dark, with letters
        assert clip[:, :bar].max() > 0.7
    assert len(values_of(run, "keypoints/dynamic.path")) == 2
    for stage in ("static", "dynamic", "refine"):
        edges = list(values_of(run, f"opacities/{stage}.bins").values())[-1]
        counts = list(values_of(run, f"opacities/{stage}.values").values())[-1]
        assert 0 < min(edges) < max(edges) < 1
        assert sum(counts) == json.loads((folder / "run.json").read_text())["gaussians"]
    cloud = json.loads(file_of(folder, run, "points/last_frame").read_text())
    points = torch.tensor(cloud)
    assert points.shape[1] == 6
    assert 0 < len(points) <= 300
    assert points[:, 3:].min() >= 0
    assert points[:, 3:].max() <= 255


def test_the_log_has_a_line_each_tenth(folder: Path) -> None:
    """pytest's stdout is no terminal."""
    lines = [
        line.partition("INFO ")[2] for line in (folder / "log.txt").read_text().splitlines() if " elapsed, " in line
    ]
    assert len([line for line in lines if "static " in line]) == 10
    assert any("dynamic  100 %  step 22 of 22  loss " in line for line in lines)


def test_the_documentation_names_what_is_there(run: OfflineRun) -> None:
    page = (ROOT / "docs/tracking.md").read_text()
    named = {key for row in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE) for key in re.findall(r"`(.*?)`", row)}
    logged = {name.partition(".")[0] for row in run.history for name in row}
    assert len(named) > 15
    for key in named - {"table"}:
        pattern = (
            re.escape(key).replace("<stage>", "(static|dynamic|refine)").replace("<group>", ".+").replace("…", ".+")
        )
        assert any(re.fullmatch(pattern, name) for name in logged), key


@pytest.mark.slow
def test_nothing_of_it_changes_the_fit(folder: Path, tmp_path: Path) -> None:
    unseen = [word for word in SHOWN if not word.startswith(("tracking", "trainer"))]
    quiet = fit(tiny(tmp_path, *unseen))
    assert " elapsed, " not in (quiet / "log.txt").read_text()
    assert (quiet / "metrics.csv").read_bytes() == (folder / "metrics.csv").read_bytes()
    one, other = (json.loads((path / "metrics.json").read_text())["metrics"] for path in (quiet, folder))
    assert one == other
    assert not list((quiet / "previews").glob("*.mp4"))
