"""The whole method at tiny size: what a run leaves behind, that it is repeatable, and that it survives a stop."""

import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from kg4d import evaluate
from kg4d import fit as fit_command
from kg4d.cli import run
from kg4d.config.load import expand, load_config
from kg4d.config.schema import ExperimentConfig
from kg4d.data.images import write_png
from kg4d.errors import InputError
from kg4d.export import __main__ as export_command
from kg4d.loaded import evaluate_run, export_run, load_run
from kg4d.pipeline import fit
from kg4d.runs import RunFolder
from kg4d.stages.base import Stage

ROOT = Path(__file__).parents[1]
TINY = (
    "image_size=32",
    "gaussians.count=150",
    "gaussians.hull_resolution=24",
    "static.steps=6",
    "dynamic.steps=6",
    "refine.steps=2",
    "wgf.random_pixels=16",
    "rigidity.samples=50",
    "rigidity.neighbours=4",
    "trainer.progress_bar=false",
    "trainer.checkpoint_every=2",
    "tracking.wandb.mode=disabled",
    "evaluation.networks=false",
    "export.formats=[ply]",
)


def tiny(output: Path, *overrides: str, file: str = "kg4d") -> ExperimentConfig:
    words = (*TINY, f"output={output}", *overrides)
    return expand(ExperimentConfig, ROOT / f"experiments/{file}.yaml", words)[0].config


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(tiny(tmp_path_factory.mktemp("runs")))


def test_a_run_leaves_what_the_contract_names(finished: Path) -> None:
    assert finished.parts[-3:] == ("kg4d", "full", "seed0")
    for name in ("config.yaml", "run.json", "metrics.json", "metrics.csv", "log.txt"):
        assert (finished / name).stat().st_size > 0, name
    assert {p.name for p in (finished / "checkpoints").iterdir()} == {
        "static.ckpt",
        "dynamic.ckpt",
        "refine.ckpt",
        "last.ckpt",
    }
    assert len(list((finished / "previews").glob("*.png"))) == 3
    assert len(list((finished / "export" / "ply").glob("*.ply"))) == 16
    metrics = json.loads((finished / "metrics.json").read_text())
    assert set(metrics) == {"metrics", "per_view", "protocol", "provenance"}
    for key in ("test/psnr", "test/psnr_masked", "test/ssim", "train/psnr", "train/ssim"):
        assert key in metrics["metrics"]
    for key in ("keypoints/pck_0.05", "keypoints/error_3d", "motion/flow_epe"):
        assert key in metrics["metrics"]
    assert len(metrics["per_view"]["test/psnr"]) == 4


def test_the_record_says_what_it_cost(finished: Path) -> None:
    record = json.loads((finished / "run.json").read_text())
    assert record["renderer"] in ("cpu", "reference")
    assert record["stages"]["static"]["renders"] == 6 * 4
    assert record["stages"]["dynamic"]["renders"] == 6 * 4
    for stage in record["stages"].values():
        parts = {name: s for name, s in stage["seconds"].items() if name != "total"}
        assert {"render", "losses", "backward", "optimizer", "loop"} <= set(parts)
        assert sum(parts.values()) <= stage["seconds"]["total"] * 1.001
    assert record["training"]["wall"] > record["training"]["renders_and_losses"] > 0
    assert sum(record["seconds"].get(k, 0) for k in ("setup", "evaluation", "export")) < record["seconds"]["total"]


def test_the_same_seed_gives_the_same_metrics_and_another_does_not(finished: Path, tmp_path: Path) -> None:
    again = fit(tiny(tmp_path))
    assert (again / "metrics.json").read_bytes() == (finished / "metrics.json").read_bytes()
    other = fit(tiny(tmp_path, "seed=1"))
    assert (other / "metrics.json").read_bytes() != (finished / "metrics.json").read_bytes()


def test_a_run_read_back_measures_the_same(finished: Path, tmp_path: Path) -> None:
    before = (finished / "metrics.json").read_bytes()
    evaluate_run(finished)
    assert (finished / "metrics.json").read_bytes() == before
    loaded = load_run(finished)
    assert loaded.keypoints(torch.tensor([0.0, 0.5])).shape == (2, 14, 3)
    written = export_run(finished, loaded.config.export.formats, tmp_path / "out")
    assert len(list(written["ply"][0].glob("*.ply"))) == 16


def stop_after(steps: int, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """Send this process SIGTERM in the middle of that step."""
    original: Callable[..., Any] = Stage.training_step

    def step(self: Stage[Any], batch: Any, batch_idx: int) -> None:
        original(self, batch, batch_idx)
        if self.name == stage and batch.step == steps - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Stage, "training_step", step)


