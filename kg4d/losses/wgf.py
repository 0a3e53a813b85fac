"""The flow loss, motivated by Wasserstein gradient flows: the mixtures at the keypoints must move as the image does.

The K Gaussians that contribute at a keypoint's pixel at time t are looked up once and *tracked*: the same K at t' make
up the second mixture. (Looked up afresh at the displaced pixel, a model that does not move at all would already satisfy
the loss.)

Variant A is KG4D eq. 10-11: the offset of the mixtures' barycentres equals the flow. Every transport plan with the
right marginals gives that same offset, so the closed form is used. It is a pure translation force.
Variant D pairs each Gaussian with its own image under the flow and its Jacobian, in the 2-Wasserstein metric of
Gaussians: it also sees rotation and scale, and needs a dense flow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kg4d.deform.base import DeformedGeometry
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.projection import Gaussians2D
from kg4d.geometry.sampling import sample_image
from kg4d.ot.flow_targets import Advected, FlowField, advect
from kg4d.ot.gaussian_w2 import gaussian_w2, gaussian_w2_isotropic
from kg4d.ot.mixture import ContributorWeights, mixture_weights
from kg4d.ot.offset import wasserstein_offset_closed
from kg4d.render.base import Contributors, Renderer, RenderOutput
from kg4d.render.chosen import project_chosen


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
class PairedMixtures:
    """The same Gaussians, seen around P pixels at two times.

    Attributes:
        weights: Mixture weights, summing to 1 over K (0 is padding).
        covered: Whether enough of the pixel is covered for the mixture to mean anything, 1 or 0.
        earlier: The K Gaussians at t.
        later: The same at t'.
    """

    weights: Float[Tensor, "*P K"]
    covered: Float[Tensor, "*P"]
    earlier: Gaussians2D
    later: Gaussians2D

    def rows(self, chosen: slice | Int[Tensor, "*rows"]) -> "PairedMixtures":
        """Some of the pixels, in the shape of `chosen`."""
        return PairedMixtures(
            self.weights[chosen],
            self.covered[chosen],
            Gaussians2D(self.earlier.means[chosen], self.earlier.covs[chosen]),
            Gaussians2D(self.later.means[chosen], self.later.covs[chosen]),
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
    mixtures: PairedMixtures, targets: Advected, extent_px: float, isotropic: bool = False
) -> Float[Tensor, ""]:
    """Variant D: mean squared W2 distance of each tracked Gaussian at t' to its image under the flow, `targets`.

    Gaussians whose centre has no valid flow do not count.
    """
    weights = mixtures.weights * mixtures.covered[..., None] * targets.weights
    distance = gaussian_w2_isotropic if isotropic else gaussian_w2
    squared = distance(*mixtures.later, *targets.targets) / extent_px**2
    return (weights * squared).sum() / weights.sum().clamp_min(1.0)


def random_flow_pixels(field: FlowField, count: int, generator: torch.Generator) -> Float[Tensor, "P 2"]:
    """Centres of `count` pixels drawn among those with a known flow; none where there is none."""
    if len(field.known) == 0 or count == 0:
        return field.known.new_zeros(0, 2)
    return field.known[torch.randint(len(field.known), (count,), generator=generator).to(field.known.device)]


def keypoint_motion(
    source: FlowSource,
    pixels: Float[Tensor, "2 J 2"],
    weights: Float[Tensor, "2 J"],
    field: FlowField | None,
) -> tuple[Float[Tensor, "J 2"], Float[Tensor, " J"]]:
    """Reference motion of each keypoint from the earlier to the later frame, px, and its confidence in [0, 1].

    Without a dense flow it is the difference of the keypoint's positions.
    """
    safe = torch.where(weights[..., None] > 0, pixels, torch.zeros_like(pixels))
    if source is FlowSource.KEYPOINTS or field is None:
        return safe[1] - safe[0], weights[0] * weights[1]
    read = sample_image(field.values, safe[0])
    # a keypoint near the silhouette mixes flow and background: only pixels whose four neighbours are all known count
    return read[:, :2], weights[0] * weights[1] * (read[:, 6] > 0.99)


def track_mixtures(
    contributors: Contributors,
    opacities: Float[Tensor, " N"],
    geometry: DeformedGeometry,
    pairs: Int[Tensor, "P 2"],
    cameras: Cameras,
    kind: ContributorWeights,
) -> PairedMixtures:
    """Build the two mixtures around P pixels from the contributors found there at the earlier frame.

    Args:
        contributors: Of each pixel.
        opacities: Of all Gaussians.
        geometry: At the times of the batch.
        pairs: For each pixel, positions of its earlier and its later frame in the batch.
        cameras: Of the batch.
        kind: Weights inside a mixture.
    """
    mixture = mixture_weights(contributors.weights, contributors.ids, opacities, kind)
    both = project_chosen(
        geometry.means,
        geometry.quats,
        geometry.scales,
        cameras,
        contributors.ids.repeat(2, 1),
        pairs.T.flatten(),
    )
    count = len(pairs)
    return PairedMixtures(
        weights=mixture.weights,
        covered=mixture.covered.to(mixture.weights.dtype),
        earlier=Gaussians2D(both.means[:count], both.covs[:count]),
        later=Gaussians2D(both.means[count:], both.covs[count:]),
    )


def wgf_losses(
    config: WgfConfig,
    renderer: Renderer,
    outputs: Sequence[RenderOutput],
    opacities: Float[Tensor, " N"],
    geometry: DeformedGeometry,
    pairs: Int[Tensor, "Q 2"],
    cameras: Cameras,
    keypoints: Float[Tensor, "B J 2"],
    weights: Float[Tensor, "B J"],
    fields: Sequence[FlowField | None],
    generator: torch.Generator,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""] | None]:
    """The loss of the Q >= 1 pairs of a batch: the offset part (variant A), and the paired part (D) where there is one.

    Args:
        config: Variant and its options.
        renderer: Looks up contributors.
        outputs: Its render of each frame alone.
        opacities: Of all Gaussians.
        geometry: At the times of the batch.
        pairs: Positions of the earlier and the later frame of each pair in the batch.
        cameras: Of the batch.
        keypoints: In all frames of the batch, px.
        weights: Their confidences.
        fields: The dense flow between the frames of each pair, where known.
        generator: Draws the random pixels.
    """
    frames = pairs.tolist()
    motions = [
        keypoint_motion(config.flow, keypoints[pair], weights[pair], field)
        for pair, field in zip(pairs, fields, strict=True)
    ]
    # rows: the keypoints of every pair, then the random pixels of every pair
    points = [torch.where(weights[e][:, None] > 0, keypoints[e], torch.zeros_like(keypoints[e])) for e, _ in frames]
    owners = list(range(len(frames)))
    known = {q: field for q, field in enumerate(fields) if field is not None and len(field.known) > 0}
    if config.variant is WgfVariant.A_D:
        points += [random_flow_pixels(field, config.random_pixels, generator) for field in known.values()]
        owners += known
    found = [
        renderer.contributors(outputs[frames[q][0]], pairs.new_zeros(len(chosen)), chosen, config.contributors)
        for q, chosen in zip(owners, points, strict=True)
    ]
    contributors = Contributors(torch.cat([f.ids for f in found]), torch.cat([f.weights for f in found]))
    owner = torch.cat([pairs.new_full((len(chosen),), q) for q, chosen in zip(owners, points, strict=True)])
    mixtures = track_mixtures(contributors, opacities, geometry, pairs[owner], cameras, config.mixture)
    extent_px = float(max(cameras.width, cameras.height))
    flow, confidence = (torch.cat(parts) for parts in zip(*motions, strict=True))
    offset = offset_loss(mixtures.rows(slice(len(flow))), flow, confidence, extent_px)
    if config.variant is not WgfVariant.A_D or not known:
        return offset, None
    parts = mixtures.rows(torch.stack([torch.nonzero(owner == q)[:, 0] for q in known]))
    return offset, paired_loss(parts, advect(parts.earlier, list(known.values())), extent_px, config.isotropic)
