"""Which way the surface looks at each Gaussian, from where the others are."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize


@torch.no_grad()
def outward_normals(
    means: Float[Tensor, "N 3"], opacities: Float[Tensor, " N"], width: float, chunk: int = 1024
) -> Float[Tensor, "N 3"]:
    """Unit vectors away from the mean of the Gaussians around: where the density falls the fastest.

    That is the way of the mean shift (Comaniciu and Meer 2002), turned round. One Gaussian alone has none and gets 0.

    Args:
        means: Centres, world units.
        opacities: Their weights.
        width: Deviation of the window around each, world units.
        chunk: So many are compared with all at a time.
    """
    outward = []
    for near in torch.split(means, chunk):
        window = (torch.cdist(near, means).square() / (-2 * width**2)).exp() * opacities
        outward.append(near - window @ means / window.sum(1, keepdim=True).clamp_min(1e-12))
    return normalize(torch.cat(outward), dim=-1)
