"""The files in experiments/: each runs, and variants end in one table."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from kg4d import fit as fit_command
from kg4d.config.load import expand, load_config
from kg4d.config.schema import ExperimentConfig
from kg4d.pipeline import fit
from kg4d.runs.read_back import load_run
from kg4d.utils.cli import run
from tests.tiny_runs import ROOT, TINY, blank_psnr, lifted_briefly, tiny

# tests/priors/test_prepare.py runs those that begin with a file, *_to_4d; tests/runs/test_animated.py that of a motion
EXPERIMENTS = sorted(
    p.stem
    for p in (ROOT / "experiments").glob("*.yaml")
    if not p.stem.startswith("sweep") and not p.stem.endswith(("_to_4d", "_and_motion"))
)


def assert_they_run(name: str, output: Path, variants: slice) -> None:
    words: Sequence[str] = (
        *TINY,
        f"output={output}",
        "static.steps=2",
        "dynamic.steps=2",
        "refine.steps=1",
        "seed=3",
    )
    blank = None
    for one in expand(ExperimentConfig, ROOT / f"experiments/{name}.yaml", words)[variants]:
        config = lifted_briefly(one.config)
        folder = fit(config)
        metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
        scene = load_run(folder).scene
        blank = blank or blank_psnr(scene.test)
        # without a ring novel views are a guess, and places begin faint
        assert metrics["test/psnr"] > blank + (1 if config.frames.ring and not scene.backdrop else 0.3)
        assert load_config(ExperimentConfig, folder / "config.yaml") == config


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_file_runs(name: str, tmp_path: Path) -> None:
    assert_they_run(name, tmp_path, slice(1))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name.startswith("ablation")])
def test_so_do_all_variants(name: str, tmp_path: Path) -> None:
    assert_they_run(name, tmp_path, slice(1, None))


@pytest.mark.parametrize("words", [["dynamic.data.test_views=true"], ["refine.data.frames.test_views=true"], []])
def test_the_record_of_metrics_says_whether_test_views_were_trained_on(words: list[str], tmp_path: Path) -> None:
    folder = fit(tiny(tmp_path, "static.steps=2", "dynamic.steps=2", "wgf.weight=0", *words))
    provenance = json.loads((folder / "metrics.json").read_text())["provenance"]
    assert provenance["trained_on_test_views"] is bool(words)


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


@pytest.mark.slow
def test_a_run_with_other_settings_stays_out_of_the_table(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = str(ROOT / "experiments/ablation_wgf.yaml")
    words = ["--config", config, f"output={tmp_path}", *TINY, "seed=0", "static.steps=2", "dynamic.steps=2"]
    for more in (["--variant", "no_wgf", "image_size=40"], ["--variant", "full"]):
        assert run(fit_command.main, fit_command.parser(), [*words, *more]) == 0
    assert json.loads((tmp_path / "ablation_wgf/table.json").read_text())["variants"] == ["full"]
    assert "no_wgf" in caplog.text
