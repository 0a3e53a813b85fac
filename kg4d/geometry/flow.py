"""Flow over several frames from the flows between neighbours."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.geometry.sampling import pixel_centers, sample_image


class ChainedFlow(NamedTuple):
    """Displacement over several frames."""

    flow: Float[Tensor, "H W 2"]  # px
    weights: Float[Tensor, "H W"]  # product of the confidences along the way; 0 where it leaves what is known


@torch.no_grad()
def chain_flows(flows: Float[Tensor, "S H W 2"], weights: Float[Tensor, "S H W"]) -> ChainedFlow:
    """Follow every pixel of the first frame through S >= 1 flows, F(p) = F_1(p) + F_2(p + F_1(p)) + ...

    Args:
        flows: From each frame to the next, px.
        weights: Confidence in [0, 1]; 0 where a flow is not known. A step that starts between pixels counts where all
            four of them are known.
    """
    height, width = weights.shape[1:]
    total, trust = flows[0], weights[0]
    start = pixel_centers(height, width).to(total)
    for flow, weight in zip(flows[1:], weights[1:], strict=True):
        channels = torch.cat([flow, weight[..., None], (weight > 0).to(flow)[..., None]], dim=-1)
        here = start + total
        read = sample_image(channels, here)
        inside = ((here >= 0) & (here <= here.new_tensor([width, height]))).all(-1)
        total = total + read[..., :2]
        trust = trust * read[..., 2] * (inside & (read[..., 3] > 0.999))
    return ChainedFlow(torch.where(trust[..., None] > 0, total, 0.0), trust)
