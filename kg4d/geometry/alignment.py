"""One set of points turned, scaled and moved onto another, with known pairs or without.

Sources: Umeyama 1991, "Least-squares estimation of transformation parameters between two point patterns" (known pairs);
Besl & McKay 1992, "A method for registration of 3-D shapes" (iterative closest points).
"""

import itertools
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.geometry.point_sets import nearest_ids
from kg4d.geometry.rotations import nearest_rotation

_COARSE, _FINE = 300, 600  # points of each set that are compared
_COARSE_STEPS, _FINE_STEPS = 12, 15


class Similarity(NamedTuple):
    """x becomes scale R x + translation."""

    rotation: Float[Tensor, "*batch 3 3"]
    scale: Float[Tensor, "*batch"]  # > 0
    translation: Float[Tensor, "*batch 3"]

    def moved(self, points: Float[Tensor, "*batch n 3"]) -> Float[Tensor, "*batch n 3"]:
        """The points where the similarity puts them."""
        return self.scale[..., None, None] * points @ self.rotation.mT + self.translation[..., None, :]


@torch.no_grad()
def fit_similarity(source: Float[Tensor, "*batch n 3"], target: Float[Tensor, "*batch n 3"]) -> Similarity:
    """The similarity that brings the points of one set nearest to their partners, by the sum of squared distances."""
    here, there = source.mean(-2, keepdim=True), target.mean(-2, keepdim=True)
    centred, wanted = source - here, target - there
    rotation = nearest_rotation(wanted.mT @ centred)
    turned = centred @ rotation.mT
    tiny = torch.finfo(source.dtype).tiny
    scale = ((turned * wanted).sum((-2, -1)) / centred.square().sum((-2, -1)).clamp_min(tiny)).clamp_min(tiny)
    moved = Similarity(rotation, scale, torch.zeros_like(here[..., 0, :])).moved(here)
    return Similarity(rotation, scale, (there - moved)[..., 0, :])


@torch.no_grad()
def align(source: Float[Tensor, "n 3"], target: Float[Tensor, "m 3"]) -> Similarity:
    """Iterative closest points: the similarity that brings the source onto the target, without known pairs.

    Partners are nearest neighbours in both directions, so that a source cannot shrink onto a part of its target. It is
    started 24 times, with the principal axes of the source on those of the target in all ways that are rotations, and
    the best ending is refined. So the result does not depend on how the source is turned, scaled or moved.
    """
    few, wanted = (_subset(points, _COARSE).expand(24, -1, -1) for points in (source, target))
    ends = _iterated(_starts(few, wanted), few, wanted, _COARSE_STEPS)
    best = int(_distance(ends.moved(few), wanted).argmin())
    return refined(Similarity(*(part[best] for part in ends)), source, target)


@torch.no_grad()
def refined(start: Similarity, source: Float[Tensor, "n 3"], target: Float[Tensor, "m 3"]) -> Similarity:
    """Iterative closest points from one start; the start itself where the end is no better."""
    few, wanted = _subset(source, _FINE), _subset(target, _FINE)
    end = _iterated(start, few, wanted, _FINE_STEPS)
    return end if _distance(end.moved(few), wanted) < _distance(start.moved(few), wanted) else start


def _subset(points: Float[Tensor, "n 3"], most: int) -> Float[Tensor, "k 3"]:
    return points if len(points) <= most else points[torch.linspace(0, len(points) - 1, most).long()]


def _starts(source: Float[Tensor, "24 n 3"], target: Float[Tensor, "24 m 3"]) -> Similarity:
    """Axes on axes, mean on mean, spread on spread."""
    (here, size, axes), (there, wanted, goal) = _shape(source), _shape(target)
    rotation = goal @ _cube_rotations().to(source) @ axes.mT
    scale = wanted / size.clamp_min(torch.finfo(source.dtype).tiny)
    moved = Similarity(rotation, scale, torch.zeros_like(here)).moved(here[:, None])
    return Similarity(rotation, scale, there - moved[:, 0])


def _shape(points: Float[Tensor, "B n 3"]) -> tuple[Float[Tensor, "B 3"], Float[Tensor, " B"], Float[Tensor, "B 3 3"]]:
    """Mean, root mean square distance from it, and principal axes as the columns of a rotation."""
    mean = points.mean(1)
    centred = points - mean[:, None]
    axes = torch.linalg.eigh(centred.mT @ centred).eigenvectors
    return mean, centred.square().sum(-1).mean(-1).sqrt(), axes * torch.linalg.det(axes)[:, None, None]


def _cube_rotations() -> Float[Tensor, "24 3 3"]:
    """The rotations that bring a cube onto itself."""
    signed = [
        torch.diag(torch.tensor(signs))[list(order)]
        for order in itertools.permutations(range(3))
        for signs in itertools.product((1.0, -1.0), repeat=3)
    ]
    return torch.stack([matrix for matrix in signed if torch.linalg.det(matrix) > 0])


def _iterated(
    start: Similarity, source: Float[Tensor, "*batch n 3"], target: Float[Tensor, "*batch m 3"], steps: int
) -> Similarity:
    found = start
    for _ in range(steps):
        moved = found.moved(source)
        partners, fellows = _rows(target, nearest_ids(moved, target)), _rows(source, nearest_ids(target, moved))
        found = fit_similarity(torch.cat([source, fellows], dim=-2), torch.cat([partners, target], dim=-2))
    return found


def _distance(points: Float[Tensor, "*batch n 3"], target: Float[Tensor, "*batch m 3"]) -> Float[Tensor, "*batch"]:
    there = (points - _rows(target, nearest_ids(points, target))).norm(dim=-1).mean(-1)
    back = (target - _rows(points, nearest_ids(target, points))).norm(dim=-1).mean(-1)
    both: Tensor = there + back
    return both


def _rows(points: Float[Tensor, "*batch m 3"], ids: Tensor) -> Float[Tensor, "*batch n 3"]:
    return points.gather(-2, ids[..., None].expand(*ids.shape, 3))
