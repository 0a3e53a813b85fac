"""The flow loss, motivated by Wasserstein gradient flows: the mixtures at the keypoints must move as the image does.

The K Gaussians that contribute at a keypoint's pixel at time t are looked up once and *tracked*: the same K at t' make
up the second mixture. (Looked up afresh at the displaced pixel, a model that does not move at all would already satisfy
the loss.)

Variant A is KG4D eq. 10-11: the offset of the mixtures' barycentres equals the flow. Every transport plan with the
right marginals gives that same offset, so the closed form is used. It is a pure translation force.
Variant D pairs each Gaussian with its own image under the flow and its Jacobian, in the 2-Wasserstein metric of
Gaussians: it also sees rotation and scale, and needs a dense flow.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

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
from kg4d.render.base import Renderer, RenderOutput


class WgfVariant(StrEnum):
    """Which form of the loss."""

    A = "a"  # mean offset equals the flow (KG4D eq. 10-11)
    A_D = "a+d"  # the same, and each Gaussian matches its flow-advected image


class FlowSource(StrEnum):
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
    mixture: ContributorWeights = ContributorWeights.CONTRIBUTION
    isotropic: bool = False
    flow: FlowSource = FlowSource.DENSE
    random_pixels: int = 64
    warmup: float = 0.1


@dataclass(frozen=True)
class DenseFlow:
    """Optical flow from the earlier frame of a pair to the later one.

    Attributes:
        flow: Displacement (dx, dy), px.
        weights: Confidence in [0, 1]; 0 where the flow is not known.
        jacobian: `kg4d.ot.flow_targets.flow_jacobian` of the two.
    """

    flow: Float[Tensor, "H W 2"]
    weights: Float[Tensor, "H W"]
    jacobian: Float[Tensor, "H W 2 2"]


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

    def head(self, count: int) -> "PairedMixtures":
        """The first `count` pixels."""
        return replace(
            self,
            weights=self.weights[:count],
            covered=self.covered[:count],
            earlier=Gaussians2D(self.earlier.means[:count], self.earlier.covs[:count]),
            later=Gaussians2D(self.later.means[:count], self.later.covs[:count]),
        )


def project_tracked(ids: Int[Tensor, "P K"], geometry: DeformedGeometry, index: int, cameras: Cameras) -> Gaussians2D:
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
    offset = wasserstein_offset_closed(mixtures.weights, mixtures.earlier.means, mixtures.weights, mixtures.later.means)
    weights = confidence * mixtures.covered
    error = (offset - flow).masked_fill(weights[:, None] == 0, 0.0) / extent_px
    return (weights * error.square().sum(-1)).sum() / weights.sum().clamp_min(1.0)


def paired_loss(
    mixtures: PairedMixtures, dense: DenseFlow, extent_px: float, isotropic: bool = False
) -> Float[Tensor, ""]:
    """Variant D: mean squared W2 distance of each tracked Gaussian at t' to its image under the flow.

    Gaussians whose centre has no valid flow do not count.
    """
    target, valid = advect(mixtures.earlier, dense.flow, dense.jacobian, dense.weights)
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
    source: FlowSource, pixels: Float[Tensor, "2 J 2"], weights: Float[Tensor, "2 J"], dense: DenseFlow | None
) -> tuple[Float[Tensor, "J 2"], Float[Tensor, " J"]]:
    """Reference motion of each keypoint from the earlier to the later frame, px, and its confidence in [0, 1].

    Without a dense flow it is the difference of the keypoint's positions.
    """
    safe = torch.where(weights[..., None] > 0, pixels, torch.zeros_like(pixels))
    if source is FlowSource.KEYPOINTS or dense is None:
        return safe[1] - safe[0], weights[0] * weights[1]
    confidence = sample_image(dense.weights[..., None], safe[0])[..., 0]
    # a keypoint near the silhouette mixes flow and background: only pixels whose four neighbours are all known count
    return sample_image(dense.flow, safe[0]), weights[0] * weights[1] * (confidence > 0.99)


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


def wgf_losses(
    config: WgfConfig,
    renderer: Renderer,
    output: RenderOutput,
    opacities: Float[Tensor, " N"],
    geometry: DeformedGeometry,
    pair: tuple[int, int],
    cameras: Cameras,
    pixels: Float[Tensor, "2 J 2"],
    weights: Float[Tensor, "2 J"],
    dense: DenseFlow | None,
    generator: torch.Generator,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""] | None]:
    """The loss of one pair of frames: the offset part (variant A), and the paired part (D) where there is one.

    Args:
        config: Variant and its options.
        renderer: Looks up contributors.
        output: Its render of the earlier frame alone.
        opacities: Of all Gaussians.
        geometry: At the times of the batch.
        pair: Positions of the earlier and the later frame in the batch.
        cameras: Of the batch.
        pixels: Keypoints in the two frames.
        weights: Their confidences.
        dense: Flow between the two frames, where known.
        generator: Draws the random pixels.
    """
    motion, confidence = keypoint_motion(config.flow, pixels, weights, dense)
    points = torch.where(weights[0][:, None] > 0, pixels[0], torch.zeros_like(pixels[0]))
    target = dense if config.variant is WgfVariant.A_D else None
    if target is not None:
        points = torch.cat([points, random_flow_pixels(target.weights, config.random_pixels, generator)])
    first = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    ids, blending = renderer.contributors(output, first, points, config.contributors)
    mixtures = pair_mixtures(ids, blending, opacities, geometry, pair, cameras, config.mixture)
    extent_px = float(max(cameras.width, cameras.height))
    offset = offset_loss(mixtures.head(len(confidence)), motion, confidence, extent_px)
    if target is None:
        return offset, None
    return offset, paired_loss(mixtures, target, extent_px, config.isotropic)
