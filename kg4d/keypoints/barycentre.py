"""Keypoints as weighted means of the Gaussians: 3D by construction, seen through any occlusion.

A softmax over the N Gaussians turns the keypoint logits P (N, J) of KG4D eq. 7 into weights; a keypoint is the weighted
mean of their centres. Reading it needs no heatmap. P has enough freedom to satisfy any 2D loss on its own, so it needs
seeds near the truth, and `compactness`.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

FAR = 40.0  # log weights stop at -FAR: exp(-40) is as good as zero


def log_window(distances: Float[Tensor, "*shape"], sigma: float) -> Float[Tensor, "*shape"]:
    """Log of a Gaussian window, -distance² / (2 sigma²), floored at -FAR.

    The floor keeps a softmax over windows that are all far away from saturating, so that it still has a gradient.
    """
    return -(distances.square() / (2 * sigma**2)).clamp(max=FAR)


def assignment(logits: Float[Tensor, "N J"], temperature: float) -> Float[Tensor, "N J"]:
    """Weight of each Gaussian in each keypoint: a softmax over N, so every column sums to 1.

    Raises:
        ValueError: The temperature is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    return (logits / temperature).softmax(dim=0)


def barycentre(assignment: Float[Tensor, "N J"], means: Float[Tensor, "*batch N 3"]) -> Float[Tensor, "*batch J 3"]:
    """Keypoint positions X_j = sum_i q_ij mu_i, in the unit of `means`."""
    return assignment.mT @ means


def compactness(assignment: Float[Tensor, "N J"], means: Float[Tensor, "N 3"]) -> Float[Tensor, ""]:
    """Spread of the Gaussians of a keypoint: sum_i q_ij |mu_i - X_j|², mean over keypoints; squared world units.

    The means are detached: the loss chooses among Gaussians, and never pulls them together.
    """
    means = means.detach()
    spread = (means[:, None] - barycentre(assignment, means)).square().sum(-1)
    return (assignment * spread).sum(0).mean()


def seed_logits(
    means: Float[Tensor, "N 3"],
    keypoints: Float[Tensor, "J 3"],
    *,
    temperature: float,
    sigma: float = 0.05,
) -> Float[Tensor, "N J"]:
    """Logits whose `assignment` is a Gaussian window around known 3D positions.

    Args:
        means: Centres of the Gaussians, world units.
        keypoints: Known positions, for example triangulated, world units. A row with NaN is unknown: its column is 0,
            so every Gaussian has the same weight.
        temperature: Temperature of `assignment`.
        sigma: Standard deviation of the window, world units.
    """
    window = log_window(torch.cdist(means.detach(), keypoints.to(means)), sigma)
    return torch.where(keypoints.isfinite().all(-1), window * temperature, 0.0)


def seed_logits_from_view(
    pixels: Float[Tensor, "N 2"],
    frontmost: Bool[Tensor, " N"],
    keypoints_px: Float[Tensor, "J 2"],
    *,
    image_size: int,
    sigma: float = 0.05,
    limit: float = 4.0,
) -> Float[Tensor, "N J"]:
    """Logits from the keypoints of a single image: Gaussian windows around them, for Gaussians that it shows.

    Args:
        pixels: Projected centres of the Gaussians, px.
        frontmost: Whether the image shows a Gaussian, for example by `depth_visible`; the others get `-limit`.
        keypoints_px: Keypoints in that image, px. A row with NaN is unknown: its column is `-limit`, so every Gaussian
            has the same weight.
        image_size: Longer side of the image, px.
        sigma: Standard deviation of the window, as a fraction of `image_size`.
        limit: Logits lie in [-limit, 0].
    """
    distance = torch.cdist(pixels.detach(), keypoints_px.to(pixels)) / image_size
    falloff = (distance.square() / (2 * sigma**2)).clamp(max=limit)
    known = frontmost[:, None] & keypoints_px.isfinite().all(-1)
    return torch.where(known, -falloff, -limit)
