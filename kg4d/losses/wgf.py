"""The flow loss, motivated by Wasserstein gradient flows: the mixtures at pixels must move as the image does.

The K Gaussians that contribute at a pixel at time t are looked up once and *tracked*: the same K at t' make up the
second mixture. (Looked up afresh at the displaced pixel, a model that does not move at all already satisfies the loss:
`ContributorSelection.FRESH` is there to show it.) What the two mixtures must fulfil is the variant's matter, see
`kg4d.losses.flow_variants`; here they are looked up, at the keypoints and at random pixels of the flow.
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
from kg4d.losses.flow_variants import (
    barycentric_loss,
    component_loss,
    distance_loss,
    mixture_loss,
    offset_loss,
    paired_loss,
    pixel_loss,
    planned_offset_loss,
)
from kg4d.losses.mixtures import PairedMixtures, paired_mixtures, true_factors
from kg4d.ot.flow_targets import Advected, FlowField, advect
from kg4d.ot.mixture import ContributorWeights
from kg4d.ot.plans import PlanConfig, PlanSolver
from kg4d.render.base import Contributors, Renderer, RenderOutput


class WgfVariant(StrEnum):
    """Which form of the loss; the equations are in `kg4d.losses.flow_variants`."""

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


def random_flow_pixels(field: FlowField, count: int, generator: torch.Generator) -> Float[Tensor, "P 2"]:
    """Centres of `count` pixels drawn among those with a known flow; none where there is none."""
    if len(field.known) == 0 or count == 0:
        return field.known.new_zeros(0, 2)
    return field.known[torch.randint(len(field.known), (count,), generator=generator).to(field.known.device)]


def keypoint_motion(
    source: FlowSource,
    pixels: Float[Tensor, "Q 2 J 2"],
    weights: Float[Tensor, "Q 2 J"],
    fields: Sequence[FlowField | None],
) -> tuple[Float[Tensor, "Q J 2"], Float[Tensor, "Q J"]]:
    """Reference motion of each keypoint from the earlier to the later frame, px, and its confidence in [0, 1].

    Without a dense flow it is the difference of the keypoint's positions.
    """
    motion, confidence = pixels[:, 1] - pixels[:, 0], weights.prod(1)
    known = {q: field for q, field in enumerate(fields) if field is not None and source is FlowSource.DENSE}
    if known:
        rows = list(known)
        read = sample_images([field.values for field in known.values()], pixels[rows, 0])
        motion[rows] = read[..., :2]
        # near the silhouette flow and background mix: only pixels whose four neighbours are all known count
        confidence[rows] *= read[..., 6] > 0.99
    return motion, confidence


class _Asked(NamedTuple):
    """Pixels of one pair, and the flow there."""

    pair: int
    points: Float[Tensor, "P 2"]
    flow: Float[Tensor, "P 2"]
    confidence: Float[Tensor, " P"]


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
        fields: The dense flow between the frames of each pair, where known.
        generator: Draws the random pixels.
    """
    known = {q: field for q, field in enumerate(fields) if field is not None and len(field.known) > 0}
    asked = _ask_keypoints(config.flow, pairs, keypoints, weights, fields) if config.at_keypoints else []
    count = sum(len(some.points) for some in asked)
    if config.variant in _DENSE:
        asked += [_ask_random(q, field, config.random_pixels, generator) for q, field in known.items()]
    if not asked:
        return {}
    frames = pairs.tolist()
    earlier = _look_up(config, renderer, [(outputs[frames[some.pair][0]], some.points) for some in asked])
    later = None
    if config.selection is ContributorSelection.FRESH:
        moved = [(outputs[frames[some.pair][1]], some.points + some.flow) for some in asked]
        later = _look_up(config, renderer, moved)
    owner = torch.cat([pairs.new_full((len(some.points),), some.pair) for some in asked])
    mixtures = paired_mixtures(earlier, opacities, geometry, pairs[owner], cameras, config.mixture, later)
    extent_px = float(max(cameras.width, cameras.height))
    flow, confidence = torch.cat([some.flow for some in asked]), torch.cat([some.confidence for some in asked])
    if config.variant is WgfVariant.B:
        maps = None if config.isotropic else true_factors(earlier, geometry, pairs[owner], cameras)
        points = torch.cat([some.points for some in asked])
        return {"pixel": WgfTerm(pixel_loss(mixtures, maps, points, flow, confidence, extent_px))}
    terms = _at_pixels(config, mixtures.rows(slice(count)), flow[:count], confidence[:count], extent_px)
    if config.variant in _BY_GAUSSIAN and known:
        parts = mixtures.rows(torch.stack([torch.nonzero(owner == q)[:, 0] for q in known]))
        terms |= _at_gaussians(config, parts, advect(parts.earlier, list(known.values())), extent_px)
    return terms


def _ask_keypoints(
    source: FlowSource,
    pairs: Int[Tensor, "Q 2"],
    keypoints: Float[Tensor, "B J 2"],
    weights: Float[Tensor, "B J"],
    fields: Sequence[FlowField | None],
) -> list[_Asked]:
    places = torch.where(weights[..., None] > 0, keypoints, torch.zeros_like(keypoints))[pairs]
    motion, confidence = keypoint_motion(source, places, weights[pairs], fields)
    return [_Asked(q, places[q, 0], motion[q], confidence[q]) for q in range(len(pairs))]


def _ask_random(pair: int, field: FlowField, count: int, generator: torch.Generator) -> _Asked:
    points = random_flow_pixels(field, count, generator)
    column, row = points.long().unbind(-1)
    read = field.values[row, column]
    return _Asked(pair, points, read[:, :2], read[:, 6])


def _look_up(
    config: WgfConfig, renderer: Renderer, places: Sequence[tuple[RenderOutput, Float[Tensor, "_ 2"]]]
) -> Contributors:
    """Contributors at the points of each render, one after the other."""
    found = [
        renderer.contributors(output, torch.zeros_like(points[:, 0], dtype=torch.int64), points, config.contributors)
        for output, points in places
    ]
    return Contributors(torch.cat([f.ids for f in found]), torch.cat([f.weights for f in found]))


def _at_pixels(
    config: WgfConfig,
    mixtures: PairedMixtures,
    flow: Float[Tensor, "P 2"],
    confidence: Float[Tensor, " P"],
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
