"""Keypoints as weighted means of the Gaussians: 3D by construction, seen through any occlusion.

The keypoint logits P (N, J) of KG4D eq. 7 become weights over the Gaussians, and a keypoint is where its weighted mean
is. That reading needs no heatmap. P alone can satisfy any 2D loss, so it wants a seed near the truth and `compactness`.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

FAR = 40.0


def log_window(distances: Float[Tensor, "*shape"], sigma: float) -> Float[Tensor, "*shape"]:
    """Log of a normal window of width `sigma`, 0 in its middle; it falls to -FAR and no further.

    So what is far keeps a gradient under a softmax.
    """
    return -(distances.square() / (2 * sigma**2)).clamp(max=FAR)


def assignment(logits: Float[Tensor, "N J"], temperature: float) -> Float[Tensor, "N J"]:
    """Weights of the Gaussians in each keypoint: softmax over N, so every column sums to 1.

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
    """Mean over keypoints of the variance of their Gaussians, sum_i q_ij |mu_i - X_j|²; squared world units.

    Means are detached: the term selects Gaussians, it never pulls them together.
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
    """Logits whose `assignment` is a normal window of width `sigma` around known 3D positions.

    Args:
        means: Centres of the Gaussians, world units.
        keypoints: Known positions, for example triangulated. A row with NaN is unknown: its column is 0 (uniform).
        temperature: That of `assignment`.
        sigma: Width of the window, world units.
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
    """Logits from the keypoints of one image, for the Gaussians that this image shows.

    Args:
        pixels: Projected centres, px.
        frontmost: Whether a Gaussian is seen in that image, for example by `depth_visible`; the others get `-limit`.
        keypoints_px: Keypoints of that image, px. A row with NaN is unknown: its column is `-limit` (uniform).
        image_size: Longer side of the image, px.
        sigma: Width of the window, as a share of `image_size`.
        limit: Logits lie in [-limit, 0].
    """
    distance = torch.cdist(pixels.detach(), keypoints_px.to(pixels)) / image_size
    falloff = (distance.square() / (2 * sigma**2)).clamp(max=limit)
    known = frontmost[:, None] & keypoints_px.isfinite().all(-1)
    return torch.where(known, -falloff, -limit)
