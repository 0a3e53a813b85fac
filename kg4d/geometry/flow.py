"""What flows between neighbouring frames say over several frames."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.geometry.sampling import pixel_centers, sample_image


class Followed(NamedTuple):
    """Points that flows carry through S + 1 frames."""

    pixels: Float[Tensor, "*followed 2"]  # [S + 1, *points, 2]
    weights: Float[Tensor, "*followed"]  # product of the confidences so far; 0 from where it leaves what is known


@torch.no_grad()
def follow_flows(
    flows: Float[Tensor, "S H W 2"], weights: Float[Tensor, "S H W"], points: Float[Tensor, "*points 2"]
) -> Followed:
    """Follow points of the first frame through S flows, p -> p + F_1(p) -> ...

    Args:
        flows: From each frame to the next, px.
        weights: Confidence in [0, 1]; 0 where a flow is not known. A step that starts between pixels counts where all
            four of them are known.
        points: In the first frame, px.
    """
    size = points.new_tensor([weights.shape[2], weights.shape[1]])
    pixels, trust = [points], [torch.ones_like(points[..., 0])]
    for flow, weight in zip(flows, weights, strict=True):
        here = pixels[-1]
        read = sample_image(torch.cat([flow, weight[..., None], (weight > 0).to(flow)[..., None]], dim=-1), here)
        inside = ((here >= 0) & (here <= size)).all(-1)
        pixels.append(here + read[..., :2])
        trust.append(trust[-1] * read[..., 2] * (inside & (read[..., 3] > 0.999)))
    return Followed(torch.stack(pixels), torch.stack(trust))


class ChainedFlow(NamedTuple):
    """Displacement over several frames."""

    flow: Float[Tensor, "H W 2"]  # px
    weights: Float[Tensor, "H W"]  # product of the confidences along the way; 0 where it leaves what is known


@torch.no_grad()
def chain_flows(flows: Float[Tensor, "S H W 2"], weights: Float[Tensor, "S H W"]) -> ChainedFlow:
    """Follow every pixel of the first frame through S >= 1 flows, F(p) = F_1(p) + F_2(p + F_1(p)) + ...

    Args:
        flows: From each frame to the next, px.
        weights: Confidence in [0, 1], as in `follow_flows`.
    """
    # the first step starts at the pixels themselves: it is read, not interpolated
    after_one = pixel_centers(*weights.shape[1:]).to(flows) + flows[0]
    followed = follow_flows(flows[1:], weights[1:], after_one)
    trust = weights[0] * followed.weights[-1]
    total = flows[0] + (followed.pixels[-1] - after_one)
    return ChainedFlow(torch.where(trust[..., None] > 0, total, 0.0), trust)
