"""Targets that optical flow sets for the 2D Gaussians behind a pixel: where their centres and shapes should go."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d, pad

from kg4d.geometry.cameras import image_size
from kg4d.geometry.projection import Gaussians2D
from kg4d.geometry.sampling import sample_images


class Advected(NamedTuple):
    """2D Gaussians carried along a flow."""

    targets: Gaussians2D  # detached
    weights: Float[Tensor, "*batch"]  # confidence of the flow at each centre, in [0, 1]; 0 where it is not known


@torch.no_grad()
def flow_jacobian(flow: Float[Tensor, "H W 2"], weights: Float[Tensor, "H W"]) -> Float[Tensor, "H W 2 2"]:
    """Spatial derivative of a flow field, d flow_i / d x_k at [..., i, k]; dimensionless.

    Central differences of the flow after a 3x3 mean, clamped to ±0.5. It is 0 wherever the 5x5 neighbourhood that is
    read leaves the image or holds an invalid pixel, so that no silhouette is taken for a shear.

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
    return jacobian.clamp(-0.5, 0.5) * trusted[..., None, None]


class FlowField(NamedTuple):
    """A dense flow as the losses read it: one look-up at a point gives all of it."""

    values: Float[Tensor, "H W 8"]  # flow (dx, dy) px, its `flow_jacobian` row by row, confidence, known (1 or 0)
    known: Float[Tensor, "P 2"]  # centres (x, y) of the pixels whose flow is known, px


@torch.no_grad()
def flow_field(flow: Float[Tensor, "H W 2"], weights: Float[Tensor, "H W"]) -> FlowField:
    """Prepare a dense flow for look-ups.

    Args:
        flow: Displacement (dx, dy), px.
        weights: Confidence in [0, 1]; 0 where the flow is not known.
    """
    known = weights > 0
    values = [flow, flow_jacobian(flow, weights).flatten(-2), torch.stack([weights, known.to(weights)], dim=-1)]
    return FlowField(torch.cat(values, dim=-1), known.nonzero().flip(-1) + 0.5)


@torch.no_grad()
def advect(gaussians: Gaussians2D, fields: Sequence[FlowField]) -> Advected:
    """Carry 2D Gaussians along flows: mu* = mu + F(mu), Sigma* = (I + dF) Sigma (I + dF)ᵀ.

    Args:
        gaussians: At the frames where the flows start, px; index q of the first axis goes with the q-th flow.
        fields: The flows, from `flow_field`.

    Returns:
        The targets, and for each the flow's confidence at its centre: 0 outside the image, and where any of the four
        pixels around the centre is not valid.
    """
    height, width = fields[0].values.shape[:2]
    read = sample_images([field.values for field in fields], gaussians.means)
    step, gradient, confidence, known = read.tensor_split([2, 6, 7], dim=-1)
    inside = ((gaussians.means >= 0) & (gaussians.means <= image_size(gaussians.means, width, height))).all(-1)
    targets = Gaussians2D(gaussians.means + step, _carried(gradient, gaussians.covs))
    return Advected(targets, torch.where(inside & (known[..., 0] > 0.999), confidence[..., 0], 0.0))


def _carried(gradient: Float[Tensor, "*batch 4"], covs: Float[Tensor, "*batch 2 2"]) -> Float[Tensor, "*batch 2 2"]:
    """A S Aᵀ with A = I + dF, entry by entry: batched products of 2x2 matrices take ten times as long."""
    a, b, c, d = gradient.unbind(-1)
    a, d = a + 1, d + 1
    xx, xy, yy = covs[..., 0, 0], covs[..., 0, 1], covs[..., 1, 1]
    left_x, left_y = a * xx + b * xy, a * xy + b * yy
    right_x, right_y = c * xx + d * xy, c * xy + d * yy
    cross = left_x * c + left_y * d
    entries = [left_x * a + left_y * b, cross, cross, right_x * c + right_y * d]
    return torch.stack(entries, dim=-1).reshape(covs.shape)


def true_factor_map(
    factor: Float[Tensor, "*batch 2 3"], factor_next: Float[Tensor, "*batch 2 3"], eps: float
) -> Float[Tensor, "*batch 2 2"]:
    """The matrix B that carries a pixel x along with a Gaussian: E[x' - mu' | x] = B (x - mu).

    x and x' are the projections of one point of the 3D Gaussian at two times. B = M' Mᵀ (M Mᵀ + eps I)⁻¹, with M from
    `projection_factor`. Unlike the optimal transport map it can rotate, and for a flat Gaussian it is exact but for
    `eps`.

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
    """The mean position that a plan sends each of n points to, in the unit of the means; (0, 0) for an empty row."""
    mass = plan.sum(-1, keepdim=True).clamp_min(torch.finfo(plan.dtype).tiny)
    return plan @ means_next / mass
