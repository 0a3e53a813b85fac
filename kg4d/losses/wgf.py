"""The flow loss of KG4D, motivated by Wasserstein gradient flows: keypoints' Gaussian mixtures must move as the image does.

The K Gaussians that contribute at a keypoint's pixel at time t are looked up once and *tracked*: the same K at t' make up the
second mixture. (Looked up afresh at the displaced pixel, a model that does not move at all would already satisfy the loss.)

Variant A is KG4D eq. 10-11: the offset of the mixtures' barycentres equals the flow. Every transport plan with the right
marginals gives that same offset, so the closed form is used. It is a pure translation force.
Variant D pairs each Gaussian with its own image under the flow and its Jacobian, in the 2-Wasserstein metric of Gaussians:
it also sees rotation and scale, and needs a dense flow.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kg4d.deform.base import DeformedGeometry
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.projection import Gaussians2D, project_gaussians
from kg4d.geometry.sampling import sample_image
from kg4d.ot.flow_targets import advect
from kg4d.ot.gaussian_w2 import gaussian_w2, gaussian_w2_isotropic
from kg4d.ot.mixture import ContributorWeights, mixture_weights
from kg4d.ot.offset import wasserstein_offset_closed


class WgfVariant(str, Enum):
    """Which form of the loss."""

    A = "a"  # mean offset equals the flow (KG4D eq. 10-11)
    A_D = "a+d"  # the same, and each Gaussian matches its flow-advected image


class FlowSource(str, Enum):
    """Where the reference motion of a keypoint comes from."""

    DENSE = "dense"  # the dense flow, sampled at the keypoint
    KEYPOINTS = "keypoints"  # the difference of the keypoint's positions


@dataclass
class WgfConfig:
    """The flow loss.

    Attributes:
        weight: Factor of the loss; 0 switches it off.
        variant: Form of the loss.
        paired_weight: Weight of variant D's part relative to `weight`.
        contributors: Gaussians looked up at each pixel (K).
        mixture: Weights inside a mixture.
        isotropic: Reduce each projected covariance to its mean variance (KG4D's simplification).
        flow: Source of the keypoints' motion; without a dense flow it is `keypoints`.
        random_pixels: Further pixels with a known flow drawn per pair for variant D.
        warmup: Share of the stage over which the weight grows from 0.
    """

    weight: float = 100.0
    variant: WgfVariant = WgfVariant.A_D
    paired_weight: float = 0.5
    contributors: int = 20
    mixture: ContributorWeights = ContributorWeights.contribution
    isotropic: bool = False
    flow: FlowSource = FlowSource.DENSE
    random_pixels: int = 256
    warmup: float = 0.1


@dataclass(frozen=True)
class PairedMixtures:
    """The same Gaussians, seen around P pixels at two times.

    Attributes:
        weights: Mixture weights, summing to 1 over K (0 is padding).
        covered: Whether enough of the pixel is covered for the mixture to mean anything, 1 or 0.
        earlier: The K Gaussians at t.
        later: The same at t'.
    """

    weights: Float[Tensor, "P K"]
    covered: Float[Tensor, " P"]
    earlier: Gaussians2D
    later: Gaussians2D

    def head(self, count: int) -> Self:
        """The first `count` pixels."""
        return replace(
            self,
            weights=self.weights[:count],
            covered=self.covered[:count],
            earlier=Gaussians2D(self.earlier.means[:count], self.earlier.covs[:count]),
            later=Gaussians2D(self.later.means[:count], self.later.covs[:count]),
        )


def project_tracked(
    ids: Int[Tensor, "P K"], geometry: DeformedGeometry, index: int, cameras: Cameras
) -> Gaussians2D:
    """Project the chosen Gaussians at the `index`-th time into its camera; padding (-1) gives some valid Gaussian."""
    chosen = ids.clamp_min(0)
    return project_gaussians(
        geometry.means[index][chosen],
        geometry.quats[index][chosen],
        geometry.scales[index][chosen],
        cameras.viewmats[index],
        cameras.Ks[index],
        cameras.width,
        cameras.height,
    )


def offset_loss(
    mixtures: PairedMixtures, flow: Float[Tensor, "P 2"], confidence: Float[Tensor, " P"], extent_px: float
) -> Float[Tensor, ""]:
    """Variant A: weighted mean of |F - H|² over the pixels (KG4D eq. 10-11), in squared units of `extent_px`."""
    offset = wasserstein_offset_closed(
        mixtures.weights, mixtures.earlier.means, mixtures.weights, mixtures.later.means
    )
    weights = confidence * mixtures.covered
    error = (offset - flow).masked_fill(weights[:, None] == 0, 0.0) / extent_px
    return (weights * error.square().sum(-1)).sum() / weights.sum().clamp_min(1.0)


def paired_loss(
    mixtures: PairedMixtures,
    flow: Float[Tensor, "H W 2"],
    flow_jacobian: Float[Tensor, "H W 2 2"],
    flow_weights: Float[Tensor, "H W"],
    extent_px: float,
    isotropic: bool,
) -> Float[Tensor, ""]:
    """Variant D: mean squared W2 distance of each tracked Gaussian at t' to its image under the flow.

    Gaussians whose centre has no valid flow do not count.
    """
    target, valid = advect(mixtures.earlier, flow, flow_jacobian, flow_weights)
    weights = mixtures.weights * mixtures.covered[:, None] * valid
    distance = gaussian_w2_isotropic if isotropic else gaussian_w2
    squared = distance(mixtures.later.means, mixtures.later.covs, target.means, target.covs) / extent_px**2
    return (weights * squared).sum() / weights.sum().clamp_min(1.0)


def random_flow_pixels(
    flow_weights: Float[Tensor, "H W"], count: int, generator: torch.Generator
) -> Float[Tensor, "P 2"]:
    """Centres of `count` pixels drawn among those with a known flow; none where there is none."""
    rows, columns = torch.nonzero(flow_weights > 0, as_tuple=True)
    if len(rows) == 0 or count == 0:
        return flow_weights.new_zeros(0, 2)
    drawn = torch.randint(len(rows), (count,), generator=generator).to(rows.device)
    return torch.stack([columns[drawn], rows[drawn]], dim=-1) + 0.5


def keypoint_motion(
    source: FlowSource,
    pixels: Float[Tensor, "2 J 2"],
    weights: Float[Tensor, "2 J"],
    flow: Float[Tensor, "H W 2"] | None,
    flow_weights: Float[Tensor, "H W"] | None,
) -> tuple[Float[Tensor, "J 2"], Float[Tensor, " J"]]:
    """Reference motion of each keypoint from the earlier to the later frame, px, and its confidence in [0, 1]."""
    safe = torch.where(weights[..., None] > 0, pixels, torch.zeros_like(pixels))
    if source is FlowSource.KEYPOINTS or flow is None or flow_weights is None:
        return safe[1] - safe[0], weights[0] * weights[1]
    motion = sample_image(flow, safe[0])
    confidence = sample_image(flow_weights[..., None], safe[0])[..., 0]
    # a keypoint near the silhouette mixes flow and background: only pixels whose four neighbours are all known count
    return motion, weights[0] * weights[1] * (confidence > 0.99)


def pair_mixtures(
    ids: Int[Tensor, "P K"],
    blending: Float[Tensor, "P K"],
    opacities: Float[Tensor, " N"],
    geometry: DeformedGeometry,
    pair: tuple[int, int],
    cameras: Cameras,
    kind: ContributorWeights,
) -> PairedMixtures:
    """Build the two mixtures of tracked Gaussians around P pixels from the contributors found at the earlier frame."""
    mixture = mixture_weights(blending, ids, opacities, kind)
    return PairedMixtures(
        weights=mixture.weights,
        covered=mixture.covered.to(blending.dtype),
        earlier=project_tracked(ids, geometry, pair[0], cameras),
        later=project_tracked(ids, geometry, pair[1], cameras),
    )
