"""Score distillation in the stages: where the cameras stand, what is drawn, and whole fits that are guided."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kg4d.data.normalisation import Normalisation
from kg4d.data.records import Scene
from kg4d.data.scene_writer import write_scene
from kg4d.errors import InputError
from kg4d.gaussians.init import initial_state, points_in_ball
from kg4d.gaussians.model import GaussianModel
from kg4d.geometry.cameras import Cameras
from kg4d.losses.sds import Viewpoint
from kg4d.losses.settings import SdsConfig
from kg4d.optim.objective import Objective
from kg4d.pipeline import fit
from kg4d.priors.cache.store import PriorCache
from kg4d.render.base import RasterOptions, RenderOutput
from kg4d.render.build import build_renderer
from kg4d.runs import build
from kg4d.runs.build import build_run_guidance
from kg4d.runs.folder import RunFolder
from kg4d.stages.guidance import Draw, Guidance, camera_around
from tests import make
from tests.priors.tiny_models import save_tiny_zero123
from tests.tiny_runs import stages_of, stop_after, tiny

ORIGIN = torch.zeros(3)
SWAP = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])  # turns +Y up into +Z up


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_zero123(tmp_path_factory.mktemp("zero123"))


@given(
    azimuth=st.floats(-180, 180),
    elevation=st.floats(-40, 40),
    turn=st.floats(-180, 180),
    rise=st.floats(-40, 40),
)
def test_moving_around_is_an_orbit(azimuth: float, elevation: float, turn: float, rise: float) -> None:
    reference = make.cameras([azimuth], [elevation], size=32)
    moved = camera_around(reference, ORIGIN, turn, rise, elevation)
    expected = make.cameras([azimuth + turn], [elevation + rise], size=32)
    assert torch.allclose(moved.viewmats, expected.viewmats, atol=1e-5)
    assert torch.equal(moved.Ks, reference.Ks)


def test_what_is_up_does_not_matter() -> None:
    reference = make.cameras([30.0], [20.0], size=32)
    turned = replace(reference, viewmats=reference.viewmats.clone())
    turned.viewmats[:, :3, :3] = reference.viewmats[:, :3, :3] @ SWAP.T
    plain, moved = (camera_around(camera, ORIGIN, 50.0, -15.0, 20.0) for camera in (reference, turned))
    assert torch.allclose(moved.centers, plain.centers @ SWAP.T, atol=1e-5)


def test_the_point_and_the_distance_are_kept() -> None:
    reference, center = make.cameras(size=32), torch.tensor([0.0, 0.0, -0.5])
    moved = camera_around(reference, center, 120.0, 25.0, 0.0)
    assert torch.allclose((moved.centers[0] - center).norm(), torch.tensor(2.5))
    assert torch.allclose(moved.project(center).pixels, torch.full((1, 2), 16.0), atol=1e-4)


class Grey:
    """Knows one thing: the world is grey."""

    size = 8
    alphas = torch.linspace(0.999, 0.001, 100)

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, float, float]] = []

    def encode(self, images: Tensor) -> Tensor:
        return images.movedim(-1, 1)

    def predict(self, noisy: Tensor, timesteps: Sequence[int], viewpoints: Sequence[Viewpoint]) -> Tensor:
        self.asked += [(timestep, *viewpoint) for timestep, viewpoint in zip(timesteps, viewpoints)]
        alpha = self.alphas[list(timesteps), None, None, None]
        result: Tensor = (noisy - alpha.sqrt() * 0.5) / (1 - alpha).sqrt()
        return result


def guidance_of(predictor: Grey, frames: int = 1, seed: int = 0, elevation: float = 0.0, **settings: Any) -> Guidance:
    cameras = make.cameras([0.0] * frames, [elevation] * frames, size=16)
    times = torch.linspace(0, 1, frames)
    return Guidance(predictor, SdsConfig(**settings), cameras, times, ORIGIN, elevation, seed)


def drawing(seen: list[tuple[Cameras, float, Tensor]], color: Tensor) -> Draw:
    def draw(cameras: Cameras, times: Tensor, background: Tensor) -> RenderOutput:
        seen.extend((cameras[view], float(time), background) for view, time in enumerate(times))
        image, count = color.expand(len(cameras), cameras.height, cameras.width, 3), len(cameras)
        nothing = torch.zeros(count, 1, 2)
        return RenderOutput(image, image[..., :1], None, nothing, nothing.int(), RasterOptions(), None)

    return draw


def test_a_step_judges_random_views_and_is_a_function_of_seed_and_step() -> None:
    totals, seen, predictor = [], [], Grey()
    for seed, step in ((0, 5), (0, 5), (0, 6), (1, 5)):
        color = torch.tensor([0.9, 0.2, 0.5], requires_grad=True)
        objective = Objective(progress=0.5)
        guidance = guidance_of(predictor, frames=4, seed=seed, views=3)
        assert guidance.add(objective, step, drawing(seen, color)) == 3
        assert objective.total is not None
        objective.total.backward()
        assert color.grad is not None
        assert color.grad[0] > 0 > color.grad[1], "towards grey"
        totals.append(float(objective.terms["sds"]))
    assert totals[0] == totals[1]
    first, again, later, other = (predictor.asked[start : start + 3] for start in (0, 3, 6, 9))
    assert first == again
    assert len({*first, *later, *other}) == 9
    assert {timestep for timestep, *_ in predictor.asked} == {50}
    for (_, frame, azimuth, elevation), (camera, time, background) in zip(predictor.asked, seen):
        assert time == pytest.approx(frame / 3)
        assert torch.equal(background, torch.ones(3))
        assert (camera.width, camera.height) == (8, 8)
        assert torch.allclose(camera.viewmats, make.cameras([azimuth], [elevation], size=8).viewmats, atol=1e-5)


def test_the_weight_falls_and_does_not_touch_what_is_logged() -> None:
    sizes = []
    for progress in (0.0, 0.5, 1.0):
        color, objective = torch.tensor([0.9, 0.2, 0.5], requires_grad=True), Objective(progress=progress)
        fixed = guidance_of(Grey(), weight=2.0, final_factor=0.5, min_time=0.3, max_time=0.3)
        fixed.add(objective, 0, drawing([], color))
        assert objective.total is not None
        sizes.append(float(objective.total.detach() / objective.terms["sds"]))
    assert sizes == pytest.approx([2.0, 1.5, 1.0])


def test_viewpoints_fill_their_ranges_and_stay_off_the_poles() -> None:
    source = torch.Generator().manual_seed(0)
    plain = guidance_of(Grey(), frames=3, azimuths=[-90.0, 30.0], elevations=[-10.0, 20.0])
    drawn = [plain.viewpoint(source) for _ in range(300)]
    assert {point.frame for point in drawn} == {0, 1, 2}
    for values, low, high in (
        ([point.azimuth for point in drawn], -90, 30),
        ([point.elevation for point in drawn], -10, 20),
    ):
        assert low <= min(values) < low + 2
        assert high - 2 < max(values) <= high
    high = guidance_of(Grey(), elevation=40.0, elevations=[60.0, 80.0])
    assert high.viewpoint(source).elevation == 45.0
    assert high.camera(Viewpoint(0, 10.0, 45.0)).viewmats.isfinite().all()


def test_gradients_reach_the_colours_of_what_the_reference_does_not_see(model_folder: Path, tmp_path: Path) -> None:
    renderer = build_renderer()
    scene = make.tiny_scene()
    config = tiny(tmp_path, "guidance.kind=zero123", f"guidance.model={model_folder}", "guidance.static.views=2")
    guidance = build_run_guidance(
        config.guidance, scene, Normalisation.none(), config.seed, renderer.device, PriorCache(tmp_path)
    )["static"]
    generator = torch.Generator().manual_seed(0)
    model = GaussianModel.from_state(initial_state(points_in_ball(60, 0.4, generator), None, 0.9, 0, generator))
    objective, state = Objective(progress=0.5), model.state()
    guidance.add(objective, 0, lambda camera, _, background: renderer(state, camera, background=background))
    assert objective.total is not None
    objective.total.backward()
    for name in ("colors", "means", "opacity_logits"):
        gradient = model.get_parameter(name).grad
        assert gradient is not None
        assert gradient.isfinite().all()
        assert (gradient.flatten(1) if gradient.ndim > 1 else gradient[:, None]).any(-1).float().mean() > 0.8, name


def test_which_stages_are_guided_and_by_what(model_folder: Path, tmp_path: Path) -> None:
    cpu, cache = torch.device("cpu"), PriorCache(tmp_path)
    above = make.tiny_scene()
    above = replace(above, reference=replace(above.reference, cameras=make.cameras([0.0] * 4, [25.0] * 4, size=16)))

    def build(*words: str, scene: Scene = above) -> dict[str, Guidance]:
        config = tiny(tmp_path, f"guidance.model={model_folder}", *words)
        return build_run_guidance(config.guidance, scene, Normalisation.none(), config.seed, cpu, cache)

    assert build() == {}
    static = build("guidance.kind=stable_zero123")
    assert list(static) == ["static"]
    assert len(static["static"].references) == 1
    assert static["static"].reference_elevation == pytest.approx(25.0, abs=1e-3)
    told = static["static"].predictor.network  # type: ignore[attr-defined]
    assert told.camera_embedding([0.0], [0.0])[0, 0, 3] == pytest.approx(math.radians(65))
    words = ("guidance.kind=zero123", "guidance.dynamic.weight=1", "guidance.reference_elevation=5")
    both = build(*words)
    assert list(both) == ["static", "dynamic"]
    assert both["static"].predictor is both["dynamic"].predictor
    assert (len(both["dynamic"].references), both["dynamic"].reference_elevation) == (4, 5.0)
    assert list(build(*words, "guidance.static.weight=0")) == ["dynamic"]
    ringless = build("guidance.kind=zero123", scene=replace(make.tiny_scene(), ring=None))
    assert torch.allclose(ringless["static"].center, ORIGIN, atol=1e-3)


def guided(tmp_path: Path, model: Path, *words: str) -> Any:
    return tiny(
        tmp_path / "runs",
        f"scene={tmp_path / 'scene'}",
        "guidance.kind=zero123",
        f"guidance.model={model}",
        "guidance.dynamic={weight: 1e-2, views: 1}",
        "static.steps=4",
        "dynamic.steps=3",
        "refine.steps=1",
        "dynamic.data.frames_per_step=2",
        *words,
    )


@pytest.fixture
def scene_of_one_view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A video from one camera, without views from around."""
    monkeypatch.setenv("KG4D_CACHE", str(tmp_path / "cache"))
    scene = make.tiny_scene()
    write_scene(replace(scene, ring=None, keypoints=None, flow=None), tmp_path / "scene")
    return tmp_path


