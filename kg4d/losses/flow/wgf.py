"""The flow loss, motivated by Wasserstein gradient flows: the mixtures at pixels must move as the image does.

The K Gaussians that contribute at a pixel at time t are looked up once and *tracked*: the same K at t' make up the
second mixture. (If they were looked up afresh at the displaced pixel, a model that does not move at all would already
satisfy the loss; `ContributorSelection.FRESH` is there to show it.) Mixtures are looked up at the keypoints and at
random pixels of the flow; what they must fulfil is the variant's matter, see `kg4d.losses.flow.variants`.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.losses.flow.mixtures import PairedMixtures, paired_mixtures, there_too, true_factors
from kg4d.losses.flow.observations import ObservedPairs, RenderedModel, flow_at, keypoint_motion, random_pixels_of_pairs
from kg4d.losses.flow.settings import BY_GAUSSIAN, DENSE, ContributorSelection, WgfConfig, WgfVariant
from kg4d.losses.flow.variants import (
    PixelFlow,
    barycentric_loss,
    component_loss,
    distance_loss,
    mixture_loss,
    offset_loss,
    paired_loss,
    pixel_loss,
    planned_offset_loss,
)
from kg4d.ot.flow_targets import Advected, advect
from kg4d.ot.settings import PlanSolver


class WgfTerm(NamedTuple):
    """A part of the loss."""

    value: Float[Tensor, ""]
    weight: float = 1.0  # relative to the weight of the loss


def wgf_losses(
    config: WgfConfig, model: RenderedModel, observed: ObservedPairs, generator: torch.Generator
) -> dict[str, WgfTerm]:
    """The parts of the loss over all pairs of a batch, by name; none where the flow that they need is not known.

    Args:
        config: Variant and its options.
        model: At the frames of the batch.
        observed: At least one pair.
        generator: Draws the random pixels.
    """
    pixels = _pixels(config, observed, generator)
    if pixels.points.shape[1] == 0:
        return {}
    pairs, cameras = observed.frames, observed.cameras
    found = model.contributors(pairs[:, 0], pixels.points, config.contributors)
    fresh = None
    if config.selection is ContributorSelection.FRESH:
        displaced = pixels.points + pixels.reference.flow
        fresh = model.contributors(pairs[:, 1], displaced, config.contributors)
    pair_of_pixel = pairs[:, None].expand(-1, pixels.points.shape[1], -1).flatten(0, 1)
    if fresh is None:
        found = there_too(found, model.geometry, pair_of_pixel[:, 1])
    eps2d = model.output.options.eps2d
    flat = paired_mixtures(
        found,
        model.geometry.base.opacities,
        model.geometry,
        pair_of_pixel,
        cameras,
        config.mixture,
        fresh=fresh,
        eps2d=eps2d,
    )
    if config.variant is WgfVariant.PIXEL:
        maps = None if config.isotropic else true_factors(found, model.geometry, pair_of_pixel, cameras, eps2d)
        reference = PixelFlow(pixels.reference.flow.flatten(0, 1), pixels.reference.confidence.flatten())
        return {"pixel": WgfTerm(pixel_loss(flat, maps, pixels.points.flatten(0, 1), reference, observed.extent_px))}
    mixtures, count = flat.of_each(len(pairs)), pixels.keypoints
    terms = {}
    if count > 0:
        reference = PixelFlow(pixels.reference.flow[:, :count], pixels.reference.confidence[:, :count])
        terms = _at_pixels(config, mixtures.first(count), reference, observed.extent_px)
    if config.variant in BY_GAUSSIAN and observed.fields is not None:
        targets = advect(mixtures.earlier, observed.fields)
        terms |= _at_gaussians(config, mixtures, targets, observed.extent_px)
    return terms


@dataclass(frozen=True)
class _Pixels:
    """Where the mixtures of Q pairs are looked up: P points of the earlier frames, px."""

    points: Float[Tensor, "Q P 2"]  # keypoints first, then random pixels
    reference: PixelFlow  # at all P points where the variant needs that, else at the keypoints
    keypoints: int  # how many of the points are keypoints


def _pixels(config: WgfConfig, observed: ObservedPairs, generator: torch.Generator) -> _Pixels:
    pairs, fields = observed.frames, observed.fields
    keypoints = torch.where(observed.weights[..., None] > 0, observed.keypoints, 0.0)[pairs]
    motion = keypoint_motion(config.flow, keypoints, observed.weights[pairs], fields)
    count = keypoints.shape[2] if config.at_keypoints else 0
    points, flow, confidence = keypoints[:, 0, :count], motion.flow[:, :count], motion.confidence[:, :count]
    drawn = random_pixels_of_pairs(observed, config.random_pixels, generator) if config.variant in DENSE else None
    if drawn is not None and fields is not None:
        points = torch.cat([points, drawn], dim=1)
        if config.variant is WgfVariant.PIXEL or config.selection is ContributorSelection.FRESH:
            there = flow_at(fields, drawn.nan_to_num())
            flow = torch.cat([flow, there.flow], dim=1)
            confidence = torch.cat([confidence, there.confidence], dim=1)
    return _Pixels(points, PixelFlow(flow, confidence), count)


def _at_pixels(
    config: WgfConfig, mixtures: PairedMixtures, reference: PixelFlow, extent_px: float
) -> dict[str, WgfTerm]:
    """What the mixtures at the keypoints must fulfil as wholes."""
    plans, isotropic = config.plan, config.isotropic
    match config.variant:
        case WgfVariant.OFFSET if config.explicit_plan:
            return {"offset": WgfTerm(planned_offset_loss(mixtures, reference, extent_px, plans, isotropic))}
        case WgfVariant.OFFSET | WgfVariant.OFFSET_AND_PAIRED:
            return {"offset": WgfTerm(offset_loss(mixtures, reference, extent_px))}
        case WgfVariant.RELAXED_OFFSET:
            plans = replace(plans, solver=PlanSolver.UNBALANCED)
            return {"relaxed_offset": WgfTerm(planned_offset_loss(mixtures, reference, extent_px, plans, isotropic))}
        case WgfVariant.DISTANCE:
            return {"distance": WgfTerm(distance_loss(mixtures, reference, extent_px, plans, isotropic))}
        case _:
            return {}


def _at_gaussians(
    config: WgfConfig, mixtures: PairedMixtures, targets: Advected, extent_px: float
) -> dict[str, WgfTerm]:
    """What each Gaussian must fulfil."""
    match config.variant:
        case WgfVariant.OFFSET_AND_PAIRED:
            value = paired_loss(mixtures, targets, extent_px, config.isotropic)
            return {"paired": WgfTerm(value, config.paired_weight)}
        case WgfVariant.CENTRES:
            return {"centres": WgfTerm(component_loss(mixtures, targets, extent_px))}
        case WgfVariant.PAIRED:
            return {"paired": WgfTerm(paired_loss(mixtures, targets, extent_px, config.isotropic))}
        case WgfVariant.MIXTURE:
            return {"mixture": WgfTerm(mixture_loss(mixtures, targets, extent_px, config.plan, config.isotropic))}
        case WgfVariant.BARYCENTRIC:
            return {"barycentric": WgfTerm(barycentric_loss(mixtures, targets, extent_px, config.plan))}
        case _:
            return {}
