"""Score distillation: value, gradient and timesteps, on predictors that are known, and through a real encoder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kg4d.losses.sds import Viewpoint, sds_loss, sds_residual, timestep_of
from kg4d.losses.settings import SdsConfig
from kg4d.priors.diffusion.noise_predictor import build_noise_model
from kg4d.priors.diffusion.settings import GuidanceKind, NoiseModelConfig
from tests.priors.tiny_models import SIZE, save_tiny_zero123

FRONT = Viewpoint(0, 30.0, 10.0)
STEPS = 100


class Known:
    """Images are 4 x 4; latents are their smooth images under a fixed map; the noise that is seen is told."""

    size = 4

    def __init__(self, see: Any, linear: bool = False) -> None:
        self.see = see
        self.alphas = torch.linspace(0.99, 0.01, STEPS, dtype=torch.float64)
        self.map = torch.eye(48, dtype=torch.float64)
        self.linear = linear
        if not linear:
            self.map = torch.randn(48, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) / 7

    def encode(self, images: Tensor) -> Tensor:
        flat = images.reshape(len(images), 48) @ self.map
        return (flat if self.linear else flat.sin()).reshape(len(images), 3, 4, 4)

    def predict(self, noisy: Tensor, timesteps: Sequence[int], viewpoints: Sequence[Viewpoint]) -> Tensor:
        assert set(viewpoints) == {FRONT}
        result: Tensor = self.see(noisy, self.alphas[list(timesteps), None, None, None])
        return result


def image(seed: int = 0) -> Tensor:
    return torch.rand(4, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def noise_of() -> Tensor:
    """What a step draws from `generator()`."""
    return torch.randn(1, 3, 4, 4, generator=generator()).double()


def test_value_and_gradient_in_closed_form() -> None:
    predictor, render = Known(lambda noisy, alpha: torch.full_like(noisy, 0.3), linear=True), image()
    loss = sds_loss(predictor, render[None], [FRONT], [40], generator())
    expected = (1 - predictor.alphas[40]) * (0.3 - noise_of())
    assert torch.allclose(loss.detach(), 0.5 * expected.square().sum())
    loss.backward()
    assert render.grad is not None
    assert torch.allclose(render.grad.flatten(), expected.flatten())


def test_a_predictor_that_sees_just_the_added_noise_changes_nothing() -> None:
    render = image()
    loss = sds_loss(Known(lambda noisy, alpha: noise_of()), render[None], [FRONT], [40], generator())
    loss.backward()
    assert loss == 0
    assert render.grad is not None
    assert (render.grad == 0).all()


def test_the_gradient_is_that_of_the_weighted_loss_by_finite_differences() -> None:
    predictor, render = Known(lambda noisy, alpha: 0.5 * noisy.tanh()), image()
    weight = 0.37
    (weight * sds_loss(predictor, render[None], [FRONT], [60], generator())).backward()
    with torch.no_grad():
        latents = predictor.encode(render[None])
        target = latents - sds_residual(predictor, latents, [FRONT], [60], generator())

    def value(at: Tensor) -> Tensor:
        return weight * 0.5 * (predictor.encode(at[None]) - target).square().sum()

    assert render.grad is not None
    for seed in range(5):
        along = torch.randn(4, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        slope = (value(render.detach() + 1e-5 * along) - value(render.detach() - 1e-5 * along)) / 2e-5
        assert torch.allclose((render.grad * along).sum(), slope, rtol=1e-6)


def test_descent_leads_to_what_the_predictor_knows() -> None:
    """The best predictor for a world with a single image."""
    goal = image(9).detach()
    latent = Known(lambda noisy, alpha: noisy, linear=True).encode(goal[None])
    predictor = Known(lambda noisy, alpha: (noisy - alpha.sqrt() * latent) / (1 - alpha).sqrt(), linear=True)
    render = image()
    before = (render.detach() - goal).norm()
    for step in range(30):
        (gradient,) = torch.autograd.grad(
            sds_loss(predictor, render[None], [FRONT], [50], torch.Generator().manual_seed(step)), render
        )
        render = (render - 0.3 * gradient).detach().requires_grad_()
    assert (render.detach() - goal).norm() < 0.05 * before


def test_gradients_of_views_add_up() -> None:
    predictor, render = Known(lambda noisy, alpha: noisy.cos()), image()
    losses = [
        sds_loss(predictor, render[None], [FRONT], [step], torch.Generator().manual_seed(step)) for step in (10, 90)
    ]
    (together,) = torch.autograd.grad(losses[0] + losses[1], render, retain_graph=True)
    alone = [torch.autograd.grad(loss, render, retain_graph=True)[0] for loss in losses]
    assert torch.allclose(together, alone[0] + alone[1])


def test_views_in_one_batch_are_judged_each_by_its_own_noise_and_timestep() -> None:
    predictor, renders = Known(lambda noisy, alpha: noisy * alpha), torch.stack([image(1), image(2)])
    loss = sds_loss(predictor, renders, [FRONT, FRONT], [10, 90], generator())
    noise = torch.randn(2, 3, 4, 4, generator=generator()).double()
    alone = []
    for render, step, eps in zip(renders, (10, 90), noise):
        alpha, latents = predictor.alphas[step], predictor.encode(render[None])[0]
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * eps
        alone.append(0.5 * ((1 - alpha) * (noisy * alpha - eps)).square().sum())
    assert torch.allclose(loss, torch.stack(alone).sum())


@given(st.floats(0, 1), st.floats(0, 1), st.booleans(), st.floats(0, 1), st.integers(1, 1000))
def test_timesteps_stay_in_their_range_and_fall(
    a: float, b: float, random_time: bool, progress: float, count: int
) -> None:
    config = SdsConfig(min_time=min(a, b), max_time=max(a, b), random_time=random_time)
    step = timestep_of(config, progress, count, generator())
    assert 0 <= step < count
    assert min(round(config.min_time * count), count - 1) <= step <= round(config.max_time * count)
    falling = SdsConfig(min_time=min(a, b), max_time=max(a, b))
    assert step <= timestep_of(falling, progress, count, generator())
    assert timestep_of(falling, 1.0, count, generator()) <= timestep_of(falling, progress, count, generator())


def test_drawn_timesteps_use_their_whole_range() -> None:
    source = generator()
    drawn = {timestep_of(SdsConfig(random_time=True), 0.99, 1000, source) for _ in range(200)}
    assert drawn == {20}, "at the end only the cleanest is left"
    drawn = {timestep_of(SdsConfig(random_time=True, min_time=0.0), 0.5, 10, source) for _ in range(200)}
    assert drawn == {0, 1, 2, 3, 4, 5}


@pytest.mark.parametrize(
    "settings",
    [
        {"views": 0},
        {"min_time": 0.5, "max_time": 0.4},
        {"max_time": 1.5},
        {"azimuths": [10.0]},
        {"elevations": [20.0, 10.0]},
    ],
)
def test_ranges_that_are_empty(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="guidance: "):
        SdsConfig(**settings)


def test_through_a_real_autoencoder(tmp_path: Path) -> None:
    """The same finite difference, in single precision."""
    config = NoiseModelConfig(kind=GuidanceKind.ZERO123, model=str(save_tiny_zero123(tmp_path)))
    model = build_noise_model(config, torch.rand(1, SIZE, SIZE, 3), 0.0, torch.device("cpu"))
    render = torch.rand(SIZE, SIZE, 3, requires_grad=True)
    sds_loss(model, render[None], [FRONT], [500], generator()).backward()
    assert render.grad is not None
    with torch.no_grad():
        latents = model.encode(render[None])
        target = latents - sds_residual(model, latents, [FRONT], [500], generator())
        along = render.grad / render.grad.norm()
        ahead, behind = (
            0.5 * (model.encode((render + step * along)[None]) - target).double().square().sum()
            for step in (0.02, -0.02)
        )
    assert (ahead - behind) / 0.04 == pytest.approx(float(render.grad.norm()), rel=0.02)
