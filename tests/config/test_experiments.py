"""The files that people start from name only keys and values that exist."""

from pathlib import Path

import pytest
import yaml

from kg4d.config.load import Run, expand, load_config, packaged_configs
from kg4d.config.schema import ExperimentConfig
from kg4d.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
SWEEPS = sorted((ROOT / "experiments").glob("sweep_*.yaml"))
EXPERIMENTS = sorted(set((ROOT / "experiments").glob("*.yaml")) - set(SWEEPS))


@pytest.mark.parametrize("path", sorted(packaged_configs().glob("*.yaml")), ids=lambda path: path.stem)
def test_presets_load(path: Path):
    assert isinstance(load_config(ExperimentConfig, path), ExperimentConfig)


@pytest.mark.parametrize(
    ("old", "new"), [("dg4d", "hexplane_images"), ("gaussianflow", "hexplane_flow"), ("sc4d", "control_points_images")]
)
def test_old_names_of_presets_say_what_they_are(old: str, new: str, caplog: pytest.LogCaptureFixture):
    folder = packaged_configs()
    read = [load_config(ExperimentConfig, folder / f"{name}.yaml") for name in (old, new)]
    assert read[0] == read[1]
    [record] = caplog.records
    assert f"this is now called {new}" in record.getMessage()
    assert "without its score distillation" in record.getMessage()


@pytest.mark.parametrize("name", ["", "../x", "/abs", "a b", "a/b", "."])
def test_a_name_leads_nowhere_else(name: str):
    with pytest.raises(InputError, match=r"name: .* cannot be a folder name"):
        load_config(ExperimentConfig, None, [f"name='{name}'"])


def test_presets_are_found_from_anywhere(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text("extends: kg4d.yaml\nseed: 3\n")
    preset = load_config(ExperimentConfig, ROOT / "configs" / "kg4d.yaml", ["seed=3"])
    assert load_config(ExperimentConfig, tmp_path / "mine.yaml") == preset


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_experiments_expand_to_runs_in_folders_of_their_own(path: Path):
    runs: list[Run[ExperimentConfig]] = expand(ExperimentConfig, path)
    runs_of_files = [(run.config.name, run.variant, run.seed) for run in runs]
    assert len(set(runs_of_files)) == len(runs_of_files) >= 1
    assert {run.config.name for run in runs} == {path.stem}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_sweeps_drive_fit_by_keys_and_values_that_exist(path: Path):
    sweep = yaml.safe_load(path.read_text())
    words = sweep["command"]
    assert words[:4] == ["${env}", "${interpreter}", "-m", "${program}"]
    assert sweep["program"] == "kg4d.fit"
    assert words[-1] == "${args_no_hyphens}"
    config = ROOT / words[words.index("--config") + 1]
    given = words[words.index("--config") + 2 : -1]
    origin = [f"{key}={choice['values'][0]}" for key, choice in sweep["parameters"].items()]
    for key, choice in sweep["parameters"].items():  # along each axis from the first point
        axis = [expand(ExperimentConfig, config, [*given, *origin, f"{key}={value}"]) for value in choice["values"]]
        assert [len(runs) for runs in axis] == [1] * len(axis), "one fit per point"
        folders = {(run.config.output, run.config.name, run.variant, run.seed) for [run] in axis}
        assert len(folders) == len(axis), "a folder per fit"
