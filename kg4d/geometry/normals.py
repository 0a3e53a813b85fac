"""Surface normals at Gaussians, estimated from the density of their neighbours."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize


@torch.no_grad()
def outward_normals(
    means: Float[Tensor, "N 3"], opacities: Float[Tensor, " N"], width: float, chunk: int = 1024
) -> Float[Tensor, "N 3"]:
    """Unit vectors along which the density of the Gaussians falls fastest: away from the mean of the neighbours.

    This is the direction opposite to the mean shift (Comaniciu and Meer 2002). A Gaussian without neighbours gets the
    zero vector. No gradient flows.

    Args:
        means: Centres, world units.
        opacities: Weights of the Gaussians in the density.
        width: Standard deviation of the Gaussian window around each centre, world units.
        chunk: Gaussians that are compared with all N at a time; bounds the memory.
    """
    outward = []
    for near in torch.split(means, chunk):
        window = (torch.cdist(near, means).square() / (-2 * width**2)).exp() * opacities
        outward.append(near - window @ means / window.sum(1, keepdim=True).clamp_min(1e-12))
    return normalize(torch.cat(outward), dim=-1)
