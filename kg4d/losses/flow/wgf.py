"""The flow loss, motivated by Wasserstein gradient flows: the mixtures at pixels must move as the image does.

The K Gaussians that contribute at a pixel at time t are looked up once and *tracked*: the same K at t' make up the
second mixture. (Looked up afresh at the displaced pixel, a model that does not move at all already satisfies the loss:
`ContributorSelection.FRESH` is there to show it.) What the two mixtures must fulfil is the variant's matter, see
`kg4d.losses.flow.variants`; here they are looked up, at the keypoints and at random pixels of the flow.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from importlib.util import find_spec
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kg4d.deform.base import DeformedGeometry
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.sampling import sample_images
from kg4d.losses.flow.mixtures import PairedMixtures, paired_mixtures, true_factors
from kg4d.losses.flow.variants import (
    barycentric_loss,
    component_loss,
    distance_loss,
    mixture_loss,
    offset_loss,
    paired_loss,
    pixel_loss,
    planned_offset_loss,
)
from kg4d.ot.flow_targets import Advected, FlowField, advect
from kg4d.ot.mixture import ContributorWeights
from kg4d.ot.plans import PlanConfig, PlanSolver
from kg4d.render.base import Contributors, Renderer, RenderOutput


class WgfVariant(StrEnum):
    """Which form of the loss; the equations are in `kg4d.losses.flow.variants`."""

    A = "a"  # the mean offset equals the flow (KG4D eq. 10-11): translation only
    A_D = "a+d"  # the same at the keypoints, and d
    B = "b"  # the model's own flow at the pixel equals the flow (GaussianFlow)
    C = "c"  # each centre follows the flow at its place
    D = "d"  # each Gaussian matches its image under the flow and its Jacobian: rotation and scale too
    E = "e"  # the set of them matches the set of these images, by optimal transport
    F = "f"  # a with unbalanced transport: what appears or disappears does not count
    G = "g"  # each centre's place under the transport plan follows the flow
    X = "x"  # the distance between the mixtures equals the length of the flow: blind to its direction, for comparison


_DENSE = {WgfVariant.A_D, WgfVariant.B, WgfVariant.C, WgfVariant.D, WgfVariant.E, WgfVariant.G}  # use random pixels
_BY_GAUSSIAN = {WgfVariant.A_D, WgfVariant.C, WgfVariant.D, WgfVariant.E, WgfVariant.G}  # read the flow at each centre
_WHO_IS_WHO = {WgfVariant.A_D, WgfVariant.B, WgfVariant.C, WgfVariant.D}  # pair each Gaussian with itself


class FlowSource(StrEnum):
    """Where the reference motion of a keypoint comes from."""

    DENSE = "dense"  # the dense flow, sampled at the keypoint
    KEYPOINTS = "keypoints"  # the difference of the keypoint's positions


class ContributorSelection(StrEnum):
    """Which Gaussians make up the mixture at the later time."""

    TRACKED = "tracked"  # those of the earlier time
    FRESH = "fresh"  # those found at the pixel displaced by the flow (KG4D's words): satisfied without any motion


@dataclass
class WgfConfig:
    """The flow loss.

    Attributes:
        weight: Factor of the loss; 0 switches it off.
        variant: Form of the loss.
        paired_weight: Weight of variant d's part in a+d relative to `weight`.
        contributors: Gaussians looked up at each pixel (K).
        selection: Which Gaussians make up the mixture at the later time; a+d, b, c and d need `tracked`.
        mixture: Weights inside a mixture.
        isotropic: Reduce each projected covariance to its mean variance (KG4D's simplification); in b take B_k = 1.
        flow: Source of the keypoints' motion; without a dense flow it is `keypoints`.
        at_keypoints: Look at the pixels of the keypoints; without them only at random ones.
        random_pixels: Further pixels with a known flow drawn per pair, for a+d, b, c, d, e and g.
        explicit_plan: In variant a form eq. 10 from the plan as printed; the value is the same.
        plan: Transport plans of e, f, g, x and `explicit_plan`; f is unbalanced whatever the solver.
        warmup: Share of the stage over which the weight grows from 0.
    """

    weight: float = 100.0
    variant: WgfVariant = WgfVariant.A_D
    paired_weight: float = 0.5
    contributors: int = 20
    selection: ContributorSelection = ContributorSelection.TRACKED
    mixture: ContributorWeights = ContributorWeights.CONTRIBUTION
    isotropic: bool = False
    flow: FlowSource = FlowSource.DENSE
    at_keypoints: bool = True
    random_pixels: int = 64
    explicit_plan: bool = False
    plan: PlanConfig = field(default_factory=PlanConfig)
    warmup: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what cannot be computed.

        Raises:
            ValueError: Two settings contradict each other, or one is out of range; the message begins with the key.
        """
        if self.selection is ContributorSelection.FRESH and self.variant in _WHO_IS_WHO:
            raise ValueError(
                f"wgf.selection: variant {self.variant} pairs each Gaussian with itself, so it is `tracked`"
            )
        if self.plan.solver is PlanSolver.EXACT and find_spec("ot") is None:
            raise ValueError('wgf.plan.solver: `exact` needs POT: pip install "kg4d[exact]"')
        for key, value in {"epsilon": self.plan.epsilon, "relaxation": self.plan.relaxation}.items():
            if not value > 0:
                raise ValueError(f"wgf.plan.{key}: must be positive, not {value}")
        if self.plan.iterations < 1:
            raise ValueError(f"wgf.plan.iterations: must be at least 1, not {self.plan.iterations}")


class WgfTerm(NamedTuple):
    """A part of the loss."""

    value: Float[Tensor, ""]
    share: float = 1.0  # of the loss's weight


def random_flow_pixels(field: FlowField, count: int, generator: torch.Generator) -> Float[Tensor, "{count} 2"]:
    """Centres of `count` pixels drawn among those with a known flow; NaN where there is none."""
    if len(field.known) == 0:
        return field.known.new_full((count, 2), torch.nan)
    return field.known[torch.randint(len(field.known), (count,), generator=generator).to(field.known.device)]


def keypoint_motion(
    source: FlowSource,
    pixels: Float[Tensor, "Q 2 J 2"],
    weights: Float[Tensor, "Q 2 J"],
    fields: Sequence[FlowField] | None,
) -> tuple[Float[Tensor, "Q J 2"], Float[Tensor, "Q J"]]:
    """Reference motion of each keypoint from the earlier to the later frame, px, and its confidence in [0, 1].

    Without a dense flow it is the difference of the keypoint's positions.
    """
    motion, confidence = pixels[:, 1] - pixels[:, 0], weights.prod(1)
    if source is FlowSource.DENSE and fields is not None:
        motion, known = _flow_at(fields, pixels[:, 0])
        confidence = confidence * known
    return motion, confidence


def _flow_at(
    fields: Sequence[FlowField], points: Float[Tensor, "Q P 2"]
) -> tuple[Float[Tensor, "Q P 2"], Float[Tensor, "Q P"]]:
    """The flow of each pair at its own points, and its confidence."""
    read = sample_images([field.values for field in fields], points)
    # near the silhouette flow and background mix: only pixels whose four neighbours are all known count
    return read[..., :2], read[..., 6] * (read[..., 7] > 0.999)


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
    fields: Sequence[FlowField] | None,
    generator: torch.Generator,
) -> dict[str, WgfTerm]:
    """The parts of the loss of the Q >= 1 pairs of a batch, by name; none where the flow that they need is not known.

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
        fields: The dense flow between the frames of each pair; None where the scene has none.
        generator: Draws the random pixels.
    """
    places = torch.where(weights[..., None] > 0, keypoints, 0.0)[pairs]
    flow, confidence = keypoint_motion(config.flow, places, weights[pairs], fields)
    points, count = places[:, 0], places.shape[2] if config.at_keypoints else 0
    points, flow, confidence = points[:, :count], flow[:, :count], confidence[:, :count]
    if config.variant in _DENSE and fields is not None:
        drawn = torch.stack([random_flow_pixels(field, config.random_pixels, generator) for field in fields])
        points = torch.cat([points, drawn], dim=1)
        if config.variant is WgfVariant.B or config.selection is ContributorSelection.FRESH:
            there = _flow_at(fields, drawn.nan_to_num())
            flow, confidence = torch.cat([flow, there[0]], dim=1), torch.cat([confidence, there[1]], dim=1)
    if points.shape[1] == 0:
        return {}
    found = _look_up(config, renderer, outputs, pairs[:, 0], points)
    fresh = None
    if config.selection is ContributorSelection.FRESH:
        fresh = _look_up(config, renderer, outputs, pairs[:, 1], points + flow)
    owners, eps2d = pairs.repeat_interleave(points.shape[1], dim=0), outputs[0].options.eps2d
    flat = paired_mixtures(found, opacities, geometry, owners, cameras, config.mixture, fresh, eps2d)
    extent_px = float(max(cameras.width, cameras.height))
    if config.variant is WgfVariant.B:
        maps = None if config.isotropic else true_factors(found, geometry, owners, cameras, eps2d)
        at_all = (points.flatten(0, 1), flow.flatten(0, 1), confidence.flatten())
        return {"pixel": WgfTerm(pixel_loss(flat, maps, *at_all, extent_px))}
    mixtures = flat.of_each(len(pairs))
    at_keypoints = (mixtures.first(count), flow[:, :count], confidence[:, :count])
    terms = _at_pixels(config, *at_keypoints, extent_px) if count else {}
    if config.variant in _BY_GAUSSIAN and fields is not None:
        terms |= _at_gaussians(config, mixtures, advect(mixtures.earlier, fields), extent_px)
    return terms


