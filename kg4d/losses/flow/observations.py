"""The input of the flow loss: the model at the frames of a batch, and what is known of the motion between them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kg4d.gaussians.moving import MovingGaussians
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.sampling import sample_images
from kg4d.losses.flow.settings import FlowSource
from kg4d.losses.flow.variants import PixelFlow
from kg4d.ot.flow_targets import FlowField
from kg4d.render.base import Contributors, Renderer, RenderOutput
from kg4d.utils.devices import sent


@dataclass(frozen=True)
class RenderedModel:
    """The model at the B frames of a batch, and how it looks there.

    Attributes:
        renderer: What drew it; looks up contributors.
        output: The render of the frames.
        geometry: Its N Gaussians at the frames.
    """

    renderer: Renderer
    output: RenderOutput
    geometry: MovingGaussians

    def contributors(self, frames: Int[Tensor, " Q"], points: Float[Tensor, "Q P 2"], count: int) -> Contributors:
        """The heaviest `count` Gaussians at P points (px) in each of Q frames; Q P rows, frame after frame."""
        of_point = frames[:, None].expand(points.shape[:2]).flatten()
        return self.renderer.contributors(self.output, of_point, points.flatten(0, 1), count)


@dataclass(frozen=True)
class ObservedPairs:
    """What is known of the motion between the two frames of each of Q pairs, in a batch of B frames.

    Attributes:
        frames: Positions of the earlier and the later frame of each pair in the batch.
        cameras: Of the B frames.
        keypoints: In all B frames, px.
        weights: Confidence of the keypoints, in [0, 1]; where it is 0 the keypoint may be anything.
        fields: The dense flow from the earlier to the later frame of each pair; None where the scene has none.
        places: Where these pairs stand among the `step_pairs` pairs of the step; None where they are all of them.
        step_pairs: How many pairs the step has, in all processes that share it out.
    """

    frames: Int[Tensor, "Q 2"]
    cameras: Cameras
    keypoints: Float[Tensor, "B J 2"]
    weights: Float[Tensor, "B J"]
    fields: Sequence[FlowField] | None
    places: tuple[int, ...] | None = None
    step_pairs: int = 0

    @property
    def extent_px(self) -> float:
        """Longer side of the images, px."""
        return float(max(self.cameras.width, self.cameras.height))


def random_flow_pixels(field: FlowField, count: int, generator: torch.Generator) -> Float[Tensor, "{count} 2"]:
    """Centres of `count` pixels drawn among those with a known flow; NaN where there is none."""
    known = field.known
    chosen = torch.randint(max(1, len(known)), (count,), generator=generator)
    return known.new_full((count, 2), torch.nan) if len(known) == 0 else known[sent(chosen, known.device)]


def random_pixels_of_pairs(
    observed: ObservedPairs, count: int, generator: torch.Generator
) -> Float[Tensor, "Q {count} 2"] | None:
    """`random_flow_pixels` of each pair, whichever other pairs of the step are here; None without a dense flow."""
    if observed.fields is None:
        return None
    places = range(len(observed.fields)) if observed.places is None else observed.places
    here, drawn = dict(zip(places, observed.fields, strict=True)), {}
    for place in range(max(observed.step_pairs, len(here))):
        if place in here:
            drawn[place] = random_flow_pixels(here[place], count, generator)
        else:  # a generator gives as many bits for any range
            torch.randint(1, (count,), generator=generator)
    return torch.stack([drawn[place] for place in places])


def keypoint_motion(
    source: FlowSource,
    pixels: Float[Tensor, "Q 2 J 2"],
    weights: Float[Tensor, "Q 2 J"],
    fields: Sequence[FlowField] | None,
) -> PixelFlow:
    """Reference motion of each keypoint from the earlier to the later frame.

    Args:
        source: Where it comes from.
        pixels: Keypoints in the earlier and the later frame of each pair, px.
        weights: Their confidence, in [0, 1].
        fields: The dense flow of each pair; without it the motion is the difference of the keypoint's positions.

    Returns:
        (Q, J, 2) and (Q, J); the confidence is the product of the keypoint's at both frames and the flow's.
    """
    motion, confidence = pixels[:, 1] - pixels[:, 0], weights.prod(1)
    if source is FlowSource.DENSE and fields is not None:
        motion, known = flow_at(fields, pixels[:, 0])
        confidence = confidence * known
    return PixelFlow(motion, confidence)


def flow_at(fields: Sequence[FlowField], points: Float[Tensor, "Q P 2"]) -> PixelFlow:
    """The dense flow of each of Q pairs at its own points (px), with its confidence; 0 where it is not known."""
    read = sample_images([field.values for field in fields], points)
    # near the silhouette flow and background mix: only pixels whose four neighbours are all known count
    return PixelFlow(read[..., :2], read[..., 6] * (read[..., 7] > 0.999))