@pytest.mark.parametrize(("stage", "steps"), [("static", 3), ("dynamic", 5)])
def test_a_stopped_run_goes_on_to_the_same_result(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, steps: int
) -> None:
    with monkeypatch.context() as patch:
        stop_after(steps, patch, stage)
        with pytest.raises(KeyboardInterrupt):
            fit(tiny(tmp_path))
    assert not (RunFolder.of(tiny(tmp_path)).metrics).exists()
    resumed = fit(tiny(tmp_path), resume=True)
    assert (resumed / "metrics.json").read_bytes() == (finished / "metrics.json").read_bytes()


def test_resuming_with_another_configuration_is_refused(finished: Path) -> None:
    config = tiny(finished.parents[2], "static.steps=7")
    with pytest.raises(InputError, match=r"config\.yaml"):
        fit(config, resume=True)
    assert (finished / "metrics.json").exists()


def test_a_finished_run_is_not_fitted_again(finished: Path) -> None:
    before = (finished / "checkpoints/static.ckpt").stat().st_mtime_ns
    fit(tiny(finished.parents[2]), resume=True)
    assert (finished / "checkpoints/static.ckpt").stat().st_mtime_ns == before


EXPERIMENTS = sorted(p.stem for p in (ROOT / "experiments").glob("*.yaml") if not p.stem.startswith("sweep"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_file_runs(name: str, tmp_path: Path) -> None:
    words: Sequence[str] = (
        *TINY,
        f"output={tmp_path}",
        "static.steps=2",
        "dynamic.steps=2",
        "refine.steps=1",
        "seed=3",
    )
    runs = expand(ExperimentConfig, ROOT / f"experiments/{name}.yaml", words)
    for one in runs:
        folder = fit(one.config)
        assert json.loads((folder / "metrics.json").read_text())["metrics"]["test/psnr"] > 5
        assert load_config(ExperimentConfig, folder / "config.yaml") == one.config


def test_both_doors_of_the_evaluation_give_the_same_numbers(finished: Path, tmp_path: Path) -> None:
    """A run, and its renders saved as any method would save them."""
    loaded = load_run(finished)
    test = loaded.scene.test
    assert test is not None
    rendered = loaded.fitted.render(test.cameras, test.times)
    for index in range(len(test)):
        name = f"v{int(test.views[index])}_{int(test.frames[index]):03d}.png"
        write_png(tmp_path / "pred" / name, rendered[index].clamp(0, 1))
        write_png(tmp_path / "target" / name, test.images[index])
    out = tmp_path / "folders.json"
    words = ["--pred", str(tmp_path / "pred"), "--target", str(tmp_path / "target"), "--out", str(out), "--no-networks"]
    assert run(evaluate.main, evaluate.parser(), words) == 0
    by_folder = json.loads(out.read_text())
    by_run = json.loads((finished / "metrics.json").read_text())
    for key in ("test/psnr", "test/psnr_masked", "test/ssim"):
        assert by_folder["metrics"][key] == pytest.approx(by_run["metrics"][key], abs=1e-5), key
        assert by_folder["per_view"][key] == pytest.approx(by_run["per_view"][key], abs=1e-5), key


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--pred", "a"],
        ["--run", "a", "--pred", "b", "--target", "c"],
        ["--run", "a", "--out", "b"],
        ["--run", "nowhere"],
        ["--pred", "nowhere", "--target", "nowhere"],
    ],
)
def test_wrong_evaluations_are_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(evaluate.main, evaluate.parser(), words) == 2
    assert capsys.readouterr().err.startswith("kg4d: error: ")


def test_wrong_exports_are_one_line(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--run", str(finished), "--format", "obj"], ["--run", "nowhere", "--format", "ply"]):
        assert run(export_command.main, export_command.parser(), words) == 2
        assert capsys.readouterr().err.startswith("kg4d: error: ")


def test_variants_end_in_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(ROOT / "experiments/ablation_wgf.yaml")
    words = ["--config", config, f"output={tmp_path}", *TINY, "seeds=[0, 1]", "static.steps=2", "dynamic.steps=2"]
    assert run(fit_command.main, fit_command.parser(), words) == 0
    above = tmp_path / "ablation_wgf"
    rows = json.loads((above / "table.json").read_text())["rows"]
    assert {row["variant"] for row in rows} == {"full", "no_wgf", "no_wgf_kfc"}
    assert {row["seeds"] for row in rows} == {2}
    assert "no_wgf_kfc" in (above / "table.md").read_text()
    assert (above / "table.csv").read_text().startswith("metric,")
    assert str(above / "no_wgf" / "seed1") in capsys.readouterr().out
