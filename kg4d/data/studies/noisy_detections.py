"""Noise on perfect keypoints, as from an imperfect detector, to study how much a result depends on their quality."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.data.records import Keypoints
from kg4d.data.studies.settings import DetectionsConfig


def add_noise(keypoints: Keypoints | None, config: DetectionsConfig, seed: int) -> Keypoints | None:
    """Add noise to the keypoints of the video and of the ring; what is for metrics only stays as it is.

    Args:
        keypoints: The keypoints at the image size of the fit.
        config: How much noise.
        seed: Seed of the noise if `config` has none.
    """
    if keypoints is None or config.perfect:
        return keypoints
    generator = torch.Generator().manual_seed(seed if config.seed is None else config.seed)
    uv, weights = _noisy(keypoints.uv, keypoints.weights, config, generator)
    noisy = replace(keypoints, uv=uv, weights=weights)
    if keypoints.ring_uv is None or keypoints.ring_weights is None:
        return noisy
    uv, weights = _noisy(keypoints.ring_uv, keypoints.ring_weights, config, generator)
    return replace(noisy, ring_uv=uv, ring_weights=weights)


def _noisy(
    uv: Float[Tensor, "M J 2"], weights: Float[Tensor, "M J"], config: DetectionsConfig, generator: torch.Generator
) -> tuple[Float[Tensor, "M J 2"], Float[Tensor, "M J"]]:
    seen = (weights > 0)[..., None]
    low = torch.where(seen, uv, torch.inf).amin(1, keepdim=True)
    high = torch.where(seen, uv, -torch.inf).amax(1, keepdim=True)
    random = low + (high - low) * torch.rand(uv.shape, generator=generator)
    noisy = uv + config.noise_px * torch.randn(uv.shape, generator=generator)
    draws = torch.rand(2, *weights.shape, generator=generator)
    outlier, missing = draws[0] < config.outliers, draws[1] < config.missing
    return torch.where(seen & outlier[..., None], random, noisy), weights * ~missing
