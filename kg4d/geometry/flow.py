"""Optical flow between neighbouring frames, composed to motion over several frames."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.geometry.cameras import image_size
from kg4d.geometry.sampling import pixel_centers, sample_image


class FlowTracks(NamedTuple):
    """Points that flows carry through S + 1 frames."""

    pixels: Float[Tensor, "*tracked 2"]  # (S + 1, *points, 2), px
    weights: Float[
        Tensor, "*tracked"
    ]  # (S + 1, *points): product of the confidences so far; 0 once the flow is unknown


@torch.no_grad()
def follow_flows(
    flows: Float[Tensor, "S H W 2"], weights: Float[Tensor, "S H W"], points: Float[Tensor, "*points 2"]
) -> FlowTracks:
    """Follow points of the first frame through S flows, p -> p + F_1(p) -> ...

    Args:
        flows: From each frame to the next, px.
        weights: Confidence in [0, 1]; 0 where a flow is not known. A step that starts between pixels needs all four
            of them to be known.
        points: In the first frame, px.
    """
    size = image_size(points, weights.shape[2], weights.shape[1])
    pixels, confidence = [points], [torch.ones_like(points[..., 0])]
    for flow, weight in zip(flows, weights, strict=True):
        start = pixels[-1]
        read = sample_image(torch.cat([flow, weight[..., None], (weight > 0).to(flow)[..., None]], dim=-1), start)
        inside = ((start >= 0) & (start <= size)).all(-1)
        pixels.append(start + read[..., :2])
        confidence.append(confidence[-1] * read[..., 2] * (inside & (read[..., 3] > 0.999)))
    return FlowTracks(torch.stack(pixels), torch.stack(confidence))


class ChainedFlow(NamedTuple):
    """Displacement of every pixel over several frames."""

    flow: Float[Tensor, "H W 2"]  # px
    weights: Float[Tensor, "H W"]  # product of the confidences along the way; 0 where a flow on it is unknown


@torch.no_grad()
def chain_flows(flows: Float[Tensor, "S H W 2"], weights: Float[Tensor, "S H W"]) -> ChainedFlow:
    """Follow every pixel of the first frame through S >= 1 flows, F(p) = F_1(p) + F_2(p + F_1(p)) + ...

    Args:
        flows: From each frame to the next, px.
        weights: Confidence in [0, 1], as in `follow_flows`.
    """
    # the first step starts at the pixels themselves: it is read, not interpolated
    after_one = pixel_centers(*weights.shape[1:]).to(flows) + flows[0]
    tracks = follow_flows(flows[1:], weights[1:], after_one)
    confidence = weights[0] * tracks.weights[-1]
    total = flows[0] + (tracks.pixels[-1] - after_one)
    return ChainedFlow(torch.where(confidence[..., None] > 0, total, 0.0), confidence)
