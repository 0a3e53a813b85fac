"""Keypoints if nobody marked any: spread over the object where it can be tracked well, with bones between them.

Source of the corners: Shi and Tomasi 1994, "Good features to track".
"""

import math

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kg4d.data.images import quantize
from kg4d.errors import InputError
from kg4d.geometry.point_sets import farthest_points
from kg4d.geometry.sampling import sample_image
from kg4d.priors.base import KeypointTracks
from kg4d.priors.keypoints.marked import SupportKeypoints

_SURE = 0.5  # an image counts for a bone if the confidence of both ends is above this


def spread_keypoints(image: Float[Tensor, "H W 4"], count: int) -> SupportKeypoints:
    """Choose keypoints where the object can be tracked well, far from one another, with bones between neighbours.

    Candidates are the corners (Shi-Tomasi) inside the object's eroded matte. The first keypoint is the strongest
    corner; each next one is the candidate farthest from all before it. Bones are those of `span_bones`.

    Args:
        image: Straight RGBA in [0, 1].
        count: Number J of keypoints, at least 1.

    Raises:
        InputError: The object has fewer than `count` candidates.
    """
    matte = (image[..., 3] > 0.5).numpy()
    inner = _eroded(matte)
    candidates = _corners(image, inner)
    if len(candidates) < 4 * count:  # a surface without texture: any pixel will do
        pixels = np.argwhere(inner)[:, ::-1]
        step = max(1, len(pixels) // (16 * count))
        candidates = np.concatenate([candidates, pixels[::step] + 0.5])
    if len(candidates) < count:
        what = f"the object is too small for {count} keypoints"
        raise InputError("keypoints.count", what, f"ask for at most {len(candidates)}")
    uv = torch.from_numpy(candidates).float()
    chosen = uv[farthest_points(uv, count)]
    names = tuple(f"auto_{index:02d}" for index in range(count))
    tracks = KeypointTracks(chosen[None], torch.ones(1, count))
    return SupportKeypoints(names, span_bones(tracks, image[None, ..., 3:]), chosen)


def span_bones(tracks: KeypointTracks, mattes: Float[Tensor, "M H W 1"]) -> tuple[int, ...]:
    """A tree of bones between keypoints that stay close to one another along the object.

    It is the minimum spanning tree, rooted at the first keypoint. The cost of a bone is its largest cost in any image
    that shows both ends; its cost in an image is its length, where the part outside the matte counts five times. So a
    hand that rests on the hip is attached to its arm, provided that it leaves the hip in some image.

    Args:
        tracks: The keypoints; in the first image all count as visible.
        mattes: The mattes of the images, in [0, 1].

    Returns:
        The index of the parent of each keypoint, -1 for the root.
    """
    fractions = torch.linspace(0, 1, 17)[:, None]
    costs = torch.zeros(tracks.uv.shape[1], tracks.uv.shape[1])
    for frame, (uv, weights, matte) in enumerate(zip(tracks.uv, tracks.weights, mattes, strict=True)):
        along = torch.lerp(uv[:, None, None], uv[None, :, None], fractions)
        outside = (sample_image(matte, along)[..., 0] <= 0.5).float().mean(-1)
        both = (weights[:, None] > _SURE) & (weights > _SURE)
        costs_in_frame = torch.cdist(uv, uv) * (1 + 4 * outside)
        costs = torch.where(both | torch.tensor(frame == 0), torch.maximum(costs, costs_in_frame), costs)
    return _spanning_tree(costs)


def _eroded(matte: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """The matte eroded by 1.5 % of the image's longer side; the matte itself if nothing would be left."""
    width = 2 * max(1, round(0.015 * max(matte.shape))) + 1
    inner = cv2.erode(matte.astype(np.uint8), np.ones((width, width), np.uint8)) > 0
    return np.asarray(inner if inner.any() else matte)


def _corners(image: Float[Tensor, "H W 4"], inner: Bool[np.ndarray, "H W"]) -> Float[np.ndarray, "n 2"]:
    """Pixel positions of Shi-Tomasi corners (local maxima of the smaller eigenvalue), strongest first."""
    alpha = image[..., 3:]
    grey = cv2.cvtColor(quantize(image[..., :3] * alpha + 1 - alpha).numpy(), cv2.COLOR_RGB2GRAY)
    least = max(2.0, 0.01 * max(grey.shape))
    found = cv2.goodFeaturesToTrack(grey, 1000, 0.01, least, mask=inner.astype(np.uint8), blockSize=5)
    return np.zeros((0, 2)) if found is None else found[:, 0].astype(np.float64) + 0.5


def _spanning_tree(costs: Float[Tensor, "J J"]) -> tuple[int, ...]:
    """Parent of each node in the minimum spanning tree rooted at the first (Prim's algorithm)."""
    parents = [-1] * len(costs)
    nearest, source = costs[0].clone(), [0] * len(costs)
    nearest[0] = math.inf
    for _ in range(len(costs) - 1):
        new = int(nearest.argmin())
        parents[new], nearest[new] = source[new], math.inf
        for other in range(len(costs)):
            if nearest[other] < math.inf and costs[new, other] < nearest[other]:
                nearest[other], source[other] = costs[new, other], new
    return tuple(parents)
