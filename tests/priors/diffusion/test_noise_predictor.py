"""The live noise predictor: latents of renders, and what it makes of the input once and for all."""

from pathlib import Path
from typing import Any

import pytest
import torch

from kg4d.errors import InputError
from kg4d.losses.sds import NoisePredictor
from kg4d.priors.cache.store import PriorCache
from kg4d.priors.diffusion.checkpoint import Checkpoint
from kg4d.priors.diffusion.noise_predictor import ConditionProvider, Zero123Noise, build_noise_model, settle_noise_model
from kg4d.priors.diffusion.settings import GuidanceKind, NoiseModelConfig
from tests.priors.tiny_models import SIZE

CPU = torch.device("cpu")


def build(folder: Path, cache: PriorCache | None = None, frames: int = 2, **settings: Any) -> Zero123Noise:
    config = NoiseModelConfig(**{"kind": GuidanceKind.ZERO123, "model": str(folder), **settings})
    images = torch.rand(frames, 40, 40, 3, generator=torch.Generator().manual_seed(0))
    return build_noise_model(config, images, 10.0, CPU, cache)


def test_it_predicts_noise_in_the_shape_of_the_latents(zero123_folder: Path) -> None:
    model = build(zero123_folder)
    assert isinstance(model, NoisePredictor)
    assert model.size == SIZE
    assert model.alphas.shape == (1000,)
    assert (model.alphas.diff() < 0).all()
    latents = model.encode(torch.rand(1, SIZE, SIZE, 3))
    assert latents.shape == (1, 4, SIZE // 8, SIZE // 8)
    noise = [model.predict(latents, [500], [(frame, 30.0, 0.0)]) for frame in (0, 1, 0)]
    assert noise[0].shape == latents.shape
    assert torch.equal(noise[0], noise[2])
    assert (noise[0] - noise[1]).abs().max() > 1e-4, "each frame is another condition"


def test_views_in_one_batch_are_predicted_as_alone(zero123_folder: Path) -> None:
    model, latents = build(zero123_folder), torch.randn(2, 4, SIZE // 8, SIZE // 8)
    timesteps, viewpoints = [500, 20], [(0, 30.0, 0.0), (1, -60.0, 20.0)]
    together = model.predict(latents, timesteps, viewpoints)
    for view in range(2):
        alone = model.predict(latents[view : view + 1], timesteps[view : view + 1], viewpoints[view : view + 1])
        assert torch.allclose(together[view : view + 1], alone, atol=1e-5)


def test_gradients_go_through_the_encoder_alone(zero123_folder: Path) -> None:
    model = build(zero123_folder)
    image = torch.rand(1, SIZE, SIZE, 3, requires_grad=True)
    latents = model.encode(image)
    assert not model.predict(latents, [500], [(0, 30.0, 0.0)]).requires_grad
    latents.square().sum().backward()
    assert image.grad is not None
    assert (image.grad != 0).float().mean() > 0.9


def test_what_it_makes_of_the_input_is_kept(
    zero123_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    load = Checkpoint.load

    def counted(self: Checkpoint, component: str, *rest: Any) -> Any:
        loaded.append(component)
        return load(self, component, *rest)

    monkeypatch.setattr(Checkpoint, "load", counted)
    latents, made = torch.randn(1, 4, 8, 8), []
    for _ in range(2):
        cache = PriorCache(tmp_path)
        made.append(build(zero123_folder, cache).predict(latents, [500], [(1, 30.0, 0.0)]))
        assert list(cache.used) == ["guidance-zero123"]
    assert torch.equal(made[0], made[1])
    assert loaded.count("image_encoder") == 1, "the second run reads no image encoder"
    assert len(PriorCache(tmp_path).entries()) == 1
    assert torch.equal(build(zero123_folder).predict(latents, [500], [(1, 30.0, 0.0)]), made[0])
    build(zero123_folder, cache, frames=3).predict(latents, [500], [(1, 30.0, 0.0)])
    assert len(PriorCache(tmp_path).entries()) == 2, "another input is another entry"


def test_the_size_of_the_network_decides_what_is_kept(zero123_folder: Path) -> None:
    checkpoint = build(zero123_folder).network.checkpoint
    small, large = (ConditionProvider(checkpoint, half=False, size=size).identity() for size in (256, 512))
    assert small != large


def test_the_scale_and_the_elevation_reach_the_network(zero123_folder: Path) -> None:
    latents = torch.randn(1, 4, 8, 8)

    def predict(**settings: Any) -> torch.Tensor:
        return build(zero123_folder, **settings).predict(latents, [500], [(0, 30.0, 0.0)])

    unconditional, conditional = predict(scale=0.0), predict(scale=1.0)
    assert torch.allclose(predict(), unconditional + 5 * (conditional - unconditional), atol=1e-4)
    stable = predict(kind=GuidanceKind.STABLE_ZERO123)
    assert (stable - predict()).abs().max() > 1e-4, (
        "it is conditioned on the polar angle of the reference, not on a distance"
    )


def test_a_reference_above_the_pole_is_refused() -> None:
    with pytest.raises(ValueError, match=r"guidance.reference_elevation: must lie between -85 and 85"):
        NoiseModelConfig(reference_elevation=90.0)


def test_the_model_is_looked_for_at_once_and_read_late(zero123_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"guidance.model: no folder"):
        build(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"guidance.model: .* no complete unet, vae"):
        build(tmp_path / "empty")
    assert set(vars(build(zero123_folder).network)) & {"_unet", "_vae"} == set()


def test_auto_takes_what_is_on_this_machine_and_fetches_nothing(
    zero123_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    there = NoiseModelConfig(kind=GuidanceKind.AUTO, model=str(zero123_folder))
    assert settle_noise_model(there) is GuidanceKind.ZERO123
    assert str(zero123_folder) in caplog.text
    assert settle_noise_model(NoiseModelConfig(kind=GuidanceKind.AUTO)) is GuidanceKind.NONE
    assert "no weights of a Zero-1-to-3 are on this machine" in caplog.text
    assert settle_noise_model(NoiseModelConfig(kind=GuidanceKind.STABLE_ZERO123)) is GuidanceKind.STABLE_ZERO123
