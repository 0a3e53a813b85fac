"""Accuracy of keypoints: PCK in the image, Euclidean distance in the world.

PCK (percentage of correct keypoints): Yang & Ramanan 2013, "Articulated human detection with mixtures of parts".
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kg4d.metrics.state import PooledMean


def box_sizes(alpha: Float[Tensor, "*images H W 1"]) -> Float[Tensor, "*images"]:
    """Longer side in px of the box around the object (alpha > 0.5); 0 where there is none.

    >>> alpha = torch.zeros(6, 6, 1)
    >>> alpha[1:3, 1:5] = 1
    >>> box_sizes(alpha)
    tensor(4.)
    """
    solid = alpha[..., 0] > 0.5
    return torch.maximum(_extent(solid.any(-1)), _extent(solid.any(-2)))


def _extent(occupied: Bool[Tensor, "*images L"]) -> Float[Tensor, "*images"]:
    """Distance from before the first to after the last True."""
    index = torch.arange(occupied.shape[-1], device=occupied.device)
    first = torch.where(occupied, index, occupied.shape[-1]).amin(-1)
    last = torch.where(occupied, index, -1).amax(-1)
    return (last - first + 1).clamp_min(0).to(torch.float32)


def correct_keypoints(
    pred: Float[Tensor, "*images J 2"],
    target: Float[Tensor, "*images J 2"],
    visible: Bool[Tensor, "*images J"],
    sizes: Float[Tensor, "*images"],
    threshold: float = 0.05,
) -> Float[Tensor, "*images J"]:
    """1 where a keypoint lies within `threshold` x box size of the truth, 0 where not, NaN where it does not count.

    Args:
        pred: Pixel positions.
        target: True pixel positions.
        visible: Keypoints that count.
        sizes: Box size of each image in px, from `box_sizes`; keypoints of an image with size 0 do not count.
        threshold: Fraction of the box size, > 0.

    Raises:
        ValueError: `threshold` is not positive.
    """
    if threshold <= 0:
        raise ValueError(f"need threshold > 0, got {threshold}")
    limit = threshold * sizes[..., None]
    hits = ((pred - target).square().sum(-1).sqrt() <= limit).to(pred.dtype)
    return torch.where(visible & (limit > 0), hits, torch.nan)


def pck(
    pred: Float[Tensor, "*images J 2"],
    target: Float[Tensor, "*images J 2"],
    visible: Bool[Tensor, "*images J"],
    sizes: Float[Tensor, "*images"],
    threshold: float = 0.05,
) -> Float[Tensor, ""]:
    """Fraction of the keypoints that are correct; NaN when none counts. Arguments as for `correct_keypoints`."""
    return correct_keypoints(pred, target, visible, sizes, threshold).nanmean()


def keypoint_distances(
    pred: Float[Tensor, "*batch J 3"], target: Float[Tensor, "*batch J 3"]
) -> Float[Tensor, "*batch J"]:
    """Euclidean distance of each keypoint from the truth, in world units."""
    return (pred - target).square().sum(-1).sqrt()


def keypoint_error_3d(pred: Float[Tensor, "*batch J 3"], target: Float[Tensor, "*batch J 3"]) -> Float[Tensor, ""]:
    """Mean Euclidean distance in world units over all keypoints and times."""
    return keypoint_distances(pred, target).mean()


class PCK(PooledMean):
    """`pck` over the keypoints of all images.

    Args:
        threshold: Fraction of the box size, > 0.
    """

    higher_is_better = True

    def __init__(self, threshold: float = 0.05) -> None:
        super().__init__()
        self.threshold = threshold

    def update(
        self,
        pred: Float[Tensor, "*images J 2"],
        target: Float[Tensor, "*images J 2"],
        visible: Bool[Tensor, "*images J"],
        sizes: Float[Tensor, "*images"],
    ) -> None:
        """Add images."""
        self.add(correct_keypoints(pred, target, visible, sizes, self.threshold).flatten())


class KeypointError3D(PooledMean):
    """`keypoint_error_3d` over all keypoints and times, in world units."""

    higher_is_better = False

    def update(self, pred: Float[Tensor, "*batch J 3"], target: Float[Tensor, "*batch J 3"]) -> None:
        """Add positions."""
        self.add(keypoint_distances(pred, target).flatten())
