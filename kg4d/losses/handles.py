"""Priors on the frames of a skinned motion that no image gives: bones that hold, smoothness, kinship of rotations."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from kg4d.geometry.rotations import quat_rotate
from kg4d.losses.regularizers import bone_lengths
from kg4d.losses.robust import geman_mcclure


@dataclass
class HandlesConfig:
    """Priors on the keypoint frames, over all key times (`deformation.kind: skinned`).

    Attributes:
        bones: Weight of frames that carry their children as at rest; 0 switches it off.
        loose: Distance from where the parent's frame puts a child, world units, above which the child counts as one
            that hangs on no rigid part, and is soon pulled no more.
        stretch: Change of a bone's length, world units, above which it counts as one that does bend or stretch.
        smoothness: Weight of the squared second difference of places in time; 0 switches it off.
        coherence: Weight of the squared difference between a frame's rotation and its parent's; 0 switches it off.
    """

    bones: float = 3.0
    loose: float = 0.1
    stretch: float = 0.03
    smoothness: float = 1.0
    coherence: float = 0.01

    def __post_init__(self) -> None:
        """Refuse lengths that would divide by zero.

        Raises:
            ValueError: One of them is not positive.
        """
        for name in ("loose", "stretch"):
            if not getattr(self, name) > 0:
                raise ValueError(f"handles.{name}: must be above 0, not {getattr(self, name)}")


def carried_bones_loss(
    rest: Float[Tensor, "J 3"],
    shifts: Float[Tensor, "T J 3"],
    quats: Float[Tensor, "T J 4"],
    parents: Int[Tensor, " J"],
    *,
    loose: float,
    stretch: float,
) -> Float[Tensor, ""]:
    """How far bones are from where the parent's frame puts them, and from their length; squared world units.

    Means over the bones of |(X_c - X_p) - R_p (X_c - X_p at rest)|² and of the squared change of length, each of which
    hardly grows beyond its scale, `loose` and `stretch`: real skeletons have joints that are no keypoints. Zero iff
    every frame carries its children rigidly; 0 where there is no bone.
    """
    children = torch.nonzero(parents >= 0)[:, 0]
    if not len(children):
        return shifts.new_zeros(())
    above, places = parents[children], rest + shifts
    carried = quat_rotate(quats[:, above], (rest[children] - rest[above]).expand(len(shifts), -1, -1))
    gaps = (places[:, children] - places[:, above] - carried).square().sum(-1)
    changes = (bone_lengths(places, parents) - bone_lengths(rest, parents)).square()
    return geman_mcclure(gaps, loose).mean() + geman_mcclure(changes, stretch).mean()


def acceleration_loss(values: Float[Tensor, "T J D"]) -> Float[Tensor, ""]:
    """Mean squared second difference in time; 0 for fewer than three times."""
    if len(values) < 3:
        return values.new_zeros(())
    return values.diff(n=2, dim=0).square().sum(-1).mean()


def coherence_loss(quats: Float[Tensor, "T J 4"], parents: Int[Tensor, " J"]) -> Float[Tensor, ""]:
    """Mean over the bones of 1 - <q_c, q_p>², the squared sine of half the angle between child and parent."""
    children = torch.nonzero(parents >= 0)[:, 0]
    if not len(children):
        return quats.new_zeros(())
    unit = normalize(quats, dim=-1)
    return (1 - (unit[:, children] * unit[:, parents[children]]).sum(-1).square()).mean()
