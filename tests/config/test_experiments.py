"""The files that people start from name only keys and values that exist."""

from functools import cache
from pathlib import Path

import pytest
import yaml

from kg4d.config.load import Run, expand, load_config, packaged_configs, to_yaml
from kg4d.config.schema import ExperimentConfig
from kg4d.deform.settings import DeformationKind
from kg4d.errors import InputError
from kg4d.runs.folder import RunFolder
from kg4d.sweeps.points import points_of
from kg4d.sweeps.settings import SweepConfig
from kg4d.sweeps.sources import with_held_out_frames
from kg4d.utils.plain import plain

ROOT = Path(__file__).resolve().parents[2]
SWEEPS = [ROOT / "experiments/sweep_wgf.yaml"]  # of W&B
OWN_SWEEPS = sorted(set((ROOT / "experiments").glob("sweep_*.yaml")) - set(SWEEPS))
EXPERIMENTS = sorted(set((ROOT / "experiments").glob("*.yaml")) - set(SWEEPS) - set(OWN_SWEEPS))


PRESETS = {  # what moves the Gaussians, and the losses beside the one on the images
    "base": (DeformationKind.HSE, {"kfc", "wgf", "rigidity", "bones"}),
    "paper": (DeformationKind.HSE, {"kfc", "wgf"}),
    "kg4d": (DeformationKind.HSE, {"kfc", "wgf", "rigidity", "bones"}),
    "recommended": (DeformationKind.SKINNED, {"kfc", "rigidity"}),
    "hexplane_images": (DeformationKind.HEXPLANE, set()),
    "hexplane_flow": (DeformationKind.HEXPLANE, {"wgf"}),
    "hexplane_inputs": (DeformationKind.HEXPLANE, {"kfc", "wgf", "rigidity", "bones"}),
    "hexplane_joint": (DeformationKind.HEXPLANE, set()),
    "hexplane_rigid": (DeformationKind.HEXPLANE, {"rigidity"}),
    "control_points_images": (DeformationKind.CONTROL_POINTS, set()),
    "4dgs": (DeformationKind.SKINNED, {"kfc", "rigidity"}),
    "rooms": (DeformationKind.HSE, set()),
    "deformable3dgs": (DeformationKind.HSE, set()),
    "4dgaussians": (DeformationKind.HEXPLANE, set()),
    "flag4d": (DeformationKind.FLAG4D, set()),
    "flag4d_paper": (DeformationKind.FLAG4D, set()),
}
FORMER = {"dg4d", "gaussianflow", "sc4d"}  # names that only lead to others


@cache
def preset(name: str) -> ExperimentConfig:
    return load_config(ExperimentConfig, packaged_configs() / f"{name}.yaml")


def settings(tree: object, prefix: str = "") -> dict[str, object]:
    """The leaves of nested settings, by their dotted keys."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {key: leaf for name, value in tree.items() for key, leaf in settings(value, f"{prefix}.{name}").items()}


def test_every_preset_is_described_here():
    assert {path.stem for path in packaged_configs().glob("*.yaml")} == set(PRESETS) | FORMER


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_motion_and_its_losses(name: str):
    config, (kind, losses) = preset(name), PRESETS[name]
    assert config.deformation.kind is kind
    assert {loss for loss in ("kfc", "wgf", "rigidity", "bones") if getattr(config, loss).weight > 0} == losses


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"base"}))
def test_a_preset_is_the_one_it_extends_but_for_the_lines_that_it_writes(name: str):
    written = yaml.safe_load((packaged_configs() / f"{name}.yaml").read_text())
    parent = preset(Path(written.pop("extends")).stem)
    expected, found = settings(plain(parent)) | settings(written), settings(plain(preset(name)))
    assert {key: found[key] for key in found if found[key] != expected[key]} == {}


def test_presets_take_over_what_they_share():
    assert preset("hexplane_flow").deformation == preset("hexplane_images").deformation
    assert preset("paper").deformation.hse != preset("kg4d").deformation.hse
    assert preset("paper").wgf.variant is not preset("kg4d").wgf.variant


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_being_written_down(name: str, tmp_path: Path):
    (tmp_path / "written.yaml").write_text(to_yaml(preset(name)))
    assert load_config(ExperimentConfig, tmp_path / "written.yaml") == preset(name)


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


@pytest.mark.parametrize("path", OWN_SWEEPS, ids=lambda path: path.stem)
def test_our_own_sweeps_set_keys_and_values_that_exist(path: Path):
    sweep = load_config(SweepConfig, path).sweep
    points = points_of(sweep) or {
        end: [f"{key}={getattr(one, end)}" for key, one in sweep.parameters.items()] for end in ("low", "high")
    }
    runs = expand(ExperimentConfig, path, variants=points, without="sweep")
    assert {run.config.name for run in runs} == {path.stem}
    assert len({RunFolder.of(run.config).path for run in runs}) == len(runs) >= len(points)
    if sweep.searches:
        with_held_out_frames(runs)
