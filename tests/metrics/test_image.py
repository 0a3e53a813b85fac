"""PSNR, masked PSNR, SSIM, MS-SSIM against scikit-image and closed forms."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from kg4d.metrics.image import masked_psnr, ms_ssim, object_mask, psnr, ssim, ssim_full


def pair(count: int, size: int, noise: float = 0.1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth random images and a noisy copy."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    target = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return (target + noise * torch.randn(target.shape, generator=generator)).clamp(0, 1), target


def channels_last(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).double().numpy()


def test_psnr_matches_scikit_image() -> None:
    pred, target = pair(3, 32)
    expected = [
        peak_signal_noise_ratio(channels_last(t), channels_last(p), data_range=1.0)
        for p, t in zip(pred, target, strict=True)
    ]
    assert psnr(pred, target).tolist() == pytest.approx(expected, rel=1e-5)


def test_identical_images_score_100_db() -> None:
    _, target = pair(2, 16)
    assert psnr(target, target).tolist() == pytest.approx([100.0, 100.0])


def photograph(name: str) -> torch.Tensor:
    """One of scikit-image's own, (1, 3, H, W)."""
    return torch.from_numpy(getattr(data, name)()).movedim(-1, 0)[None] / 255


def worse(image: torch.Tensor, kind: str) -> torch.Tensor:
    if kind == "noise":
        return (image + 0.1 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    if kind == "blur":
        return torch.from_numpy(ndimage.gaussian_filter(image.numpy(), (0, 0, 2, 2)))
    return image.roll(3, -1)


def similarity_of_scikit_image(pred: np.ndarray, target: np.ndarray) -> float:
    """Wang et al. 2004, by its arguments."""
    return structural_similarity(
        target, pred, data_range=1.0, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
@pytest.mark.parametrize("kind", ["noise", "blur", "shift"])
def test_ssim_of_photographs_matches_scikit_image(name: str, kind: str) -> None:
    target = photograph(name)
    pred = worse(target, kind)
    expected = similarity_of_scikit_image(channels_last(pred[0]), channels_last(target[0]))
    assert ssim(pred, target).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.realdata
@pytest.mark.parametrize("scene", ["fox", "cesium_man", "drone"])
def test_ssim_of_an_object_on_white_matches_scikit_image(scene: str, data_root: Path) -> None:
    frames = [np.asarray(Image.open(data_root / "gltf4d" / scene / "test" / f"v0_{t:03d}.png")) / 255 for t in (0, 8)]
    pred, target = (rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:] for rgba in frames)
    found = [torch.from_numpy(image).float().movedim(-1, 0)[None] for image in (pred, target)]
    expected = similarity_of_scikit_image(pred, target)
    assert ssim(*found).item() == pytest.approx(expected, abs=1e-5)
    assert ssim_full(*found).item() > expected + 0.005  # the white border is trivially right


def test_the_border_does_not_count() -> None:
    pred, target = pair(2, 32)
    corner = pred.clone()
    corner[..., 0, 0] = 1 - corner[..., 0, 0]
    weight = (ssim(corner, target) - ssim(pred, target)).abs().max()
    assert weight < 1e-5  # the corner is in one window, with the least weight
    assert (ssim_full(corner, target) - ssim_full(pred, target)).abs().max() > 100 * weight


# with a mirrored border added, scikit-image's mean is over the whole image
BORDER = ((5, 5), (5, 5), (0, 0))


def test_the_mean_with_the_border_is_that_of_a_mirrored_image() -> None:
    pred, target = pair(3, 48)
    expected = [
        similarity_of_scikit_image(*(np.pad(channels_last(image), BORDER, mode="reflect") for image in images))
        for images in zip(pred, target, strict=True)
    ]
    assert ssim_full(pred, target).tolist() == pytest.approx(expected, abs=1e-5)


def test_ssim_of_one_image_is_a_batch_of_one() -> None:
    pred, target = pair(1, 32)
    assert ssim(pred, target).shape == (1,)
    assert ssim(target, target).item() == pytest.approx(1.0)


def test_ssim_of_constant_images_is_the_luminance_term() -> None:
    bright, dark = torch.full((1, 3, 16, 16), 0.8), torch.full((1, 3, 16, 16), 0.2)
    c1 = 0.01**2
    assert ssim(bright, dark).item() == pytest.approx((2 * 0.8 * 0.2 + c1) / (0.8**2 + 0.2**2 + c1), rel=1e-4)


def test_ms_ssim_is_one_for_equals_and_falls_with_noise() -> None:
    (weak, target), (strong, _) = pair(1, 176, 0.05), pair(1, 176, 0.3)
    assert ms_ssim(target, target).item() == pytest.approx(1.0)
    assert 1 > ms_ssim(weak, target).item() > ms_ssim(strong, target).item() > 0


def five_scales(pred: np.ndarray, target: np.ndarray) -> float:
    """Wang et al. 2003 in float64, windows within the image only."""

    def mean(image: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(image, (1.5, 1.5, 0), truncate=3.5)

    product = 1.0
    for scale, exponent in enumerate([0.0448, 0.2856, 0.3001, 0.2363, 0.1333]):
        a, b = mean(pred), mean(target)
        covariance, spread = mean(pred * target) - a * b, mean(pred**2) - a**2 + mean(target**2) - b**2
        similarity = (2 * covariance + 0.03**2) / (spread + 0.03**2)
        if scale == 4:
            similarity *= (2 * a * b + 0.01**2) / (a**2 + b**2 + 0.01**2)
        product *= max(0.0, similarity[5:-5, 5:-5].mean()) ** exponent
        pred, target = (
            image[: len(image) // 2 * 2, : image.shape[1] // 2 * 2]
            .reshape(len(image) // 2, 2, image.shape[1] // 2, 2, 3)
            .mean((1, 3))
            for image in (pred, target)
        )
    return product


@pytest.mark.parametrize("kind", ["noise", "blur", "shift"])
def test_ms_ssim_of_a_photograph_is_that_of_its_definition(kind: str) -> None:
    target = photograph("chelsea")
    pred = worse(target, kind)
    expected = five_scales(channels_last(pred[0]), channels_last(target[0]))
    assert ms_ssim(pred, target).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("metric", "size"), [(ssim, 10), (ssim_full, 10), (ms_ssim, 175)])
def test_too_small_images_are_refused(metric, size: int) -> None:
    pred, target = pair(1, size)
    with pytest.raises(ValueError, match=f"got {size} x {size}"):
        metric(pred, target)
    pred, target = pair(1, size + 1)
    assert metric(pred, target).isfinite().all()


def test_masked_psnr_sees_only_the_mask() -> None:
    _, target = pair(2, 16)
    mask = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    mask[:, :, 4:8, 4:12] = True
    pred = torch.where(mask, target + 0.1, 7.0)
    assert masked_psnr(pred, target, mask).tolist() == pytest.approx([20.0, 20.0], rel=1e-4)


def test_masked_psnr_of_a_full_mask_is_psnr_and_of_an_empty_one_nan() -> None:
    pred, target = pair(2, 16)
    mask = torch.stack((torch.ones(1, 16, 16), torch.zeros(1, 16, 16))).bool()
    full, empty = masked_psnr(pred, target, mask).tolist()
    assert full == pytest.approx(psnr(pred, target)[0].item())
    assert math.isnan(empty)


@pytest.mark.parametrize("dilation", [0, 1, 8])
def test_object_mask_is_a_square_dilation(dilation: int) -> None:
    alpha = (torch.rand(1, 1, 40, 30, generator=torch.Generator().manual_seed(1)) > 0.98).float() * 0.6
    square = np.ones((2 * dilation + 1, 2 * dilation + 1), dtype=bool)
    expected = ndimage.binary_dilation(alpha[0, 0].numpy() > 0.5, square)
    assert (object_mask(alpha, dilation)[0, 0].numpy() == expected).all()


def test_object_mask_refuses_a_negative_reach() -> None:
    with pytest.raises(ValueError, match="dilation"):
        object_mask(torch.zeros(1, 1, 4, 4), -1)
