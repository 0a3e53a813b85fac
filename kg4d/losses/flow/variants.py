"""What the mixtures around pixels must do to follow the flow F: one function per variant of the loss (`WgfVariant`).

A mixture is a_k, mu_k, Sigma_k at the earlier time and b_k, mu'_k, Sigma'_k at the later time; where the Gaussians are
tracked, b_k = a_k. Every function returns a weighted mean of squared px, divided by `extent_px` squared, so that the
weight in a configuration carries over between image sizes. A pixel that is hardly covered does not count.

Variants a, b, f and x compare at pixels and take the flow there. Variants c, d, e and g compare at Gaussians and take
`targets`: where the flow carries each of the earlier ones, mu*_k = mu_k + F(mu_k) and Sigma*_k.
"""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from kg4d.geometry.projection import Gaussians2D
from kg4d.losses.flow.mixtures import PairedMixtures
from kg4d.ot.flow_targets import Advected, barycentric_map
from kg4d.ot.gaussian_w2 import gaussian_w2, gaussian_w2_isotropic
from kg4d.ot.offset import wasserstein_offset, wasserstein_offset_closed
from kg4d.ot.plans import transport_plan
from kg4d.ot.settings import PlanConfig
from kg4d.utils.ranks import weighted_mean


class PixelFlow(NamedTuple):
    """The reference flow at pixels."""

    flow: Float[Tensor, "*P 2"]  # (dx, dy) from the earlier to the later frame, px
    confidence: Float[Tensor, "*P"]  # in [0, 1]; where it is 0 the flow may be anything, NaN included


def offset_loss(mixtures: PairedMixtures, reference: PixelFlow, extent_px: float) -> Float[Tensor, ""]:
    """Variant a: |F - H|² with H = sum_k b_k mu'_k - sum_k a_k mu_k, which every plan gives (KG4D eq. 10-11).

    It sees translation only, and pushes all contributors of a pixel alike.
    """
    offset = wasserstein_offset_closed(
        mixtures.weights, mixtures.earlier.means, mixtures.later_weights, mixtures.later.means
    )
    return _pixel_mean(offset - reference.flow, reference.confidence * mixtures.covered, extent_px)


def planned_offset_loss(
    mixtures: PairedMixtures, reference: PixelFlow, extent_px: float, plans: PlanConfig, isotropic: bool = False
) -> Float[Tensor, ""]:
    """Variant a as printed, and variant f: |F - H|² with H = sum_kk' P_kk' (mu'_k' - mu_k) (KG4D eq. 10-11).

    A balanced plan gives the value of `offset_loss`, whatever the cost. An unbalanced plan (variant f) may leave
    Gaussians behind, and those do not count.

    Args:
        mixtures: Around the pixels.
        reference: The flow F at the pixels.
        extent_px: Longer side of the image, px.
        plans: How the transport plan P is found; no gradient flows through it.
        isotropic: Take each covariance in the plan's cost as a disc of equal trace.
    """
    cost = _costs(mixtures.earlier, mixtures.later, isotropic).detach()
    plan = transport_plan(cost, mixtures.weights, mixtures.later_weights, plans)
    offset = wasserstein_offset(plan, mixtures.earlier.means, mixtures.later.means)
    return _pixel_mean(offset - reference.flow, reference.confidence * mixtures.covered, extent_px)


def pixel_loss(
    mixtures: PairedMixtures,
    maps: Float[Tensor, "P K 2 2"] | None,
    pixels: Float[Tensor, "P 2"],
    reference: PixelFlow,
    extent_px: float,
) -> Float[Tensor, ""]:
    """Variant b: |F - f|², f = sum_k a_k (mu'_k + B_k (p - mu_k) - p) the model's own flow at pixel p (GaussianFlow).

    Args:
        mixtures: Around the pixels.
        maps: The matrices B_k of `true_factors`; None takes the identity, the isotropic form of GaussianFlow.
        pixels: The points p, px; anything where nothing counts, NaN included.
        reference: The flow F at p.
        extent_px: Longer side of the image, px.
    """
    weights = reference.confidence * mixtures.covered
    # before it meets B_k, whose gradient is `away` times that of the error: 0 times NaN is NaN
    pixels = pixels.masked_fill(weights[:, None] == 0, 0.0)
    away = pixels[:, None] - mixtures.earlier.means
    carried = away if maps is None else (maps * away[..., None, :]).sum(-1)
    model = (mixtures.weights[..., None] * (mixtures.later.means + carried - pixels[:, None])).sum(1)
    return _pixel_mean(model - reference.flow, weights, extent_px)


def component_loss(mixtures: PairedMixtures, targets: Advected, extent_px: float) -> Float[Tensor, ""]:
    """Variant c: sum_k a_k |mu'_k - mu*_k|²; centres only."""
    squared = (mixtures.later.means - targets.targets.means).square().sum(-1)
    return _mean(squared, _mass(mixtures, targets), extent_px)


