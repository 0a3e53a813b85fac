"""Noise on perfect keypoints, as from an imperfect detector, to study how much a result depends on their quality."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Optional

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.data.records import Keypoints


class DetectionsSource(StrEnum):
    """Where the keypoints and the flow of a scene folder come from."""

    GIVEN = "given"  # from the folder
    FOUND = "found"  # tracked from the keypoints of its first frame, and estimated, by the providers of `priors`


@dataclass
class DetectionsConfig:
    """Keypoints and flow of a scene folder, for studies of imperfect ones.

    The noise is independent for each keypoint in each image of the video and of the ring. It does not lower the
    confidence of the keypoints.

    Attributes:
        source: Where they come from.
        noise_px: Standard deviation of the noise on both coordinates, px at the image size of the fit.
        outliers: Fraction of keypoints moved to a random position in the bounding box of all keypoints of their image.
        missing: Fraction of keypoints that are removed.
        seed: Seed of the noise; that of the run when null.
    """

    source: DetectionsSource = DetectionsSource.GIVEN
    noise_px: float = 0.0
    outliers: float = 0.0
    missing: float = 0.0
    seed: Optional[int] = None  # noqa: UP045 - structured configs read this form

    def __post_init__(self) -> None:
        """Check the ranges of the settings.

        Raises:
            ValueError: A fraction is outside [0, 1], or the standard deviation is negative.
        """
        for name, value, most in (("noise_px", self.noise_px, float("inf")), ("outliers", self.outliers, 1.0)):
            if not 0 <= value <= most:
                raise ValueError(f"detections.{name}: must be from 0 to {most:g}, not {value}")
        if not 0 <= self.missing <= 1:
            raise ValueError(f"detections.missing: must be from 0 to 1, not {self.missing}")

    @property
    def perfect(self) -> bool:
        """Whether there is no noise at all."""
        return self.noise_px == self.outliers == self.missing == 0


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
