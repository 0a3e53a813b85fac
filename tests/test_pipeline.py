"""The whole method at tiny size: what a run leaves behind, that it is repeatable, and that it survives a stop."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kg4d import evaluate, pipeline
from kg4d import export as export_command
from kg4d.data.images import write_png
from kg4d.errors import InputError
from kg4d.formats.settings import ExportFormat
from kg4d.gaussians.model import GaussianModel
from kg4d.metrics.feature_networks import Networks
from kg4d.metrics.folders import read_folders
from kg4d.metrics.protocols import GLTF4D, get_protocol
from kg4d.metrics.suite import evaluate_grid
from kg4d.pipeline import fit
from kg4d.render.build import build_renderer
from kg4d.runs.build import build_run, build_run_representation
from kg4d.runs.folder import RunFolder
from kg4d.runs.measure import evaluate_model, evaluate_run
from kg4d.runs.outputs import export_run
from kg4d.runs.read_back import LoadedRun, load_run
from kg4d.stages.checkpoints import read_checkpoint
from kg4d.stages.dynamic import DynamicStage, MotionLosses
from kg4d.utils.cli import run
from tests import make
from tests.tiny_runs import blank_psnr, stages_of, stop_after, terms_of, tiny


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
    assert len(list(written[ExportFormat.PLY].paths[0].glob("*.ply"))) == 16


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


def test_natural_gradient_steps_go_on_after_a_stop_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("optimizer.kind=rpwgf", "optimizer.rpwgf.points=16", "optimizer.rpwgf.iterations=2")
    whole = fit(tiny(tmp_path / "whole", *words))
    motion = read_checkpoint(whole / "checkpoints/dynamic.ckpt")["optimizer_states"][0]["param_groups"][-1]
    assert (motion["name"], motion["taken"]) == ("motion", 6)
    with monkeypatch.context() as patch:
        stop_after(5, patch, "dynamic")
        with pytest.raises(KeyboardInterrupt):
            fit(tiny(tmp_path / "stopped", *words))
    resumed = fit(tiny(tmp_path / "stopped", *words), resume=True)
    assert (resumed / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()


def test_harmonics_go_on_after_a_stop_and_are_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("gaussians.sh_degree=2", "gaussians.sh_warmup=2", "static.density.start=0.5")
    whole = fit(tiny(tmp_path / "whole", *words))
    measured = (whole / "metrics.json").read_bytes()
    with monkeypatch.context() as patch:
        stop_after(5, patch, "static")
        with pytest.raises(KeyboardInterrupt):
            fit(tiny(tmp_path / "stopped", *words))
    resumed = fit(tiny(tmp_path / "stopped", *words), resume=True)
    assert (resumed / "metrics.json").read_bytes() == measured
    evaluate_run(whole)
    assert (whole / "metrics.json").read_bytes() == measured
    state = load_run(whole).states(torch.zeros(1))[0]
    assert state.harmonics is not None
    assert state.harmonics.shape == (150, 8, 3)
    assert (state.harmonics.detach().abs().amax((0, 2)) > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "steps"), [("carry", 2), ("dynamic", 5)])
def test_gaussians_that_were_carried_go_on_after_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, steps: int
) -> None:
    words = ("representation.spacetime.carry_steps=4", "deformation.kind=skinned", "rigidity.weight=1")
    whole = fit(tiny(tmp_path / "whole", *words, file="4dgs"))
    assert [*stages_of(whole)] == ["static", "carry", "dynamic", "refine"]
    with monkeypatch.context() as patch:
        stop_after(steps, patch, stage)
        with pytest.raises(KeyboardInterrupt):
            fit(tiny(tmp_path / "stopped", *words, file="4dgs"))
    resumed = fit(tiny(tmp_path / "stopped", *words, file="4dgs"), resume=True)
    measured = (whole / "metrics.json").read_bytes()
    assert (resumed / "metrics.json").read_bytes() == measured
    evaluate_run(whole)
    assert (whole / "metrics.json").read_bytes() == measured


@pytest.mark.slow
def test_windows_of_a_long_clip_go_on_after_a_stop_and_are_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("scene=synthetic:lamplighter#24", "dynamic.data.windows.frames=12", "dynamic.data.windows.overlap=4")
    words = (*words, "dynamic.steps=3", "representation.spacetime.segments=4")
    whole = fit(tiny(tmp_path / "whole", *words, file="4dgs"))
    measured = (whole / "metrics.json").read_bytes()
    assert stages_of(whole)["dynamic"]["steps"] == 3 * 3
    assert len(list((whole / "export/ply").glob("*.ply"))) == 24
    with monkeypatch.context() as patch:
        stop_after(5, patch, "dynamic")  # in the middle of the second window
        with pytest.raises(KeyboardInterrupt):
            fit(tiny(tmp_path / "stopped", *words, file="4dgs"))
    resumed = fit(tiny(tmp_path / "stopped", *words, file="4dgs"), resume=True)
    assert (resumed / "metrics.json").read_bytes() == measured
    evaluate_run(whole)
    assert (whole / "metrics.json").read_bytes() == measured


def test_windows_are_refused_where_all_times_hang_together(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"windows\.frames.*spacetime"):
        fit(tiny(tmp_path, "dynamic.data.windows.frames=8", "dynamic.data.windows.overlap=2"))


def test_a_stop_in_the_last_step_of_a_stage_costs_nothing(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even one that comes after the step's own checkpoint, while the preview is drawn."""
    draw = pipeline.write_preview

    def stopped(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return draw(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "write_preview", stopped)
        with pytest.raises(KeyboardInterrupt):
            fit(tiny(tmp_path, "trainer.checkpoint_every=0"))
    folder = RunFolder.of(tiny(tmp_path))
    assert {p.name for p in folder.checkpoints.iterdir()} == {"static.ckpt", "last.ckpt"}
    resumed = fit(tiny(tmp_path, "trainer.checkpoint_every=0"), resume=True)
    assert (resumed / "metrics.json").read_bytes() == (finished / "metrics.json").read_bytes()


@pytest.mark.slow
def test_a_run_that_was_stopped_in_its_motion_does_not_lift_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("deformation.kind=skinned", "lift.steps=12", "detections.noise_px=2")
    whole = fit(tiny(tmp_path / "whole", *words))
    with monkeypatch.context() as patch:
        stop_after(5, patch, "dynamic")
        with pytest.raises(KeyboardInterrupt):
            fit(tiny(tmp_path / "stopped", *words))
    with monkeypatch.context() as patch:
        patch.delattr(pipeline, "lift_video")
        resumed = fit(tiny(tmp_path / "stopped", *words), resume=True)
    assert (resumed / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()


def test_keypoints_are_refitted_after_the_motion_and_again_when_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("deformation.kind=skinned", "lift.steps=12", "lift.trial_steps=0")
    whole = fit(tiny(tmp_path / "whole", *words))
    representation = load_run(whole).fitted.representation
    assert float(representation.get_buffer("deformation.keypoint_offsets").abs().max()) > 1e-4
    with monkeypatch.context() as patch:
        stop_after(1, patch, "refine")
        with pytest.raises(KeyboardInterrupt):
            fit(tiny(tmp_path / "stopped", *words))
    resumed = fit(tiny(tmp_path / "stopped", *words), resume=True)
    assert (resumed / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()


def test_the_time_of_a_resumed_stage_covers_both_halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_after(5, patch, "static")
        with pytest.raises(KeyboardInterrupt):
            fit(tiny(tmp_path))
    for stage in stages_of(fit(tiny(tmp_path), resume=True)).values():
        seconds = dict(stage["seconds"])
        assert sum(seconds.values()) - seconds["total"] <= seconds["total"] * 1.001


def test_the_last_checkpoint_is_there_however_short_the_stages(tmp_path: Path) -> None:
    folder = fit(tiny(tmp_path, "trainer.checkpoint_every=100"))
    checkpoints = folder / "checkpoints"
    assert (checkpoints / "last.ckpt").read_bytes() == (checkpoints / "refine.ckpt").read_bytes()


@pytest.mark.parametrize(("kind", "moves"), [("none", False), ("hexplane", True)])
def test_what_can_move_moves(kind: str, moves: bool, tmp_path: Path) -> None:
    loaded = load_run(fit(tiny(tmp_path, f"deformation.kind={kind}")))
    first, last = loaded.states(torch.tensor([0.0, 1.0]))
    assert torch.equal(first.means, last.means) is not moves


def test_stages_without_steps_leave_the_gaussians_as_they_began(tmp_path: Path) -> None:
    config = tiny(tmp_path, "static.steps=0", "dynamic.steps=0", "refine.steps=0")
    folder = fit(config)
    assert [stage["renders"] for stage in stages_of(folder).values()] == [0, 0, 0]
    began, found = build_run(config).gaussians.state(), load_run(folder).fitted.representation.rest()
    for name in ("means", "quats", "scales", "opacities", "colors"):
        assert torch.equal(getattr(found, name), getattr(began, name)), name


def test_heatmaps_are_read_in_images_of_an_odd_side(tmp_path: Path) -> None:
    folder = fit(tiny(tmp_path, "kfc.mode=heatmap", "image_size=33"))
    loaded = load_run(folder)
    views = loaded.scene.reference
    assert loaded.fitted.render(views.cameras[:1], views.times[:1]).shape == (1, 33, 33, 3)
    per_step = 4 + 4  # an image and its heatmaps
    assert [stages_of(folder)[name]["renders"] for name in ("static", "dynamic")] == [6 * per_step, 6 * per_step]
    assert "kfc" in terms_of(folder, "dynamic")


def test_a_ball_is_filled_by_density_control(tmp_path: Path) -> None:
    folder = fit(tiny(tmp_path, "gaussians.init=ball", "static.density.kind=adaptive"))
    loaded = load_run(folder)
    assert len(loaded.fitted.representation.rest()) > 2 * 150
    psnr = json.loads((folder / "metrics.json").read_text())["metrics"]["train/psnr"]
    assert psnr > blank_psnr(loaded.scene.reference) + 1


def test_one_frame_a_step_has_no_pairs_and_no_weight_no_term(tmp_path: Path) -> None:
    folder = fit(tiny(tmp_path, "dynamic.data.frames_per_step=1", "kfc.weight=0"))
    assert stages_of(folder)["dynamic"]["renders"] == 6
    assert terms_of(folder, "dynamic") >= {"photometric", "bones", "rigidity"}
    assert not terms_of(folder, "dynamic") & {"kfc", "wgf_offset", "wgf_paired"}


def test_an_object_without_texture_has_one_colour_in_all_images(tmp_path: Path) -> None:
    scene = load_run(fit(tiny(tmp_path, "frames.textureless=true"))).scene
    assert scene.test is not None
    for views in (scene.reference, scene.test):
        inside = views.images[..., :3][views.images[..., 3] > 0]
        assert torch.equal(inside, inside[:1].expand_as(inside))


def test_two_keypoints_give_the_flow_between_distant_frames(tmp_path: Path) -> None:
    folder = fit(tiny(tmp_path, "dynamic.data.strides=[2, 3]", "wgf.flow=keypoints", "keypoints.count=2"))
    assert load_run(folder).keypoints(torch.tensor([0.0, 0.5])).shape == (2, 2, 3)
    assert terms_of(folder, "dynamic") >= {"kfc", "wgf_offset", "wgf_paired"}


def test_a_skinned_motion_without_keypoints_learns_from_the_images(tmp_path: Path) -> None:
    words = ("deformation.kind=skinned", "deformation.skinned.shading=true", "keypoints.count=0")
    folder = fit(tiny(tmp_path, *words))
    assert not terms_of(folder, "dynamic") & {"kfc", "bones"}
    psnr = json.loads((folder / "metrics.json").read_text())["metrics"]["train/psnr"]
    assert psnr > blank_psnr(load_run(folder).scene.reference) + 3


def test_frames_that_the_fit_did_not_see_are_held_out(tmp_path: Path) -> None:
    config = tiny(tmp_path, "frames.every=5", file="recommended")
    folder = fit(config)
    metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
    loaded = load_run(folder)
    video = loaded.scene.reference
    shown = loaded.fitted.render(video.cameras, video.times)
    errors = (shown.clamp(0, 1) - video.composited(torch.ones(3))).square().mean((1, 2, 3))
    decibel = -10 * errors.log10()
    seen = torch.arange(16) % 5 == 0
    assert metrics["train/psnr"] == pytest.approx(float(decibel[seen].mean()), abs=0.02)
    assert metrics["heldout/psnr"] == pytest.approx(float(decibel[~seen].mean()), abs=0.02)
    assert len(list((folder / "export" / "ply").glob("*.ply"))) == 16  # all moments are shown


@pytest.mark.parametrize("rate", [0, 0.5])
def test_gaussians_are_trained_with_their_motion_only_where_asked_for(rate: float, tmp_path: Path) -> None:
    folder = fit(tiny(tmp_path, f"dynamic.gaussian_rates={rate}", "refine.steps=0", file="hexplane_images"))
    before = torch.load(folder / "checkpoints/static.ckpt", weights_only=True)["state_dict"]
    after = torch.load(folder / "checkpoints/dynamic.ckpt", weights_only=True)["state_dict"]
    for name in ("means", "quats", "log_scales", "opacity_logits", "colors"):
        same = torch.equal(before[f"model.{name}"], after[f"representation.gaussians.{name}"])
        assert same is (rate == 0), name
    assert torch.equal(load_run(folder).fitted.states(torch.zeros(1))[0].means, _world_means(folder, after))


def test_gaussians_that_move_are_made_more_and_read_back_as_they_were(tmp_path: Path) -> None:
    more = ["kind=adaptive", "grad_threshold=1e-9", "start=0", "stop=0.5", "every=0.5", "opacity_threshold=1e-4"]
    settings = ["dynamic.gaussian_rates=5", "refine.steps=0", *(f"dynamic.density.{entry}" for entry in more)]
    folder = fit(tiny(tmp_path, *settings, file="hexplane_images"))
    before = torch.load(folder / "checkpoints/static.ckpt", weights_only=True)["state_dict"]
    after = torch.load(folder / "checkpoints/dynamic.ckpt", weights_only=True)["state_dict"]
    means = after["representation.gaussians.means"]
    assert len(means) > len(before["model.means"])
    radius = after["representation.deformation.planes.extent.radius"]
    assert radius == before["model.means"].abs().max()  # of the Gaussians that the motion was born with
    assert radius != means.abs().max()
    metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
    loaded = load_run(folder)
    video = loaded.scene.reference
    shown = loaded.fitted.render(video.cameras, video.times).clamp(0, 1)
    errors = (shown - video.composited(torch.ones(3))).square().mean((1, 2, 3))
    assert metrics["train/psnr"] == pytest.approx(float((-10 * errors.log10()).mean()), abs=0.02)


def _world_means(folder: Path, state: dict[str, torch.Tensor]) -> torch.Tensor:
    normalisation = RunFolder(folder).read_normalisation()
    assert normalisation is not None
    return normalisation.world_points(state["representation.gaussians.means"])


def test_planes_learn_at_their_own_rate() -> None:
    model = GaussianModel.from_state(make.blobs())
    config = tiny(Path("runs"), "deformation.kind=hexplane")
    stage = DynamicStage(
        build_run_representation(config, model),
        build_renderer("reference"),
        config.dynamic,
        MotionLosses(),
        torch.tensor([-1, -1]),
        torch.ones(3),
        0,
    )
    rates = {group["name"]: group["lr"] for group in stage.configure_optimizers().param_groups}
    assert rates == {"network": config.deformation.learning_rate, "grid": config.deformation.hexplane.learning_rate}


def test_a_wrong_request_leaves_the_earlier_run_alone(finished: Path) -> None:
    output = finished.parents[2]
    before = {p: p.read_bytes() for p in finished.rglob("*") if p.is_file() and p.name != "log.txt"}
    for words in (["scene=nowhere"], ["keypoints.count=99"], ["gaussians.count=3"]):
        with pytest.raises(InputError):
            fit(tiny(output, *words))
    assert {p: p.read_bytes() for p in finished.rglob("*") if p.is_file() and p.name != "log.txt"} == before


def test_the_test_views_are_measured_on_the_background_of_the_protocol(finished: Path) -> None:
    """Whatever the fit was made on: the same model scores the same."""
    loaded = load_run(finished)
    black = replace(loaded.fitted, background=torch.zeros(3))
    scores = [
        evaluate_model(fitted, loaded.scene, get_protocol("gltf4d"), Networks()).metrics
        for fitted in (loaded.fitted, black)
    ]
    for key in ("test/psnr", "test/psnr_static"):
        assert scores[0][key] == scores[1][key]
    assert scores[0]["train/psnr"] != scores[1]["train/psnr"]


def test_resuming_with_another_configuration_is_refused(finished: Path) -> None:
    config = tiny(finished.parents[2], "static.steps=7")
    with pytest.raises(InputError, match=r"config\.yaml"):
        fit(config, resume=True)
    assert (finished / "metrics.json").exists()


def test_a_finished_run_is_not_fitted_again(finished: Path) -> None:
    before = (finished / "checkpoints/static.ckpt").stat().st_mtime_ns
    fit(tiny(finished.parents[2]), resume=True)
    assert (finished / "checkpoints/static.ckpt").stat().st_mtime_ns == before


def save_renders(loaded: LoadedRun, folder: Path) -> None:
    """The test renders of a run and the truth, saved as any method would save them."""
    test = loaded.scene.test
    assert test is not None
    rendered = loaded.fitted.render(test.cameras, test.times)
    for index in range(len(test)):
        name = f"v{int(test.views[index])}_{int(test.frames[index]):03d}.png"
        write_png(folder / "pred" / name, rendered[index].clamp(0, 1))
        write_png(folder / "target" / name, test.images[index])


def test_both_doors_of_the_evaluation_give_the_same_numbers(finished: Path, tmp_path: Path) -> None:
    save_renders(load_run(finished), tmp_path)
    out = tmp_path / "folders.json"
    words = ["--pred", str(tmp_path / "pred"), "--target", str(tmp_path / "target"), "--out", str(out), "--no-networks"]
    assert run(evaluate.main, evaluate.parser(), words) == 0
    by_folder = json.loads(out.read_text())
    by_run = json.loads((finished / "metrics.json").read_text())
    for key in ("test/psnr", "test/psnr_masked", "test/ssim"):
        assert by_folder["metrics"][key] == pytest.approx(by_run["metrics"][key], abs=1e-5), key
        assert by_folder["per_view"][key] == pytest.approx(by_run["per_view"][key], abs=1e-5), key


def test_both_doors_agree_on_what_networks_measure(finished: Path, tmp_path: Path) -> None:
    """With small networks in the places of the real ones."""
    loaded = load_run(finished)
    save_renders(loaded, tmp_path)
    networks = Networks(
        {
            "i3d-kinetics-400": nn.Sequential(nn.AdaptiveAvgPool3d((4, 2, 2)), nn.Flatten()),
            "fid": nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Flatten()),
        }
    )
    by_run = evaluate_model(loaded.fitted, loaded.scene, GLTF4D, networks).metrics
    grids = read_folders(tmp_path / "pred", tmp_path / "target")
    by_folder = evaluate_grid(grids.predicted, grids.target, grids.target_alpha, networks=networks).metrics
    for key in ("fvd_f", "fvd_v", "fvd_diag", "fv4d", "fvd_c4d", "video_distance", "fid"):
        assert by_folder[f"test/{key}"] == pytest.approx(by_run[f"test/{key}"], rel=1e-4, abs=1e-7), key
        assert by_run[f"test/{key}"] > 0, key


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
