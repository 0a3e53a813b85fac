"""Keypoints as a detector would give them, made of perfect ones: how much of a result hangs on their quality?"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Optional

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.data.records import Keypoints


class DetectionsSource(StrEnum):
    """Where keypoints and flow of a scene folder come from."""

    GIVEN = "given"  # the folder
    FOUND = "found"  # the keypoints of its first frame, followed by the providers of `priors`; so the flow


@dataclass
class DetectionsConfig:
    """Keypoints and flow of a scene folder, for studies of what happens when they are not perfect.

    Noise strikes each keypoint in each image by itself, in the video and in the ring, and confidences do not show it.

    Attributes:
        source: Where they come from.
        noise_px: Standard deviation of noise on both coordinates, px of the images that the fit works on.
        outliers: Share of keypoints that are moved to any place in the box of all keypoints of their image.
        missing: Share of keypoints that are taken away.
        seed: Of the noise; that of the run when null.
    """

    source: DetectionsSource = DetectionsSource.GIVEN
    noise_px: float = 0.0
    outliers: float = 0.0
    missing: float = 0.0
    seed: Optional[int] = None  # noqa: UP045 - structured configs read this form

    def __post_init__(self) -> None:
        """Refuse what is no noise.

        Raises:
            ValueError: A share is outside [0, 1], or the deviation is negative.
        """
        for name, value, most in (("noise_px", self.noise_px, float("inf")), ("outliers", self.outliers, 1.0)):
            if not 0 <= value <= most:
                raise ValueError(f"detections.{name}: must be from 0 to {most:g}, not {value}")
        if not 0 <= self.missing <= 1:
            raise ValueError(f"detections.missing: must be from 0 to 1, not {self.missing}")

    @property
    def perfect(self) -> bool:
        """Whether nothing is disturbed."""
        return self.noise_px == self.outliers == self.missing == 0


def add_noise(keypoints: Keypoints | None, config: DetectionsConfig, seed: int) -> Keypoints | None:
    """The same keypoints with noise; the truth and the test videos stay as they are.

    Args:
        keypoints: At the resolution of the fit.
        config: How much noise.
        seed: Of the noise where `config` has none.
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
    anywhere = low + (high - low) * torch.rand(uv.shape, generator=generator)
    noisy = uv + config.noise_px * torch.randn(uv.shape, generator=generator)
    chance = torch.rand(2, *weights.shape, generator=generator)
    wrong, gone = chance[0] < config.outliers, chance[1] < config.missing
    return torch.where(seen & wrong[..., None], anywhere, noisy), weights * ~gone
