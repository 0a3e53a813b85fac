from dataclasses import replace

import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from kg4d import kernels
from kg4d.losses.photometric import photometric_loss
from kg4d.losses.settings import PhotometricConfig


def images(seed: int) -> torch.Tensor:
    return torch.rand(2, 24, 20, 3, generator=torch.Generator().manual_seed(seed))


def test_a_perfect_image_costs_nothing() -> None:
    image, alpha = images(0), torch.rand(2, 24, 20, 1)
    assert abs(float(photometric_loss(image, image.clone(), alpha, alpha, PhotometricConfig()))) < 1e-6


@pytest.mark.parametrize("missing", [None, "none here"])
def test_parts_add_up_with_and_without_the_kernels(missing: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing is not None:
        monkeypatch.setattr(kernels, "missing_reason", lambda: missing)
    image, target = images(0), images(1)
    alpha, target_alpha = torch.full((2, 24, 20, 1), 0.75), torch.full((2, 24, 20, 1), 0.5)
    config = PhotometricConfig(weight=7.0, l1=0.6, ssim=0.3, alpha=2.0)
    similarity = structural_similarity_index_measure(image.movedim(-1, 1), target.movedim(-1, 1), data_range=1.0)
    expected = 0.6 * (image - target).abs().mean() + 0.3 * (1 - similarity) + 2.0 * 0.25
    assert torch.allclose(photometric_loss(image, target, alpha, target_alpha, config), expected, rtol=1e-5)
    without = replace(config, alpha=0.0)
    assert torch.allclose(photometric_loss(image, target, alpha, target_alpha, without), expected - 0.5, rtol=1e-5)


def test_the_gradient_descends() -> None:
    image, target = images(0).requires_grad_(), images(1)
    alpha = torch.zeros(2, 24, 20, 1)
    before = photometric_loss(image, target, alpha, alpha, PhotometricConfig())
    before.backward()
    assert image.grad is not None
    after = photometric_loss((image - 50.0 * image.grad).detach(), target, alpha, alpha, PhotometricConfig())
    assert after < before
