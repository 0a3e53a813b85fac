"""What the mixtures around pixels must do to follow the flow F: one function a variant, named in `WgfVariant`.

A mixture is a_k, mu_k, Sigma_k at the earlier and mu'_k, Sigma'_k at the later time. Every function returns the mean
over what counts, in squared units of `extent_px`, the longer image side. What counts has a weight: the confidence of
the flow, and zero where a pixel is hardly covered. The variants that look at pixels (A, B, F, X) take the flow there;
those that look at Gaussians (C, D, E, G) take `targets`, where the flow carries each of them: mu*_k and Sigma*_k.
"""

from jaxtyping import Float
from torch import Tensor

from kg4d.geometry.projection import Gaussians2D
from kg4d.losses.flow.mixtures import PairedMixtures
from kg4d.ot.flow_targets import Advected, barycentric_map
from kg4d.ot.gaussian_w2 import gaussian_w2, gaussian_w2_isotropic
from kg4d.ot.offset import wasserstein_offset, wasserstein_offset_closed
from kg4d.ot.plans import PlanConfig, transport_plan


def offset_loss(
    mixtures: PairedMixtures, flow: Float[Tensor, "*P 2"], confidence: Float[Tensor, "*P"], extent_px: float
) -> Float[Tensor, ""]:
    """Variant A: |F - H|², H = sum_k b_k mu'_k - sum_k a_k mu_k, which every plan gives (KG4D eq. 10-11).

    It sees translation only, and pushes all contributors of a pixel alike.
    """
    offset = wasserstein_offset_closed(
        mixtures.weights, mixtures.earlier.means, mixtures.later_weights, mixtures.later.means
    )
    return _pixel_mean(offset - flow, confidence * mixtures.covered, extent_px)


def planned_offset_loss(
    mixtures: PairedMixtures,
    flow: Float[Tensor, "*P 2"],
    confidence: Float[Tensor, "*P"],
    extent_px: float,
    plans: PlanConfig,
    isotropic: bool = False,
) -> Float[Tensor, ""]:
    """Variant A as printed, and F: |F - H|², H = sum_kk' P_kk' (mu'_k' - mu_k) (KG4D eq. 10), P without gradient.

    With a balanced plan it is `offset_loss`, whatever the cost; with an unbalanced one (F) those that a plan leaves
    behind do not count.
    """
    cost = _costs(mixtures.earlier, mixtures.later, isotropic).detach()
    plan = transport_plan(cost, mixtures.weights, mixtures.later_weights, plans)
    offset = wasserstein_offset(plan, mixtures.earlier.means, mixtures.later.means)
    return _pixel_mean(offset - flow, confidence * mixtures.covered, extent_px)


def pixel_loss(
    mixtures: PairedMixtures,
    maps: Float[Tensor, "P K 2 2"] | None,
    pixels: Float[Tensor, "P 2"],
    flow: Float[Tensor, "P 2"],
    confidence: Float[Tensor, " P"],
    extent_px: float,
) -> Float[Tensor, ""]:
    """Variant B: |F - f|², f = sum_k a_k (mu'_k + B_k (p - mu_k) - p), the model's own flow at pixel p (GaussianFlow).

    Args:
        mixtures: Around the pixels.
        maps: B_k, see `true_factors`; None takes the identity, GaussianFlow's isotropic form.
        pixels: p, px.
        flow: F at p, px.
        confidence: Of it.
        extent_px: See the head of the module.
    """
    away = pixels[:, None] - mixtures.earlier.means
    carried = away if maps is None else (maps * away[..., None, :]).sum(-1)
    model = (mixtures.weights[..., None] * (mixtures.later.means + carried - pixels[:, None])).sum(1)
    return _pixel_mean(model - flow, confidence * mixtures.covered, extent_px)


def component_loss(mixtures: PairedMixtures, targets: Advected, extent_px: float) -> Float[Tensor, ""]:
    """Variant C: sum_k a_k |mu'_k - mu*_k|²; centres only."""
    squared = (mixtures.later.means - targets.targets.means).square().sum(-1)
    return _mean(squared, _mass(mixtures, targets), extent_px)


def paired_loss(
    mixtures: PairedMixtures, targets: Advected, extent_px: float, isotropic: bool = False
) -> Float[Tensor, ""]:
    """Variant D: sum_k a_k W2²(G'_k, G*_k), each tracked Gaussian against its own image under the flow."""
    distance = gaussian_w2_isotropic if isotropic else gaussian_w2
    return _mean(distance(*mixtures.later, *targets.targets), _mass(mixtures, targets), extent_px)


def mixture_loss(
    mixtures: PairedMixtures, targets: Advected, extent_px: float, plans: PlanConfig, isotropic: bool = False
) -> Float[Tensor, ""]:
    """Variant E: sum_kk' P_kk' W2²(G*_k, G'_k'), P the transport plan of that cost, without gradient.

    It asks that the sets agree, not who is who: of use where the later Gaussians are looked up anew.
    """
    mass = _mass(mixtures, targets)
    total = mass.sum(-1)
    shares = mass / total.clamp_min(1e-12)[..., None]
    cost = _costs(targets.targets, mixtures.later, isotropic)
    later = shares if mixtures.fresh_weights is None else mixtures.fresh_weights
    plan = transport_plan(cost.detach(), shares, later, plans)
    return _mean((plan * cost).sum((-2, -1)), total, extent_px)


def barycentric_loss(
    mixtures: PairedMixtures, targets: Advected, extent_px: float, plans: PlanConfig
) -> Float[Tensor, ""]:
    """Variant G: sum_k a_k |T_k - mu*_k|², T_k where the plan between the centres of both times sends k on average.

    The cost is the squared distance of the centres: with covariances in it, scales run away.
    """
    mass = _mass(mixtures, targets)
    shares = mass / mass.sum(-1, keepdim=True).clamp_min(1e-12)
    later = shares if mixtures.fresh_weights is None else mixtures.fresh_weights
    cost = (mixtures.later.means[..., None, :, :] - mixtures.earlier.means[..., :, None, :]).square().sum(-1)
    plan = transport_plan(cost.detach(), shares, later, plans)
    squared = (barycentric_map(plan, mixtures.later.means) - targets.targets.means).square().sum(-1)
    return _mean(squared, mass, extent_px)


def distance_loss(
    mixtures: PairedMixtures,
    flow: Float[Tensor, "*P 2"],
    confidence: Float[Tensor, "*P"],
    extent_px: float,
    plans: PlanConfig,
    isotropic: bool = False,
) -> Float[Tensor, ""]:
    """Variant X: (W - |F|)², W² = sum_kk' P_kk' W2²(G_k, G'_k').

    A distance has no direction: the opposite motion costs as little. For comparison, never alone.
    """
    cost = _costs(mixtures.earlier, mixtures.later, isotropic)
    plan = transport_plan(cost.detach(), mixtures.weights, mixtures.later_weights, plans)
    moved = ((plan * cost).sum((-2, -1)) + 1e-6).sqrt()  # px; the floor keeps the root differentiable
    weights = confidence * mixtures.covered
    error = (moved - flow.norm(dim=-1)).masked_fill(weights == 0, 0.0)
    return _mean(error.square(), weights, extent_px)


def _costs(a: Gaussians2D, b: Gaussians2D, isotropic: bool) -> Float[Tensor, "*P K L"]:
    """W2² of each Gaussian of one set to each of the other."""
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
    return (weights * squared).sum() / weights.sum().clamp_min(1.0) / extent_px**2