def test_a_guided_fit_without_views_from_around_survives_a_stop(
    scene_of_one_view: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = fit(guided(scene_of_one_view, model_folder))
    whole = (finished / "checkpoints" / "refine.ckpt").read_bytes()
    stages, metrics = stages_of(finished), (finished / "metrics.json").read_bytes()
    assert stages["static"]["renders"] == 4 + 4
    assert stages["dynamic"]["renders"] == 3 * 2 + 3
    assert "sds" in (finished / "metrics.csv").read_text()
    for stage in ("static", "dynamic"):
        config = guided(scene_of_one_view, model_folder, f"name=stopped_{stage}")
        with monkeypatch.context() as patch:
            stop_after(2, patch, stage)
            with pytest.raises(KeyboardInterrupt):
                fit(config)
        resumed = fit(config, resume=True)
        assert (resumed / "metrics.json").read_bytes() == metrics
        weights = [torch.load(run / "checkpoints" / "refine.ckpt", weights_only=True) for run in (resumed, finished)]
        for name, value in weights[0]["state_dict"].items():
            assert torch.equal(value, weights[1]["state_dict"][name]), name
    assert b"_unet" not in whole, "the diffusion model is no part of the fit's checkpoints"


def test_guidance_changes_the_fit(scene_of_one_view: Path, model_folder: Path) -> None:
    with_it = fit(guided(scene_of_one_view, model_folder))
    without = fit(guided(scene_of_one_view, model_folder, "guidance.kind=none", "name=plain"))
    colors = [
        torch.load(run / "checkpoints" / "static.ckpt", weights_only=True)["state_dict"]["model.colors"]
        for run in (with_it, without)
    ]
    assert (colors[0] - colors[1]).abs().max() > 1e-3


def test_a_model_that_is_not_there_stops_the_fit_before_anything_is_written(
    scene_of_one_view: Path, model_folder: Path
) -> None:
    config = guided(scene_of_one_view, model_folder, "guidance.model=/nowhere")
    with pytest.raises(InputError, match=r"guidance.model: no folder /nowhere"):
        fit(config)
    assert not RunFolder.of(config).checkpoints.exists()


def test_a_model_that_is_not_there_is_noticed_before_the_scene_is_made(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    monkeypatch.setattr(build, "build_scene", lambda *_: made.append("scene"))
    with pytest.raises(InputError, match=r"guidance.model: no folder /nowhere"):
        fit(guided(tmp_path, model_folder, "guidance.model=/nowhere"))
    assert made == []


def test_the_diffusion_model_need_not_compute_where_the_fit_does(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "networks_device", lambda: torch.device("meta"))
    config = tiny(tmp_path, "guidance.kind=zero123", f"guidance.model={model_folder}")
    cpu = torch.device("cpu")
    guidance = build_run_guidance(
        config.guidance, make.tiny_scene(), Normalisation.none(), config.seed, cpu, PriorCache(tmp_path)
    )["static"]
    assert guidance.predictor.network.device.type == "meta"  # type: ignore[attr-defined]
    assert {guidance.center.device, guidance.references.Ks.device, guidance.predictor.alphas.device} == {cpu}


def test_a_fit_is_guided_where_auto_finds_the_model(model_folder: Path, tmp_path: Path) -> None:
    words = ("refine.steps=0", "static.steps=2", "dynamic.steps=2", f"guidance.model={model_folder}")
    folder = fit(tiny(tmp_path, *words, file="paper"))
    history = (folder / "metrics.csv").read_text()
    assert "static/sds" in history
    assert "dynamic/sds" in history