def paired_loss(
    mixtures: PairedMixtures, targets: Advected, extent_px: float, isotropic: bool = False
) -> Float[Tensor, ""]:
    """Variant d: sum_k a_k W2²(G'_k, G*_k), each tracked Gaussian against its own image under the flow.

    Args:
        mixtures: Tracked, so that the k-th Gaussian is the same one at both times.
        targets: Where the flow carries the earlier Gaussians, and how sure it is there.
        extent_px: Longer side of the image, px.
        isotropic: Take each covariance as a disc of equal trace.
    """
    distance = gaussian_w2_isotropic if isotropic else gaussian_w2
    return _mean(distance(*mixtures.later, *targets.targets), _mass(mixtures, targets), extent_px)


def mixture_loss(
    mixtures: PairedMixtures, targets: Advected, extent_px: float, plans: PlanConfig, isotropic: bool = False
) -> Float[Tensor, ""]:
    """Variant e: sum_kk' P_kk' W2²(G*_k, G'_k'), P the transport plan of that cost.

    The two sets must agree, whichever Gaussian matches which: of use where the later ones are looked up anew.

    Args:
        mixtures: Around the pixels, tracked or looked up anew.
        targets: Where the flow carries the earlier Gaussians, and how sure it is there.
        extent_px: Longer side of the image, px.
        plans: How the transport plan P is found; no gradient flows through it.
        isotropic: Take each covariance as a disc of equal trace.
    """
    mass = _mass(mixtures, targets)
    total = mass.sum(-1)
    earlier_weights = mass / total.clamp_min(1e-12)[..., None]
    cost = _costs(targets.targets, mixtures.later, isotropic)
    later_weights = earlier_weights if mixtures.fresh_weights is None else mixtures.fresh_weights
    plan = transport_plan(cost.detach(), earlier_weights, later_weights, plans)
    return _mean((plan * cost).sum((-2, -1)), total, extent_px)


def barycentric_loss(
    mixtures: PairedMixtures, targets: Advected, extent_px: float, plans: PlanConfig
) -> Float[Tensor, ""]:
    """Variant g: sum_k a_k |T_k - mu*_k|², T_k the mean position that the plan sends k to.

    The plan's cost is the squared distance of the centres: with covariances in it, scales run away.

    Args:
        mixtures: Around the pixels, tracked or looked up anew.
        targets: Where the flow carries the earlier Gaussians, and how sure it is there.
        extent_px: Longer side of the image, px.
        plans: How the transport plan is found; no gradient flows through it.
    """
    mass = _mass(mixtures, targets)
    earlier_weights = mass / mass.sum(-1, keepdim=True).clamp_min(1e-12)
    later_weights = earlier_weights if mixtures.fresh_weights is None else mixtures.fresh_weights
    cost = (mixtures.later.means[..., None, :, :] - mixtures.earlier.means[..., :, None, :]).square().sum(-1)
    plan = transport_plan(cost.detach(), earlier_weights, later_weights, plans)
    squared = (barycentric_map(plan, mixtures.later.means) - targets.targets.means).square().sum(-1)
    return _mean(squared, mass, extent_px)


def distance_loss(
    mixtures: PairedMixtures, reference: PixelFlow, extent_px: float, plans: PlanConfig, isotropic: bool = False
) -> Float[Tensor, ""]:
    """Variant x: (W - |F|)², W² = sum_kk' P_kk' W2²(G_k, G'_k').

    A distance has no direction: the opposite motion costs as little. For comparison, never alone.

    Args:
        mixtures: Around the pixels.
        reference: The flow F at the pixels.
        extent_px: Longer side of the image, px.
        plans: How the transport plan P is found; no gradient flows through it.
        isotropic: Take each covariance as a disc of equal trace.
    """
    cost = _costs(mixtures.earlier, mixtures.later, isotropic)
    plan = transport_plan(cost.detach(), mixtures.weights, mixtures.later_weights, plans)
    moved = ((plan * cost).sum((-2, -1)) + 1e-6).sqrt()  # px; the floor keeps the root differentiable
    weights = reference.confidence * mixtures.covered
    error = (moved - reference.flow.norm(dim=-1)).masked_fill(weights == 0, 0.0)
    return _mean(error.square(), weights, extent_px)


def _costs(a: Gaussians2D, b: Gaussians2D, isotropic: bool) -> Float[Tensor, "*P K L"]:
    """W2² of each Gaussian of one set to each of the other, px²."""
    distance = gaussian_w2_isotropic if isotropic else gaussian_w2
    return distance(
        a.means[..., :, None, :], a.covs[..., :, None, :, :], b.means[..., None, :, :], b.covs[..., None, :, :, :]
    )


def _mass(mixtures: PairedMixtures, targets: Advected) -> Float[Tensor, "*P K"]:
    """How much each Gaussian counts: not at all where its centre has no valid flow."""
    return mixtures.weights * mixtures.covered[..., None] * targets.weights


def _pixel_mean(error: Float[Tensor, "*P 2"], weights: Float[Tensor, "*P"], extent_px: float) -> Float[Tensor, ""]:
    """Mean of the squared errors; where the weight is 0 they may be anything, NaN included."""
    return _mean(error.masked_fill(weights[..., None] == 0, 0.0).square().sum(-1), weights, extent_px)


def _mean(squared: Float[Tensor, "*P"], weights: Float[Tensor, "*P"], extent_px: float) -> Float[Tensor, ""]:
    return weighted_mean(squared, weights) / extent_px**2
