"""Sweeps of real fits of a second."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from kg4d import fit as fit_command
from kg4d import sweep as sweep_command
from kg4d.config.load import load_config
from kg4d.config.schema import ExperimentConfig
from kg4d.data.images import write_png
from kg4d.data.scene_writer import write_scene
from kg4d.data.synthetic.scene import make_scene
from kg4d.render.build import build_renderer
from kg4d.utils.cli import run
from tests.sweeps.tiny_jobs import QUICK
from tests.tiny_runs import ROOT

SEARCH = {
    "method": "optuna",
    "trials": 4,
    "early_stopping": True,
    "reports": 2,
    "parameters": {"kfc.weight": {"low": 1, "high": 1000, "log": True}},
}


def write(folder: Path, sweep: dict[str, object], **more: object) -> Path:
    path = folder / "sweep_it.yaml"
    extends = str(ROOT / "experiments/kg4d.yaml")
    path.write_text(yaml.safe_dump({"extends": extends, "name": "it", "sweep": sweep, **more}))
    return path


def sweep(path: Path, output: Path, *words: str) -> int:
    return run(sweep_command.main, sweep_command.parser(), ["--config", str(path), *QUICK, f"output={output}", *words])


def test_a_grid_is_fitted_once_compared_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, {"parameters": {"kfc.weight": {"values": [1, 10]}}}, scenes=["synthetic:walker"])
    assert sweep(path, tmp_path, "--list") == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["to", "to"]
    assert sweep(path, tmp_path, "--jobs", "2") == 0
    above = tmp_path / "it"
    runs = [above / "walker" / f"kfc-weight-{weight}" / "seed0" for weight in (1, 10)]
    assert [load_config(ExperimentConfig, run / "config.yaml").kfc.weight for run in runs] == [1, 10]
    with (above / "pareto.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["point"] for row in rows} == {"kfc-weight-1", "kfc-weight-10"}
    assert {row["gaussians"] for row in rows} == {"60.0"}
    assert (above / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((above / "table.json").read_text())["variants"] == ["kfc-weight-1", "kfc-weight-10"]

    shutil.rmtree(runs[0])  # of two one is left to do
    before = (runs[1] / "log.txt").read_text()
    capsys.readouterr()
    assert sweep(path, tmp_path) == 0
    printed = capsys.readouterr().out
    assert "1 of 2 fits are done" in printed
    assert (runs[0] / "metrics.json").is_file()
    assert (runs[1] / "log.txt").read_text() == before


@pytest.mark.parametrize(
    ("sweep_", "words", "message"),
    [
        (
            {"parameters": {"kfc.weight": {"values": [1]}}},
            ["kfc.weight=3"],
            "command line: kfc.weight: is what the sweep",
        ),
        ({"parameters": {"kfc.weight": {"values": [1]}}}, ["variants={a: []}"], "variants: a sweep makes its own"),
        ({"parameters": {"kfc.wieght": {"values": [1]}}}, [], "kfc.wieght: unknown key .did you mean `kfc.weight`"),
        (SEARCH, [], "frames.hold_out: a search judges by frames that the fit does not see"),
        (SEARCH, ["frames.hold_out=2", "dynamic.data.test_views=true"], "a search must not see test views"),
        (None, [], "sweep: is missing"),
    ],
)
def test_what_cannot_be_swept_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sweep_: dict[str, object], words: list[str], message: str
) -> None:
    path = write(tmp_path, sweep_)
    if any(word.startswith("frames") for word in words) or sweep_ is SEARCH:
        pytest.importorskip("optuna")
    assert sweep(path, tmp_path, *words) == 2

    assert re.search(message, capsys.readouterr().err)


def test_a_fit_does_not_take_the_file_of_a_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, {"parameters": {"kfc.weight": {"values": [1]}}})
    assert run(fit_command.main, fit_command.parser(), ["--config", str(path)]) == 2
    assert "sweep: is for python -m kg4d.sweep" in capsys.readouterr().err


def decisions(above: Path) -> list[dict[str, object]]:
    """What a search knows and has decided: all that its file holds, but for times and ids of processes."""
    kept = []
    for line in (above / "search.log").read_text().splitlines():
        entry = json.loads(line)
        kept.append({key: value for key, value in entry.items() if "datetime" not in key and key != "worker_id"})
    return kept


@pytest.mark.slow
def test_a_search_decides_the_same_whatever_the_test_views_show(tmp_path: Path) -> None:
    """As they are, turned into noise, and taken away: not a digit of what the search is told changes."""
    pytest.importorskip("optuna")
    scene = make_scene("walker", build_renderer("cpu"), size=24, frames=6)
    seen = []
    for change in ("as they are", "noise", "none"):
        folder, output = tmp_path / change / "walker", tmp_path / change / "runs"
        write_scene(scene, folder)
        files = json.loads((folder / "transforms_test.json").read_text())
        if change == "noise":
            for number, frame in enumerate(files["frames"]):
                noise = torch.rand(24, 24, 4, generator=torch.Generator().manual_seed(number))
                write_png(folder / f"{frame['file_path']}.png", noise)
        if change == "none":
            (folder / "transforms_test.json").unlink()
        path = write(tmp_path / change, SEARCH, scene=str(folder), seeds=[0, 1])
        assert sweep(path, output, "frames.hold_out=2") == 0
        told = decisions(output / "it")
        seen.append(json.dumps(told).replace(str(output), ""))
    assert '"test' not in seen[0]
    assert seen[0] == seen[1] == seen[2]
    states = [entry["state"] for entry in told if "state" in entry]
    assert len(states) == 4
    assert len(set(states)) == 2  # some were given up


def test_a_search_that_was_cut_short_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    path = write(tmp_path, {**SEARCH, "trials": 2, "early_stopping": False})
    words = ["frames.hold_out=2"]
    assert sweep(path, tmp_path, *words) == 0
    log = tmp_path / "it" / "search.log"
    lines = log.read_text().splitlines()
    told = [number for number, line in enumerate(lines) if '"values"' in line]
    log.write_text("\n".join(lines[: told[-1]]) + "\n")  # the second point has begun, and is not told of
    shutil.rmtree(tmp_path / "it" / "trial001")
    assert sweep(path, tmp_path, *words) == 0
    names = sorted(path.parent.parent.name for path in (tmp_path / "it").glob("*/seed0/metrics.json"))
    assert names == ["trial000", "trial001"]
    assert sweep(path, tmp_path, *words) == 0
    assert sorted(path.name for path in (tmp_path / "it").glob("trial*")) == names
