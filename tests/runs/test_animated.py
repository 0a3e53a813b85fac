"""Runs whose model is moved by another motion: a run folder like any other, and what may not matter."""

import json
from pathlib import Path

import pytest
import torch

from kg4d import animate as animate_command
from kg4d import report as report_command
from kg4d.comparison.finished import FinishedRun
from kg4d.config.load import load_config
from kg4d.config.schema import ExperimentConfig
from kg4d.data.images import write_png
from kg4d.formats.settings import ExportFormat, MotionConfig
from kg4d.pipeline import fit
from kg4d.runs.animated import animate
from kg4d.runs.outputs import export_run
from kg4d.runs.read_back import load_run
from kg4d.utils.cli import run
from tests.tiny_runs import ROOT, TINY, tiny

MOTION = ROOT / "experiments/motions/jumping_jack.bvh"
T = 24


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(tiny(tmp_path_factory.mktemp("runs"), file="recommended"))


@pytest.fixture(scope="module")
def jumping(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return animate(fitted, MotionConfig(str(MOTION)), tmp_path_factory.mktemp("animated") / "jumping")


def means(folder: Path, times: torch.Tensor) -> torch.Tensor:
    return torch.stack([state.means for state in load_run(folder).states(times)])


def test_the_result_is_a_run_like_any_other(fitted: Path, jumping: Path) -> None:
    before, after = load_run(fitted), load_run(jumping)
    assert len(after.scene.reference) == T
    assert after.config.export.fps == 12
    names = after.scene.keypoints.names
    moved = after.keypoints(after.scene.reference.times)
    wrist, hip = names.index("left_wrist"), names.index("left_hip")
    up = moved[:, wrist, 1] - moved[:, hip, 1]
    assert up.argmax() == T // 2  # arms are up in the middle
    assert up.max() - up.min() > 0.4
    rest = before.states(torch.zeros(1))[0]
    state = after.states(torch.zeros(1))[0]
    assert torch.equal(state.opacities, rest.opacities)
    read = FinishedRun.read(jumping)
    assert read.record["animated"]["run"] == str(fitted)
    assert read.variant == "full-jumping_jack"
    assert set(read.metrics) == {"orbit/specks", "orbit/holes"}
    assert "no image shows" in read.provenance["skipped"]["train/psnr"]


def test_it_is_exported_and_reported(fitted: Path, jumping: Path, tmp_path: Path) -> None:
    made = export_run(jumping, [ExportFormat.TRACKS, ExportFormat.BVH, ExportFormat.PLY], tmp_path / "files")
    assert set(made) == {ExportFormat.TRACKS, ExportFormat.BVH, ExportFormat.PLY}
    table = json.loads((tmp_path / "files/tracks.json").read_text())
    assert len(table["xyz"]) == T
    words = ["--runs", str(fitted), str(jumping), "--out", str(tmp_path / "report")]
    assert run(report_command.main, report_command.parser(), words) == 0
    assert "jumping_jack" in (tmp_path / "report/report.html").read_text()


def test_its_own_motion_moves_it_as_it_moved(jumping: Path, tmp_path: Path) -> None:
    """By the frames of the run, by BVH and, but for twists that bones leave open, by JSON."""
    times = load_run(jumping).scene.reference.times
    expected = means(jumping, times)
    export_run(jumping, [ExportFormat.TRACKS, ExportFormat.BVH], tmp_path)
    for motion, tolerance in {jumping: 1e-3, tmp_path / "skeleton.bvh": 1e-3, tmp_path / "tracks.json": 0.05}.items():
        again = animate(jumping, MotionConfig(str(motion)), tmp_path / f"again_{motion.name}")
        found = load_run(again)
        torch.testing.assert_close(found.keypoints(times), load_run(jumping).keypoints(times), atol=5e-4, rtol=0)
        assert float((means(again, times) - expected).norm(dim=-1).max()) < tolerance


@pytest.mark.slow
def test_a_fitted_motion_comes_back_but_for_bones_that_stretch(fitted: Path, tmp_path: Path) -> None:
    one = load_run(fitted)
    times = one.scene.reference.times
    again = animate(fitted, MotionConfig(str(fitted)), tmp_path / "again")
    parents = torch.tensor(one.scene.keypoints.parents)
    ends = torch.nonzero(parents >= 0)[:, 0]
    joints = one.keypoints(times)
    lengths = (joints[:, ends] - joints[:, parents[ends]]).norm(dim=-1)
    stretch = float((lengths - lengths[:1]).abs().amax(0).sum())  # no joint is farther off than all bones together
    apart = (means(again, times) - means(fitted, times)).norm(dim=-1)
    assert float(apart.max()) < 2 * stretch
    assert float(apart[0].max()) < 1e-4  # both begin at rest


@pytest.mark.slow
def test_the_turn_and_the_size_of_a_motion_do_not_matter(jumping: Path, fitted: Path, tmp_path: Path) -> None:
    export_run(jumping, [ExportFormat.TRACKS], tmp_path)
    table = json.loads((tmp_path / "tracks.json").read_text())
    turn = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    table["xyz"] = (30 * torch.tensor(table["xyz"]) @ turn.mT + 5).tolist()
    table["names"] = [name.upper().replace("_", " ") for name in table["names"]]
    (tmp_path / "turned.json").write_text(json.dumps(table))
    times = load_run(jumping).scene.reference.times
    one = animate(fitted, MotionConfig(str(tmp_path / "tracks.json")), tmp_path / "one")
    other = animate(fitted, MotionConfig(str(tmp_path / "turned.json")), tmp_path / "other")
    torch.testing.assert_close(means(other, times), means(one, times), atol=2e-4, rtol=0)


def test_wrong_requests_are_one_line(
    fitted: Path, jumping: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fish.bvh").write_text(MOTION.read_text().replace("left_wrist", "left_fin"))
    unskinned = fit(tiny(tmp_path, "static.steps=1", "dynamic.steps=1", "refine.steps=0", file="kg4d"))
    out = str(tmp_path / "out")
    for words, said in {
        (str(fitted), str(tmp_path / "fish.bvh"), out): "no joint for the keypoints left_wrist",
        (str(fitted), str(tmp_path / "none.bvh"), out): "no such file",
        (str(fitted), str(MOTION), str(jumping)): "exists already",
        (str(unskinned), str(MOTION), out): "deformation.kind=skinned",
        (str(tmp_path), str(MOTION), out): "is not a run folder",
    }.items():
        request = ["--run", words[0], "--motion", words[1], "--out", words[2]]
        assert run(animate_command.main, animate_command.parser(), request) == 2
        line = capsys.readouterr().err
        assert said in line
        assert line.strip().splitlines()[-1].startswith("kg4d: error:")
        assert not Path(out).exists()
    request = ["--run", str(fitted), "--motion", str(tmp_path / "fish.bvh"), "--out", out, "--every", "2"]
    assert run(animate_command.main, animate_command.parser(), [*request, "--name", "left_wrist=left_fin"]) == 0
    assert len(load_run(out).scene.reference) == T // 2


def picture(tmp_path: Path) -> tuple[Path, Path]:
    """A picture of a walker, and its keypoints as a person would give them."""
    scene = load_run(fit(tiny(tmp_path, "static.steps=0", "dynamic.steps=0", "refine.steps=0", "image_size=64"))).scene
    write_png(tmp_path / "me.png", scene.reference.images[0])
    keypoints = scene.keypoints
    table = {
        "names": keypoints.names,
        "parents": keypoints.parents,
        "uv": keypoints.uv[:1].tolist(),
        "confidence": [[1.0] * len(keypoints.names)],
    }
    (tmp_path / "me.json").write_text(json.dumps(table))
    return tmp_path / "me.png", tmp_path / "me.json"


@pytest.mark.slow
def test_one_picture_and_a_motion_become_4d(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    image, keypoints = picture(tmp_path)
    folder = fit(
        tiny(
            tmp_path,
            f"scene={image}",
            f"priors.keypoints.path={keypoints}",
            f"priors.cache={tmp_path / 'cache'}",
            "static.steps=20",
            "dynamic.steps=0",
            "refine.steps=0",
            file="picture_and_motion",
        )
    )
    model = load_run(folder)
    assert len(model.scene.reference) == T
    moved = means(folder, model.scene.reference.times)
    assert float((moved - moved[:1]).norm(dim=-1).max()) > 0.2
    assert load_config(ExperimentConfig, folder / "config.yaml").motion.path


def test_the_experiment_file_runs_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = [word for word in TINY if not word.startswith(("dynamic.steps", "refine.steps"))]
    config = load_config(
        ExperimentConfig, ROOT / "experiments/picture_and_motion.yaml", [*words, f"output={tmp_path}", "static.steps=5"]
    )
    folder = fit(config)
    assert json.loads((folder / "metrics.json").read_text())["metrics"].keys() == {"orbit/specks", "orbit/holes"}
    assert fit(config, resume=True) == folder
