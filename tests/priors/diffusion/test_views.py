"""Views by Zero-1-to-3 and Zero123++: what the camera means, what the sampler does, and whose code runs."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kg4d.data.scene import load_scene
from kg4d.errors import InputError
from kg4d.priors.base import Identity, ViewSynthesizer
from kg4d.priors.diffusion.camera_projection import CLIPCameraProjection
from kg4d.priors.diffusion.settings import ViewsConfig, ViewsKind, Zero123Kind
from kg4d.priors.diffusion.views import Zero123PlusViews, build_views, on_white, view_angles
from kg4d.priors.diffusion.zero123 import Condition, Zero123, find_zero123
from kg4d.priors.keypoints.settings import KeypointsKind, KeypointSourceConfig
from kg4d.priors.prepare import prepare
from kg4d.priors.progress import listening
from kg4d.priors.settings import FramingConfig, PriorsConfig
from tests.priors.clips import save_frames
from tests.priors.tiny_models import SIZE, WIDTH, save_tiny_zero123

CPU = torch.device("cpu")


class NoMatting:
    """Everything is the object, unless it is of the grey of Zero123++."""

    name = "matting-test"

    def identity(self) -> Identity:
        return {"threshold": 0.02}

    def __call__(self, rgb: Tensor) -> Tensor:
        return ((rgb - 0.5).abs().amax(-1, keepdim=True) > 0.02).float()


@pytest.fixture(scope="module")
def picture() -> Tensor:
    """A coloured square on nothing, 48 x 48."""
    image = torch.zeros(48, 48, 4)
    image[12:36, 12:36] = torch.tensor([0.9, 0.3, 0.1, 1.0])
    return image


@pytest.fixture(scope="module")
def network(zero123_folder: Path) -> Zero123:
    kind = Zero123Kind.ZERO123
    return Zero123(kind, find_zero123("views.model", kind, str(zero123_folder)), CPU)


@pytest.fixture(scope="module")
def condition(network: Zero123, picture: Tensor) -> Condition:
    return network.condition(on_white(picture)[None])


def views_config(folder: Path, **settings: object) -> ViewsConfig:
    return ViewsConfig(**{"kind": ViewsKind.ZERO123, "model": str(folder), "steps": 3, **settings})


def synthesizer(folder: Path, **settings: object) -> ViewSynthesizer:
    return build_views(views_config(folder, **settings), CPU, NoMatting())


def test_the_camera_is_embedded_as_in_the_papers(network: Zero123) -> None:
    embedded = network.camera_embedding([0.0, 90.0, 180.0, -90.0], [0.0, 30.0, 0.0, -30.0])[:, 0]
    expected = [[0, 0, 1, 0], [-math.pi / 6, 1, 0, 0], [0, 0, -1, 0], [math.pi / 6, -1, 0, 0]]
    assert torch.allclose(embedded, torch.tensor(expected), atol=1e-6)


def test_stable_zero123_is_conditioned_on_the_polar_angle_of_the_reference(network: Zero123) -> None:
    stable = Zero123(Zero123Kind.STABLE_ZERO123, network.checkpoint, CPU, reference_elevation=20.0)
    embedded = stable.camera_embedding([0.0, 90.0], [0.0, 10.0])[:, 0]
    assert torch.allclose(embedded[:, 3], torch.full((2,), math.radians(70)))
    assert torch.equal(embedded[:, :3], network.camera_embedding([0.0, 90.0], [0.0, 10.0])[:, 0, :3])


@given(azimuth=st.floats(-180, 180), elevation=st.floats(-60, 60))
def test_a_full_turn_is_no_turn(network: Zero123, azimuth: float, elevation: float) -> None:
    once, again = network.camera_embedding([azimuth, azimuth + 360], [elevation, elevation])
    assert torch.allclose(once, again, atol=1e-6)


def test_a_new_projection_leaves_the_embedding_as_it_is(network: Zero123) -> None:
    embedding = torch.randn(3, 1, WIDTH)
    camera = network.camera_embedding([0.0, 40.0, 200.0], [0.0, 10.0, -10.0])
    assert torch.equal(CLIPCameraProjection(WIDTH, 4)(torch.cat([embedding, camera], dim=-1)), embedding)


def test_guidance_scale_0_is_unconditional_1_conditional_and_in_between_linear(
    network: Zero123, condition: Condition, picture: Tensor
) -> None:
    noisy, camera = torch.randn(1, 4, 8, 8), ([70.0], [10.0])

    def predict(
        scale: float, reference: Condition = condition, where: tuple[list[float], list[float]] = camera
    ) -> Tensor:
        return network.predict(noisy, 400, reference, *where, scale)

    other = network.condition(on_white(picture.flip(-1).clamp(0.2, 0.9))[None])
    context = network._projection(torch.cat([condition.embeddings, network.camera_embedding(*camera)], dim=-1))
    unet = network._unet
    conditional = unet(torch.cat([noisy, condition.latents], 1), 400, encoder_hidden_states=context).sample
    nothing = torch.cat([noisy, torch.zeros_like(noisy)], 1)
    unconditional = unet(nothing, 400, encoder_hidden_states=torch.zeros_like(context)).sample
    assert torch.allclose(predict(0.0), unconditional, atol=1e-5)
    assert torch.allclose(predict(1.0), conditional, atol=1e-5)
    assert (conditional - unconditional).abs().max() > 1e-3
    assert torch.equal(predict(0.0, other), predict(0.0))
    assert torch.equal(predict(0.0, where=([10.0], [0.0])), predict(0.0))
    assert not torch.allclose(predict(1.0, other), predict(1.0), atol=1e-4)
    assert not torch.allclose(predict(1.0, where=([10.0], [0.0])), predict(1.0), atol=1e-4)
    assert torch.allclose(predict(5.0), unconditional + 5 * (conditional - unconditional), atol=1e-4)


def test_attention_in_slices_gives_the_same_noise(network: Zero123, condition: Condition) -> None:
    sliced = Zero123(network.kind, network.checkpoint, CPU, attention_slicing=True)
    noisy = torch.randn(1, 4, 8, 8)
    sliced, at_once = (which.predict(noisy, 10, condition, [30.0], [0.0], 3.0) for which in (sliced, network))
    assert torch.allclose(sliced, at_once, atol=1e-5)


def test_latents_of_the_reference_are_not_scaled_those_of_renders_are(network: Zero123, condition: Condition) -> None:
    image = on_white(torch.rand(1, SIZE, SIZE, 4))
    scale = network._vae.config.scaling_factor
    plain = network._vae.encode(image.movedim(-1, 1) * 2 - 1).latent_dist.mode()
    assert torch.allclose(network.encode(image), plain * scale, atol=1e-6)
    assert torch.allclose(network.condition(image).latents, plain, atol=1e-5)
    assert network.size == SIZE


def test_views_are_repeatable_and_follow_seed_steps_and_camera(zero123_folder: Path, picture: Tensor) -> None:
    make = synthesizer(zero123_folder)
    heard: list[tuple[str, int, int]] = []
    with listening(lambda *report: heard.append(report)):
        views = make(picture, [0.0, 360.0, 90.0], [0.0, 0.0, 20.0])
    assert views.shape == (3, 48, 48, 3)
    assert views.min() >= 0
    assert views.max() <= 1
    assert heard == [("steps", done, 3) for done in range(4)]
    assert torch.allclose(views[0], views[1], atol=1e-4)
    assert (views[0] - views[2]).abs().max() > 1e-3
    alone = make(picture, [90.0], [20.0])[0]
    assert torch.allclose(alone, views[2], atol=1e-4), "a view depends on which others are made by rounding only"
    assert torch.equal(synthesizer(zero123_folder)(picture, [90.0], [20.0])[0], alone)
    for changed in ({"seed": 1}, {"steps": 6}, {"scale": 9.0}):
        other = synthesizer(zero123_folder, **changed)
        assert (other(picture, [90.0], [20.0])[0] - views[2]).abs().max() > 1e-4, changed
        assert other.identity() != make.identity()
    assert make(picture, [], []).shape == (0, 48, 48, 3)


def test_what_is_transparent_counts_as_white(zero123_folder: Path, picture: Tensor) -> None:
    make, hidden = synthesizer(zero123_folder), picture.clone()
    hidden[picture[..., 3] == 0] = torch.tensor([0.2, 0.8, 0.4, 0.0])
    assert torch.equal(make(picture, [45.0], [0.0]), make(hidden, [45.0], [0.0]))


def test_another_kind_of_network_is_refused(tmp_path: Path, picture: Tensor) -> None:
    save_tiny_zero123(tmp_path, in_channels=4)
    with pytest.raises(InputError, match="takes 4 channels"):
        synthesizer(tmp_path)(picture, [45.0], [0.0])


def test_a_network_that_does_not_predict_noise_is_refused(tmp_path: Path, picture: Tensor) -> None:
    save_tiny_zero123(tmp_path)
    DDIMScheduler(prediction_type="v_prediction").save_pretrained(tmp_path / "scheduler")
    with pytest.raises(InputError, match="v_prediction"):
        synthesizer(tmp_path)(picture, [45.0], [0.0])


@pytest.mark.parametrize(
    "settings", [{"elevations": [90.0]}, {"elevations": [-60.0], "reference_elevation": -60.0}, {"steps": 0}]
)
def test_views_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"views.{next(iter(settings))}: "):
        ViewsConfig(**settings)


def test_a_model_of_the_other_kind_is_refused() -> None:
    with pytest.raises(InputError, match=r"is of kind stable_zero123, not zero123 .*views.kind=stable_zero123"):
        build_views(ViewsConfig(kind=ViewsKind.ZERO123, model="ashawkey/stable-zero123-diffusers"), CPU, NoMatting())


def test_which_views_are_asked_for() -> None:
    assert view_angles(ViewsConfig(azimuths=[10.0, 20.0], elevations=[5.0])) == ([10.0, 20.0], [5.0, 5.0])
    with pytest.raises(InputError, match=r"views.elevations: 2 numbers for 3 azimuths"):
        view_angles(ViewsConfig(azimuths=[10.0, 20.0, 30.0], elevations=[5.0, 6.0]))
    azimuths, elevations = view_angles(ViewsConfig(kind=ViewsKind.ZERO123PLUS, reference_elevation=5.0))
    assert (azimuths[0], elevations[:2]) == (30.0, [15.0, -15.0])
    with pytest.raises(ValueError, match="no network makes views of kind files"):
        build_views(ViewsConfig(kind=ViewsKind.FILES), CPU, NoMatting())


PIPELINE = '''
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, ImagePipelineOutput


class SixTiles(DiffusionPipeline):
    """On grey, in each tile a square whose red is the number of the view and whose blue is noise."""

    def __init__(self, scheduler: DDIMScheduler, ramping_coefficients: list = None):
        super().__init__()
        self.register_to_config(ramping_coefficients=ramping_coefficients)
        self.register_modules(scheduler=scheduler)

    def __call__(self, image, num_inference_steps, guidance_scale, generator, output_type):
        grid = torch.full((1, 3, 24, 16), 0.5)
        for view in range(6):
            row, column = divmod(view, 2)
            tile = grid[0, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            tile[:, 2:6, 2:6] = torch.tensor([view / 5, 0.9, 0.0])[:, None, None]
            tile[2, 2:6, 2:6] = torch.rand(1, generator=generator) + 0 * torch.randn(())
        return ImagePipelineOutput(images=grid)
'''


@pytest.fixture
def plus(tmp_path: Path) -> ViewsConfig:
    """Something that is called and answers like Zero123++."""
    DDIMScheduler().save_pretrained(tmp_path / "model" / "scheduler")
    (tmp_path / "model" / "model_index.json").write_text(
        '{"_class_name": "SixTiles", "_diffusers_version": "0.42.1", "scheduler": ["diffusers", "DDIMScheduler"],'
        ' "ramping_coefficients": [0.0, 0.2, 1.0]}'  # a setting of the pipeline, as the real one has it
    )
    (tmp_path / "model" / "pipeline.py").write_text("raise SystemExit('code of the model ran')\n")
    (tmp_path / "mine.py").write_text(PIPELINE)
    code, model = str(tmp_path / "mine.py"), str(tmp_path / "model")
    return ViewsConfig(kind=ViewsKind.ZERO123PLUS, model=model, pipeline=code)


def test_zero123plus_gives_its_views_on_white(plus: ViewsConfig, picture: Tensor) -> None:
    before = torch.random.get_rng_state()
    make = Zero123PlusViews(plus, CPU, NoMatting())
    views = make(picture, *view_angles(plus))
    assert views.shape == (6, 48, 48, 3)
    assert torch.allclose(views[:, 24, 24, 0], torch.arange(6) / 5, atol=0.01)
    assert torch.equal(views[:, 0, 0], torch.ones(6, 3))
    assert torch.equal(make(picture, [90.0 - 360, 30.0], [-10.0, 20.0]), views[[1, 0]])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_zero123plus_is_sampled_as_its_authors_do(plus: ViewsConfig) -> None:
    assert plus.sampling == (75, 4.0)
    assert ViewsConfig().sampling == (50, 3.0)
    assert ViewsConfig(kind=ViewsKind.ZERO123PLUS, steps=9, scale=2.0).sampling == (9, 2.0)
    scheduler = Zero123PlusViews(plus, CPU, NoMatting())._pipeline.scheduler
    assert isinstance(scheduler, EulerAncestralDiscreteScheduler)
    assert scheduler.config.timestep_spacing == "trailing"


def test_a_view_does_not_depend_on_the_others_that_are_asked_for(zero123_folder: Path, picture: Tensor) -> None:
    make = synthesizer(zero123_folder)
    both, alone = make(picture, [90.0, 200.0], [0.0, 10.0]), make(picture, [200.0], [10.0])
    assert torch.allclose(both[1], alone[0], atol=1e-4)
    assert not torch.allclose(both[0], both[1], atol=1e-3)


def test_zero123plus_has_no_other_views(plus: ViewsConfig, picture: Tensor) -> None:
    with pytest.raises(InputError, match="six views of its own"):
        Zero123PlusViews(plus, CPU, NoMatting())(picture, [45.0], [20.0])


def test_a_version_of_zero123plus_with_other_cameras_is_refused(plus: ViewsConfig) -> None:
    plus.model = "sudo-ai/zero123plus-v1.1"
    with pytest.raises(InputError, match=r"views.model: .*v1.1 draws from other cameras .*v1.2"):
        Zero123PlusViews(plus, CPU, NoMatting())


def test_a_scene_knows_the_lens_of_zero123plus(plus: ViewsConfig, tmp_path: Path) -> None:
    config = PriorsConfig(
        framing=FramingConfig(size=32),
        views=plus,
        keypoints=KeypointSourceConfig(kind=KeypointsKind.NONE),
        cache=str(tmp_path / "cache"),
        progress_bar=False,
    )
    prepare(config, save_frames(tmp_path / "frames"), tmp_path / "scene")
    scene = load_scene(tmp_path / "scene")
    assert scene.ring is not None
    fovs = 2 * torch.atan(16 / scene.ring.cameras.Ks[:, 1, 1]).rad2deg()
    assert fovs.tolist() == pytest.approx([49.1] + 6 * [30.0], abs=1e-3)
    assert torch.equal(scene.reference.cameras.Ks, scene.ring.cameras.Ks[:1].expand(4, 3, 3))


def test_zero123plus_runs_no_code_that_nobody_named(plus: ViewsConfig, tmp_path: Path, picture: Tensor) -> None:
    plus.pipeline = None
    with pytest.raises(InputError, match=r"views.pipeline: zero123plus is run by code of its authors"):
        Zero123PlusViews(plus, CPU, NoMatting())
    plus.pipeline = str(tmp_path / "missing.py")
    with pytest.raises(InputError, match="no file"):
        Zero123PlusViews(plus, CPU, NoMatting())
    plus.pipeline = str(tmp_path / "empty.py")
    for code, what in (("import no_such_thing\n", "cannot be run"), ("x = 1\n", "holds 0 pipelines")):
        Path(plus.pipeline).write_text(code)
        with pytest.raises(InputError, match=what):
            Zero123PlusViews(plus, CPU, NoMatting())(picture, *view_angles(plus))


def test_its_identity_names_code_and_matting(plus: ViewsConfig) -> None:
    before = Zero123PlusViews(plus, CPU, NoMatting()).identity()
    assert before["matting_threshold"] == 0.02
    Path(str(plus.pipeline)).write_text(PIPELINE + "# changed\n")
    assert Zero123PlusViews(plus, CPU, NoMatting()).identity()["code"] != before["code"]


@pytest.mark.parametrize(
    ("kind", "fov"), [(ViewsKind.ZERO123, None), (ViewsKind.STABLE_ZERO123, None), (ViewsKind.ZERO123PLUS, 30.0)]
)
def test_every_kind_makes_the_views_that_it_is_asked_for(
    kind: ViewsKind, fov: float | None, plus: ViewsConfig, zero123_folder: Path, picture: Tensor
) -> None:
    provider = build_views(
        plus if kind is ViewsKind.ZERO123PLUS else views_config(zero123_folder, kind=kind), CPU, NoMatting()
    )
    assert provider.fov_y == fov
    assert provider.name == f"views-{kind.value}"
    asked = torch.tensor([[30.0, 20.0], [90.0, -10.0], [150.0, 20.0]])
    views = provider(picture, *asked.T.tolist())
    assert views.shape == (3, 48, 48, 3)
    assert views.min() >= 0
    assert views.max() <= 1
    other_order = provider(picture, *asked.flip(0).T.tolist())
    torch.testing.assert_close(other_order.flip(0), views)  # a view belongs to its angles, not to its place
    assert (views[0] - views[1]).abs().max() > 0.01
