"""What optical flow asks of the Gaussians behind a pixel: targets for their centres and shapes."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d, pad

from kg4d.geometry.projection import Gaussians2D
from kg4d.geometry.sampling import sample_image


class Advected(NamedTuple):
    """Where the flow carries Gaussians."""

    targets: Gaussians2D  # detached
    weights: Float[Tensor, "*batch"]  # confidence of the flow at each centre, in [0, 1]; 0 where it is not known


@torch.no_grad()
def flow_jacobian(flow: Float[Tensor, "H W 2"], weights: Float[Tensor, "H W"]) -> Float[Tensor, "H W 2 2"]:
    """Spatial derivative of a flow field, d flow_i / d x_k at [..., i, k]; no unit.

    Central differences of the flow after a 3x3 mean, clamped to ±0.5. It is 0 wherever the 5x5 neighbourhood that
    enters is not valid throughout or leaves the image, so that no silhouette becomes a shear.

    Args:
        flow: Displacement (dx, dy), px.
        weights: Confidence; a pixel is valid where it is positive.
    """
    smooth = avg_pool2d(flow.permute(2, 0, 1), 3, stride=1, padding=1)
    padded = pad(smooth, (1, 1, 1, 1))
    along_x = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
    along_y = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    invalid = pad((weights <= 0).to(flow.dtype)[None], (2, 2, 2, 2), value=1.0)
    trusted = 1 - max_pool2d(invalid, 5, stride=1)[0]
    jacobian = torch.stack([along_x, along_y], dim=-1).permute(1, 2, 0, 3)
    return (jacobian.clamp(-0.5, 0.5) * trusted[..., None, None]).contiguous()  # it is sampled many times


@torch.no_grad()
def advect(
    gaussians: Gaussians2D,
    flow: Float[Tensor, "H W 2"],
    jacobian: Float[Tensor, "H W 2 2"],
    weights: Float[Tensor, "H W"],
) -> Advected:
    """Carry 2D Gaussians along a flow: mu* = mu + F(mu), Sigma* = (I + dF) Sigma (I + dF)ᵀ.

    Args:
        gaussians: At the frame where the flow starts.
        flow: Displacement (dx, dy), px.
        jacobian: Its `flow_jacobian`.
        weights: Confidence in [0, 1]; 0 where the flow is not known.

    Returns:
        The targets, and for each the flow's confidence at its centre: 0 outside the image and where any of the four
        pixels that enter is not valid.
    """
    height, width = weights.shape
    step, gradient = sample_image(flow, gaussians.means), sample_image(jacobian.flatten(-2), gaussians.means)
    trust = torch.stack([weights, (weights > 0).to(weights)], dim=-1)
    confidence, known = sample_image(trust, gaussians.means).tensor_split(2, dim=-1)
    inside = ((gaussians.means >= 0) & (gaussians.means <= gaussians.means.new_tensor([width, height]))).all(-1)
    deformation = gradient.reshape(*gradient.shape[:-1], 2, 2) + torch.eye(2, dtype=flow.dtype, device=flow.device)
    targets = Gaussians2D(gaussians.means + step, deformation @ gaussians.covs @ deformation.mT)
    return Advected(targets, torch.where(inside & (known[..., 0] > 0.999), confidence[..., 0], 0.0))


def true_factor_map(
    factor: Float[Tensor, "*batch 2 3"], factor_next: Float[Tensor, "*batch 2 3"], eps: float
) -> Float[Tensor, "*batch 2 2"]:
    """The matrix B with E[x' - mu' | x] = B (x - mu), when both pixels come from the same point of the Gaussian.

    B = M' Mᵀ (M Mᵀ + eps I)⁻¹, with M from `projection_factor`. Unlike the optimal transport map it can rotate, and it
    is exact for a flat Gaussian (but for `eps`).

    Args:
        factor: M at the first time, px.
        factor_next: M' at the second time, px.
        eps: Variance of the dilation, px², > 0.
    """
    cov = factor @ factor.mT + eps * torch.eye(2, dtype=factor.dtype, device=factor.device)
    transposed: Tensor = torch.linalg.solve(cov, factor @ factor_next.mT)
    return transposed.mT


def barycentric_map(
    plan: Float[Tensor, "*batch n m"], means_next: Float[Tensor, "*batch m 2"]
) -> Float[Tensor, "*batch n 2"]:
    """Where a plan sends each of the n points on average, in the unit of the means; (0, 0) for a row without mass."""
    mass = plan.sum(-1, keepdim=True).clamp_min(torch.finfo(plan.dtype).tiny)
    return plan @ means_next / mass
