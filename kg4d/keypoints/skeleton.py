"""Skeletons whose joints are known in 3D: rotations of the joints, and distances from points to bones."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kg4d.geometry.rotations import matrix_to_quat, nearest_rotation


def first_below_cycle(parents: Sequence[int]) -> int | None:
    """The first joint whose ancestors run in a circle; None where the parents are a forest.

    Args:
        parents: Index of the parent of each joint, -1 for roots.

    >>> first_below_cycle([-1, 2, 3, 2]), first_below_cycle([1, -1, 0])
    (1, None)
    """
    for joint in range(len(parents)):
        ancestor = joint
        for _ in parents:  # one step for each joint leads above every root
            ancestor = parents[ancestor] if ancestor >= 0 else ancestor
        if ancestor >= 0:
            return joint
    return None


def ancestors_first(parents: Int[Tensor, " J"]) -> list[int]:
    """Indices of the joints, ordered so that parents come before their children.

    Raises:
        ValueError: The parents form a cycle.

    >>> ancestors_first(torch.tensor([1, -1, 0]))
    [1, 0, 2]
    """
    links: list[int] = parents.tolist()
    if first_below_cycle(links) is not None:
        raise ValueError("the parents of the keypoints form a cycle")
    order: list[int] = []
    while len(order) < len(links):
        order += [j for j, parent in enumerate(links) if j not in order and (parent < 0 or parent in order)]
    return order


@torch.no_grad()
def bone_rotations(
    rest: Float[Tensor, "J 3"],
    tracks: Float[Tensor, "T J 3"],
    parents: Int[Tensor, " J"],
    *,
    inertia: float = 0.01,
) -> Float[Tensor, "T J 4"]:
    """Rotation of each joint's frame since rest: the one that best carries the bones to its children.

    What those bones leave undetermined follows the parent's frame: the whole rotation at a leaf, the twist about the
    bone where there is a single child.

    Args:
        rest: Joints at rest, world units.
        tracks: Joints at T times, world units.
        parents: Parent of each joint; -1 for roots.
        inertia: Weight of the parent's rotation relative to that of the bones.

    Returns:
        Unit quaternions (wxyz) in world axes, without gradient.
    """
    rest, tracks = rest.double(), tracks.double()
    identity = torch.eye(3, dtype=rest.dtype, device=rest.device).expand(len(tracks), 3, 3)
    rotations = [identity] * len(rest)
    for joint in ancestors_first(parents):
        parent = int(parents[joint])
        prior = identity if parent < 0 else rotations[parent]
        children = torch.nonzero(parents == joint)[:, 0]
        bones, moved = rest[children] - rest[joint], tracks[:, children] - tracks[:, joint, None]
        weight = inertia * bones.square().sum()
        rotations[joint] = nearest_rotation(moved.mT @ bones + weight * prior) if weight > 1e-12 else prior
    return matrix_to_quat(torch.stack(rotations, dim=1)).float()


def segment_distances(
    points: Float[Tensor, "N 3"], starts: Float[Tensor, "K 3"], ends: Float[Tensor, "K 3"]
) -> Float[Tensor, "N K"]:
    """Distances from points to segments; a segment of length zero counts as a point."""
    bones, offsets = ends - starts, points[:, None] - starts
    along = ((offsets * bones).sum(-1) / bones.square().sum(-1).clamp_min(1e-12)).clamp(0, 1)
    distances: Tensor = (offsets - along[..., None] * bones).norm(dim=-1)
    return distances


def bone_distances(
    points: Float[Tensor, "N 3"], joints: Float[Tensor, "J 3"], parents: Int[Tensor, " J"]
) -> Float[Tensor, "N J"]:
    """Distance from each point to what each joint's frame carries: the joint itself and the bones to its children."""
    distances = torch.cdist(points, joints)
    children = torch.nonzero(parents >= 0)[:, 0]
    above = parents[children]
    to_bones = segment_distances(points, joints[above], joints[children])
    return distances.scatter_reduce(1, above.expand(len(points), -1), to_bones, "amin")
