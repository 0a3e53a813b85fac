"""The motion of one skeleton carried over to another one: directions of bones are taken over, lengths are kept."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kg4d.geometry.rotations import matrix_to_quat, nearest_rotation, quat_conjugate, quat_multiply
from kg4d.keypoints.motion import FrameMotion
from kg4d.keypoints.skeleton import ancestors_first, bone_rotations

_INERTIA = 1e-5  # enough to decide what bones leave open
_NO_LENGTH = 1e-9  # of a bone, relative to the mean of all: it has no direction


@torch.no_grad()
def retargeted(
    rest: Float[Tensor, "J 3"],
    parents: Int[Tensor, " J"],
    times: Float[Tensor, " T"],
    positions: Float[Tensor, "T J 3"],
    quats: Float[Tensor, "T J 4"] | None = None,
    *,
    aligned: bool = True,
) -> FrameMotion:
    """Move a skeleton as another one with the same joints moves.

    Every bone takes the direction of its counterpart and keeps its own length; roots go the way of their counterparts,
    times the ratio of the sizes (sums of the lengths of all bones, in the first frame). So the size of the other
    skeleton and its proportions do not matter, nor, when `aligned`, do its axes.

    Args:
        rest: Joints of the skeleton at rest, world units.
        parents: Parent of each joint; -1 for roots.
        times: Of the motion, ascending.
        positions: Joints of the other skeleton, in any units.
        quats: Rotations of its joints (wxyz) since the first of the times. When None, those are taken that best carry
            the bones; the twist about a bone then follows that of its parent.
        aligned: Turn the motion as a whole so that bones point in the first frame as they do at rest, as closely as one
            rotation can bring that about (Kabsch). Otherwise both have the same axes.

    Returns:
        Joints and their rotations since `rest`.
    """
    rest, positions = rest.double(), positions.to(rest).double()
    parents = parents.to(rest.device)
    ends = torch.nonzero(parents >= 0)[:, 0]
    own, others = _bones(rest, parents, ends), _bones(positions, parents, ends)
    turn = torch.eye(3, dtype=rest.dtype, device=rest.device)
    if aligned:
        turn = nearest_rotation(own.mT @ others[0])
    size = own.norm(dim=-1).sum() / others[0].norm(dim=-1).sum().clamp_min(torch.finfo(rest.dtype).tiny)
    moved = rest + size * (positions - positions[0]) @ turn.mT  # right for roots
    bones = torch.zeros_like(moved)
    if len(ends):
        bones[:, ends] = _pointed(own, others @ turn.mT)
    for joint in ancestors_first(parents):
        if int(parents[joint]) >= 0:
            moved[:, joint] = moved[:, int(parents[joint])] + bones[:, joint]
    if quats is None:
        return FrameMotion(times, rest.float(), moved.float(), bone_rotations(rest, moved, parents, inertia=_INERTIA))
    first = bone_rotations(rest, moved[:1], parents, inertia=_INERTIA).double()  # from rest to the first frame
    around = matrix_to_quat(turn)
    since = quat_multiply(quat_multiply(around, quats.to(rest).double()), quat_conjugate(around))
    return FrameMotion(times, rest.float(), moved.float(), quat_multiply(since, first).float())


def _bones(joints: Float[Tensor, "*T J 3"], parents: Int[Tensor, " J"], ends: Int[Tensor, " K"]) -> Tensor:
    """Bones, and where there are none the joints as seen from their mean."""
    if len(ends) == 0:
        return joints - joints.mean(-2, keepdim=True)
    return joints[..., ends, :] - joints[..., parents[ends], :]


def _pointed(own: Float[Tensor, "K 3"], others: Float[Tensor, "T K 3"]) -> Float[Tensor, "T K 3"]:
    """Bones of the lengths of `own` and the directions of `others`; unmoved while those have none."""
    lengths, others_lengths = own.norm(dim=-1)[:, None], others.norm(dim=-1, keepdim=True)
    none = others_lengths <= _NO_LENGTH * others_lengths.mean()
    return torch.where(none, own, lengths * others / others_lengths.clamp_min(torch.finfo(own.dtype).tiny))
