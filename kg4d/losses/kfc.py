"""Keypoint Feature Calibration: the model's keypoints, read as heatmaps or as barycentres, must match the reference.

Sources: KG4D eq. 7 (heatmaps), eq. 8 (soft-argmax), eq. 9 (loss). Errors are in units of the longer image side, so that
weights carry over between image sizes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from kg4d.geometry.cameras import Cameras
from kg4d.keypoints.soft_argmax import KeypointReading, soft_argmax
from kg4d.keypoints.visibility import depth_visible
from kg4d.render.base import RenderOutput
from kg4d.utils.ranks import weighted_mean

Draw = Callable[[Cameras, Tensor], RenderOutput]
"""Draws the same Gaussians in other cameras, with features (N, D) in the place of their colours."""


class KfcMode(StrEnum):
    """How keypoints are read off the model."""

    BARYCENTRE = "barycentre"  # projected centre of the Gaussians, weighted by softmax over N of P: amodal, no render
    HEATMAP = "heatmap"  # P rendered as J channels, then soft-argmax (KG4D eq. 7-8): sees what the image sees


class KeypointSeeding(StrEnum):
    """Where the features P start."""

    TRIANGULATED = "triangulated"  # a normal window around each keypoint, triangulated from the views of frame 0
    VIEW = "view"  # a window around the keypoints of the first frame, on the Gaussians that are in front there
    NONE = "none"  # zero: every Gaussian has the same weight in every keypoint


class KeypointVisibility(StrEnum):
    """Which reference keypoints count."""

    DETECTOR = "detector"  # all, by their confidence
    DEPTH = "depth"  # those whose counterpart in the model (its barycentre) is not hidden in the rendered depth


@dataclass
class KfcConfig:
    """Keypoint Feature Calibration.

    Attributes:
        weight: Factor of the loss (KG4D: 100); 0 switches it off in both stages.
        mode: Reading of the keypoints.
        temperature: Softmax temperature, over the image (heatmap) or over the Gaussians (barycentre).
        reading: Reduction of a heatmap to a point (the paper leaves it open).
        background_logit: Logit where nothing covers (heatmap); far below any Gaussian's. `reading: mass` has none.
        heatmap_scale: Side of the heatmaps as a fraction of the image's.
        detach_geometry: Let the loss move only the features P in the static stage.
        compactness: Weight of the spread of each keypoint's Gaussians around their barycentre.
        seeding: Where P starts.
        seed_sigma: Standard deviation of the seeds, world units; for `view` a fraction of the image's side.
        visibility: Which reference keypoints count.
        visibility_tolerance: How far behind the surface a keypoint may lie and still be seen (`depth`), world units.
        learning_rate: Adam rate of P in the static stage.
        warmup: Fraction of the dynamic stage over which the weight grows from 0.
        freeze_after: Fraction of the static stage after which P no longer changes (1: never).
    """

    SIGNED: ClassVar[tuple[str, ...]] = ("background_logit",)

    weight: float = 100.0
    mode: KfcMode = KfcMode.BARYCENTRE
    temperature: float = 0.1
    reading: KeypointReading = KeypointReading.JOINT
    background_logit: float = -10.0
    heatmap_scale: float = 0.25
    detach_geometry: bool = True
    compactness: float = 1.0
    seeding: KeypointSeeding = KeypointSeeding.TRIANGULATED
    seed_sigma: float = 0.05
    visibility: KeypointVisibility = KeypointVisibility.DETECTOR
    visibility_tolerance: float = 0.08
    learning_rate: float = 0.05
    warmup: float = 0.1
    freeze_after: float = 1.0


def keypoint_loss(
    predicted: Float[Tensor, "B J 2"], target: Float[Tensor, "B J 2"], weights: Float[Tensor, "B J"], extent_px: float
) -> Float[Tensor, ""]:
    """Weighted mean squared distance in units of `extent_px` (KG4D eq. 9).

    Args:
        predicted: The model's keypoints, px.
        target: The reference keypoints, px; where their weight is 0 they may be anything, NaN included.
        weights: Confidence of the reference, >= 0. The loss is 0 where all of them are 0.
        extent_px: Longer side of the image, px.
    """
    offset = (predicted - target).masked_fill(weights[..., None] == 0, 0.0) / extent_px
    return weighted_mean(offset.square().sum(-1), weights)


def render_heatmaps(
    draw: Draw, logits: Float[Tensor, "N J"], cameras: Cameras, config: KfcConfig
) -> Float[Tensor, "C h w J"]:
    """The keypoint features P rendered as J channels (KG4D eq. 7), at `config.heatmap_scale` of the image's resolution.

    Uncovered parts of a pixel have the background logit; the coverage in it is detached, since raising it would
    otherwise lower the loss. For `reading: mass` the maps are densities: softplus(P / temperature) on an empty
    background.

    Args:
        draw: Draws the Gaussians with features of its own in other cameras.
        logits: Their keypoint features P.
        cameras: C cameras at the resolution of the images.
        config: Scale, reading, temperature and background logit.
    """
    small = cameras.resized(
        max(1, round(cameras.width * config.heatmap_scale)), max(1, round(cameras.height * config.heatmap_scale))
    )
    if config.reading is KeypointReading.MASS:
        return draw(small, softplus(logits / config.temperature)).image
    output = draw(small, logits)
    return output.image + (1 - output.alpha.detach()) * config.background_logit


def read_heatmaps(logits: Float[Tensor, "C h w J"], cameras: Cameras, config: KfcConfig) -> Float[Tensor, "C J 2"]:
    """Keypoints of heatmaps (KG4D eq. 8), in the pixels of `cameras`."""
    height, width = logits.shape[1:3]
    read = soft_argmax(logits.movedim(-1, 1), temperature=config.temperature, reading=config.reading)
    x, y = read.pixels.unbind(-1)
    return torch.stack([x * (cameras.width / width), y * (cameras.height / height)], dim=-1)


def keypoint_visibility(
    points: Float[Tensor, "C J 3"], cameras: Cameras, output: RenderOutput, config: KfcConfig
) -> Float[Tensor, "C J"]:
    """1 where a camera sees the model's keypoint, 0 where the rendered surface hides it; no gradient flows.

    Args:
        points: The model's keypoints for each of the C cameras, world units.
        cameras: Of the renders.
        output: The render of the C cameras, with depth.
        config: The tolerance in depth.
    """
    depth, alpha = output.depth, output.alpha
    assert depth is not None
    seen = [
        depth_visible(
            points[c], cameras[c : c + 1], depth[c : c + 1], alpha[c : c + 1], tolerance=config.visibility_tolerance
        )
        for c in range(len(cameras))
    ]
    return torch.cat(seen).to(points)
