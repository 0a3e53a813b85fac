"""Distances between a moving surface and the true one: Chamfer distances, as ActionBench defines them.

Taken from ActionBench (Sabathier et al. 2026, "ActionMesh: Animated 3D mesh generation with temporal 3D diffusion", and
its published script): the Chamfer distance as the sum of the mean distances to the nearest point, not squared, in both
directions; CD-3D after an alignment of each frame; CD-4D after the alignment of the first frame; CD-M between points
that are nearest in the first frame. Of our own: the alignment is a similarity found by closest points, where theirs may
also stretch along three axes and is found by gradients; that of a frame starts at that of the first, where theirs
starts anew; the unit is half of the longest side of the truth's box over the clip, so that truths of any size fill
[-1, 1]; points of the prediction have weights; and 500 points a side look for their neighbours among all, where theirs
are 10,000.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from kg4d.geometry.alignment import align, refined
from kg4d.geometry.point_sets import nearest_ids

_QUERIES = 500  # points of a side that look for their neighbours


class SurfaceDistance(NamedTuple):
    """Of one clip of T frames, in half lengths of the longest side of the truth's box."""

    cd_3d: Float[Tensor, " T"]
    cd_4d: Float[Tensor, " T"]
    motion: Float[Tensor, ""]  # NaN where the points of the prediction are not the same in all frames


def chamfer(
    pred: Float[Tensor, "n 3"], target: Float[Tensor, "m 3"], weights: Float[Tensor, " n"] | None = None
) -> Float[Tensor, ""]:
    """Mean distance to the nearest true point plus mean distance of true points to the nearest predicted one.

    Args:
        pred: Predicted points.
        target: True points, in the same unit.
        weights: Of the predicted points in their mean, >= 0 and not all 0; all alike when None.
    """
    asked, wanted = _queries(len(pred)), _queries(len(target))
    there = (pred[asked] - target[nearest_ids(pred[asked], target)]).norm(dim=-1)
    back = (target[wanted] - pred[nearest_ids(target[wanted], pred)]).norm(dim=-1)
    both: Tensor = _mean(there, weights, asked) + back.mean()
    return both


def motion_chamfer(
    pred: Float[Tensor, "T n 3"], target: Float[Tensor, "T m 3"], weights: Float[Tensor, " n"] | None = None
) -> Float[Tensor, ""]:
    """As `chamfer`, between each point and the one that is nearest to it in the first frame, meant over all frames."""
    asked, wanted = _queries(pred.shape[1]), _queries(target.shape[1])
    partners = nearest_ids(pred[0, asked], target[0])
    there = (pred[:, asked] - target[:, partners]).norm(dim=-1).mean(0)
    fellows = nearest_ids(target[0, wanted], pred[0])
    back = (target[:, wanted] - pred[:, fellows]).norm(dim=-1).mean(0)
    both: Tensor = _mean(there, weights, asked) + back.mean()
    return both


@torch.no_grad()
def surface_distance(
    pred: Sequence[Float[Tensor, "_ 3"]],
    target: Float[Tensor, "T m 3"],
    weights: Sequence[Float[Tensor, " _"]] | None = None,
    *,
    tracked: bool = True,
) -> SurfaceDistance:
    """How far a moving surface is from the true one; no turn, scale or shift of the whole prediction changes it.

    Args:
        pred: Points of the predicted surface in each of T frames, at least one each.
        target: True points: the same in all frames, evenly spread.
        weights: Of the predicted points, as in `chamfer`.
        tracked: Whether the predicted points are the same in all frames.
    """
    box = target.reshape(-1, 3)
    unit = (box.amax(0) - box.amin(0)).max() / 2
    shares = [None] * len(pred) if weights is None else list(weights)
    whole = align(pred[0], target[0])
    same = [whole.moved(points) for points in pred]
    frames = zip(pred, target, strict=True)
    single = [refined(whole, points, truth).moved(points) for points, truth in frames]
    motion = motion_chamfer(torch.stack(same), target, shares[0]) if tracked else target.new_tensor(torch.nan)
    each, clip = (
        torch.stack([chamfer(*frame) for frame in zip(points, target, shares, strict=True)])
        for points in (single, same)
    )
    return SurfaceDistance(each / unit, clip / unit, motion / unit)


def _queries(count: int) -> Int[Tensor, " n"]:
    return torch.linspace(0, count - 1, min(count, _QUERIES)).long()


def _mean(values: Float[Tensor, " n"], weights: Float[Tensor, " all"] | None, asked: Int[Tensor, " n"]) -> Tensor:
    if weights is None:
        return values.mean()
    return (values * weights[asked]).sum() / weights[asked].sum()


class SurfaceDistances(Metric):
    """`surface_distance` of clips: the means over all of them, by name."""

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    cd_3d: list[Tensor] | Tensor
    cd_4d: list[Tensor] | Tensor
    motion: list[Tensor] | Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in SurfaceDistance._fields:
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(
        self,
        pred: Sequence[Float[Tensor, "_ 3"]],
        target: Float[Tensor, "T m 3"],
        weights: Sequence[Float[Tensor, " _"]] | None = None,
        *,
        tracked: bool = True,
    ) -> None:
        """Add a clip."""
        distance = surface_distance(pred, target, weights, tracked=tracked)
        for name, values in distance._asdict().items():
            getattr(self, name).append(values.mean()[None])

    def compute(self) -> dict[str, Tensor]:
        """`cd_3d`, `cd_4d` and `motion`; NaN where nothing counts."""
        return {name: dim_zero_cat(getattr(self, name)).nanmean() for name in SurfaceDistance._fields}