def _look_up(
    config: WgfConfig,
    renderer: Renderer,
    outputs: Sequence[RenderOutput],
    frames: Int[Tensor, " Q"],
    points: Float[Tensor, "Q P 2"],
) -> Contributors:
    """Contributors at the points of each pair in one of its frames, one pair after the other."""
    cameras = frames.new_zeros(points.shape[1])
    found = [
        renderer.contributors(outputs[frame], cameras, asked, config.contributors)
        for frame, asked in zip(frames.tolist(), points, strict=True)
    ]
    return Contributors(torch.cat([f.ids for f in found]), torch.cat([f.weights for f in found]))


def _at_pixels(
    config: WgfConfig,
    mixtures: PairedMixtures,
    flow: Float[Tensor, "Q J 2"],
    confidence: Float[Tensor, "Q J"],
    extent_px: float,
) -> dict[str, WgfTerm]:
    """What the mixtures at the keypoints must fulfil as wholes."""
    here, plan = (mixtures, flow, confidence, extent_px), config.plan
    match config.variant:
        case WgfVariant.A if config.explicit_plan:
            return {"offset": WgfTerm(planned_offset_loss(*here, plan, config.isotropic))}
        case WgfVariant.A | WgfVariant.A_D:
            return {"offset": WgfTerm(offset_loss(*here))}
        case WgfVariant.F:
            unbalanced = replace(plan, solver=PlanSolver.UNBALANCED)
            return {"relaxed_offset": WgfTerm(planned_offset_loss(*here, unbalanced, config.isotropic))}
        case WgfVariant.X:
            return {"distance": WgfTerm(distance_loss(*here, plan, config.isotropic))}
        case _:
            return {}


def _at_gaussians(
    config: WgfConfig, mixtures: PairedMixtures, targets: Advected, extent_px: float
) -> dict[str, WgfTerm]:
    """What each Gaussian must fulfil."""
    here = (mixtures, targets, extent_px)
    match config.variant:
        case WgfVariant.A_D:
            return {"paired": WgfTerm(paired_loss(*here, config.isotropic), config.paired_weight)}
        case WgfVariant.C:
            return {"centres": WgfTerm(component_loss(*here))}
        case WgfVariant.D:
            return {"paired": WgfTerm(paired_loss(*here, config.isotropic))}
        case WgfVariant.E:
            return {"mixture": WgfTerm(mixture_loss(*here, config.plan, config.isotropic))}
        case WgfVariant.G:
            return {"barycentric": WgfTerm(barycentric_loss(*here, config.plan))}
        case _:
            return {}
