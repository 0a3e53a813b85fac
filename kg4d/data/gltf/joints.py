"""Which joints of a skeleton are keypoints, and what bones lie between them."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

MOST = 24
_LEAST_SHARE = 0.002  # of the surface's area, that a keypoint moves
_APART = 0.01  # of two keypoints, in units of the body's size: nearer ones are the same place
_STRETCH = 0.05  # how much longer than at its shortest a bone may become before another is looked for


class Skeleton(NamedTuple):
    """J keypoints: indices of joints, parents before their children."""

    joints: tuple[int, ...]
    parents: tuple[int, ...]  # of each keypoint, as a number of a keypoint, -1 for a root


def choose_joints(
    positions: Float[Tensor, "T N 3"], parents: tuple[int, ...], shares: Float[Tensor, " N"], size: float
) -> Skeleton:
    """The joints that matter: those that move some of the surface, each place once, at most `MOST`.

    Where there are more, leaves and branchings of the skeleton come first, and then those that lie farthest from all
    that are chosen, over the whole clip. The parent of a keypoint is its nearest ancestor among them. Where the bone to
    it becomes longer and shorter, or there is none (feet that inverse kinematics has put beside their legs), it is the
    nearest keypoint at a distance that stays the same, if there is a nearer one.

    Args:
        positions: Of the N nodes in all frames.
        parents: Of the nodes, -1 for roots.
        shares: Part of the surface's area that follows each node, in [0, 1].
        size: Of the body, in the unit of the positions.
    """
    lineage = dict(enumerate(parents))
    tracks = positions.movedim(1, 0).flatten(1) / positions.shape[0] ** 0.5  # distances between rows are rms over time
    depths = [_depth(node, lineage) for node in range(len(parents))]
    kept: list[int] = []
    for node in sorted(range(len(parents)), key=lambda node: depths[node]):
        known = float(shares[node]) >= _LEAST_SHARE
        if known and all(float((tracks[node] - tracks[other]).norm()) >= _APART * size for other in kept):
            kept.append(node)
    above = _firm(_bones(kept, lineage), positions)
    if len(kept) > MOST:
        kept = _farthest(kept, above, tracks)
        above = _bones(kept, above)
    ordered = sorted(kept, key=lambda node: _depth(node, above))
    number = {node: index for index, node in enumerate(ordered)}
    return Skeleton(tuple(ordered), tuple(number.get(above[node], -1) for node in ordered))


def _depth(node: int, parents: Mapping[int, int]) -> int:
    depth = 0
    while parents[node] >= 0:
        node, depth = parents[node], depth + 1
    return depth


def _bones(kept: list[int], parents: Mapping[int, int]) -> dict[int, int]:
    """Nearest ancestor of each of the kept nodes among them, -1 for roots."""
    above = {}
    for node in kept:
        over = parents[node]
        while over >= 0 and over not in kept:
            over = parents[over]
        above[node] = over
    return above


def _firm(above: dict[int, int], positions: Float[Tensor, "T N 3"]) -> dict[int, int]:
    """The same with bones of constant length in place of others that are longer, where there are such."""
    mean = torch.cdist(positions, positions).mean(0)
    found = dict(above)
    for node, over in above.items():
        if over >= 0 and _stretch(positions, node, over) <= _STRETCH:
            continue
        others = [other for other in found if not _is_above(node, other, found)]
        nearer = [other for other in others if over < 0 or mean[node, other] < mean[node, over]]
        firm = [other for other in nearer if _stretch(positions, node, other) <= _STRETCH]
        if firm:
            found[node] = min(firm, key=lambda other: float(mean[node, other]))
    return found


def _stretch(positions: Float[Tensor, "T N 3"], node: int, other: int) -> float:
    lengths = (positions[:, node] - positions[:, other]).norm(dim=-1)
    return float(lengths.max() / lengths.min().clamp_min(1e-12)) - 1


def _is_above(node: int, other: int, above: dict[int, int]) -> bool:
    """Whether `node` is `other` or one of its ancestors."""
    while other >= 0 and other != node:
        other = above[other]
    return other == node


def _farthest(kept: list[int], above: dict[int, int], tracks: Float[Tensor, "N D"]) -> list[int]:
    """Leaves, branchings and roots, as far as there is room; then those farthest from all chosen."""
    children = [list(above.values()).count(node) for node in kept]
    first = [node for node, count in zip(kept, children, strict=True) if count != 1 or above[node] < 0]
    chosen = first if len(first) <= MOST else first[:1]
    rest = [node for node in (kept if len(first) <= MOST else first) if node not in chosen]
    while len(chosen) < MOST:
        distances = torch.cdist(tracks[rest], tracks[chosen]).amin(1)
        chosen = [*chosen, rest.pop(int(distances.argmax()))]
    return chosen
