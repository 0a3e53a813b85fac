"""Keypoint Feature Calibration: the model's keypoints, read as heatmaps or as barycentres, must match the reference.

Sources: KG4D eq. 7 (heatmaps), eq. 8 (soft-argmax), eq. 9 (loss). Errors are in units of the longer image side, so that
weights carry over between image sizes.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from kg4d.geometry.cameras import Cameras
from kg4d.keypoints.settings import KeypointReading
from kg4d.keypoints.soft_argmax import soft_argmax
from kg4d.keypoints.visibility import depth_visible
from kg4d.losses.settings import KfcConfig
from kg4d.render.base import RenderOutput
from kg4d.utils.ranks import weighted_mean

Draw = Callable[[Cameras, Tensor], RenderOutput]
"""Draws the same Gaussians in other cameras, with features (N, D) in the place of their colours."""


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
