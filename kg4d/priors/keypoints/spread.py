"""Keypoints where nobody marked any: spread over the object at places that can be tracked, with bones between them.

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

_SURE = 0.5  # confidence of both ends above which an image says something about a bone


def spread_keypoints(image: Float[Tensor, "H W 4"], count: int) -> SupportKeypoints:
    """Choose keypoints where the object can be tracked, far from one another, with bones between neighbours.

    Candidates are the corners (Shi-Tomasi) inside the object's eroded matte. The first is the strongest; each next is
    the one farthest from all before. Bones are those of `span_bones`.

    Args:
        image: Straight RGBA.
        count: J, at least 1.

    Raises:
        InputError: The object has too few places.
    """
    matte = (image[..., 3] > 0.5).numpy()
    inner = _eroded(matte)
    candidates = _corners(image, inner)
    if len(candidates) < 4 * count:  # a plain surface: any place will do
        places = np.argwhere(inner)[:, ::-1]
        step = max(1, len(places) // (16 * count))
        candidates = np.concatenate([candidates, places[::step] + 0.5])
    if len(candidates) < count:
        what = f"the object is too small for {count} keypoints"
        raise InputError("keypoints.count", what, f"ask for at most {len(candidates)}")
    uv = torch.from_numpy(candidates).float()
    chosen = uv[farthest_points(uv, count)]
    names = tuple(f"auto_{index:02d}" for index in range(count))
    tracks = KeypointTracks(chosen[None], torch.ones(1, count))
    return SupportKeypoints(names, span_bones(tracks, image[None, ..., 3:]), chosen)


def span_bones(tracks: KeypointTracks, mattes: Float[Tensor, "M H W 1"]) -> tuple[int, ...]:
    """Parents of a tree of bones between keypoints that stay near one another across the object.

    The minimum spanning tree, rooted at the first keypoint. What a bone costs is the most that it costs in any image
    that shows both of its ends: its length, what runs outside of the matte five times. So a hand that rests on the hip
    hangs on its arm, if it leaves the hip at any time.

    Args:
        tracks: The keypoints; all count as seen in the first image.
        mattes: Of the images.
    """
    shares = torch.linspace(0, 1, 17)[:, None]
    costs = torch.zeros(tracks.uv.shape[1], tracks.uv.shape[1])
    for frame, (uv, weights, matte) in enumerate(zip(tracks.uv, tracks.weights, mattes, strict=True)):
        along = torch.lerp(uv[:, None, None], uv[None, :, None], shares)
        outside = (sample_image(matte, along)[..., 0] <= 0.5).float().mean(-1)
        both = (weights[:, None] > _SURE) & (weights > _SURE)
        here = torch.cdist(uv, uv) * (1 + 4 * outside)
        costs = torch.where(both | torch.tensor(frame == 0), torch.maximum(costs, here), costs)
    return _spanning_tree(costs)


def _eroded(matte: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """The matte less 1.5 % of the image along its edge; the matte itself where nothing would be left."""
    width = 2 * max(1, round(0.015 * max(matte.shape))) + 1
    inner = cv2.erode(matte.astype(np.uint8), np.ones((width, width), np.uint8)) > 0
    return np.asarray(inner if inner.any() else matte)


def _corners(image: Float[Tensor, "H W 4"], inner: Bool[np.ndarray, "H W"]) -> Float[np.ndarray, "n 2"]:
    """Pixel positions of local maxima of the smaller eigenvalue, strongest first."""
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
