"""A subset of the keypoints, spread over the object."""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kg4d.data.records import Keypoints
from kg4d.data.studies.settings import KeypointsConfig
from kg4d.errors import InputError
from kg4d.geometry.point_sets import farthest_points


def choose_keypoints(keypoints: Keypoints | None, config: KeypointsConfig) -> Keypoints | None:
    """The keypoints that the fit uses; None if there are none. The parent becomes the nearest ancestor that is kept.

    Raises:
        InputError: The scene has fewer keypoints than requested.
    """
    if keypoints is None or config.count is None:
        return keypoints
    total = len(keypoints.names)
    if not 0 <= config.count <= total:
        raise InputError("keypoints.count", f"{config.count} is not between 0 and the {total} of the scene", "lower it")
    if config.count == 0:
        return None
    kept = _spread(keypoints.uv[0], keypoints.weights[0], config.count)
    parents, leans = _kept_parents(keypoints.parents, kept.tolist()), keypoints.leans
    if leans is not None:  # of bones that end at another keypoint now, nothing is known
        own = [
            parent >= 0 and int(kept[parent]) == keypoints.parents[j]
            for j, parent in zip(kept.tolist(), parents, strict=True)
        ]
        leans = leans[:, kept] * torch.tensor(own)
    return replace(
        keypoints,
        names=tuple(keypoints.names[j] for j in kept.tolist()),
        parents=parents,
        leans=leans,
        uv=keypoints.uv[:, kept],
        weights=keypoints.weights[:, kept],
        ring_uv=None if keypoints.ring_uv is None else keypoints.ring_uv[:, kept],
        ring_weights=None if keypoints.ring_weights is None else keypoints.ring_weights[:, kept],
        truth=None if keypoints.truth is None else keypoints.truth[:, kept],
        test_uv=None if keypoints.test_uv is None else keypoints.test_uv[:, :, kept],
        test_visible=None if keypoints.test_visible is None else keypoints.test_visible[:, :, kept],
    )


def _spread(points: Float[Tensor, "J 2"], weights: Float[Tensor, " J"], count: int) -> Int[Tensor, " {count}"]:
    """Indices of points that are far from each other, in ascending order; those without weight come last.

    The first is the one nearest to the mean of the weighted points; each next is the farthest from all before it.
    """
    seen, hidden = torch.nonzero(weights > 0)[:, 0], torch.nonzero(weights <= 0)[:, 0]
    if count > len(seen):
        return torch.cat([seen, hidden[: count - len(seen)]]).sort().values
    places = points[seen]
    middle = int((places - places.mean(0)).norm(dim=-1).argmin())
    return seen[farthest_points(places, count, middle)].sort().values


def _kept_parents(parents: tuple[int, ...], kept: list[int]) -> tuple[int, ...]:
    new_index = {old: new for new, old in enumerate(kept)}
    linked = []
    for joint in kept:
        ancestor = parents[joint]
        while ancestor >= 0 and ancestor not in new_index:
            ancestor = parents[ancestor]
        linked.append(new_index.get(ancestor, -1))
    return tuple(linked)
