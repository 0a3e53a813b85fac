"""Priors on the motion that no image gives: local rigidity, bones that keep their length or bend in a plane."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from kg4d.geometry.rotations import nearest_rotation, quat_conjugate, quat_multiply, quat_rotate, quat_to_matrix


@dataclass
class RigidityConfig:
    """Local rigidity of the deformed Gaussians (Dynamic 3D Gaussians, Luiten et al. 2024, eq. 5, canonical to t).

    Attributes:
        weight: Factor of the loss; 0 switches it off.
        neighbours: Canonical neighbours of each Gaussian.
        samples: Gaussians drawn at each step.
    """

    weight: float = 1.0
    neighbours: int = 20
    samples: int = 1200


@dataclass
class BonesConfig:
    """Bones between a keypoint and its parent keep their canonical length.

    Attributes:
        weight: Factor of the loss; 0 switches it off.
    """

    weight: float = 100.0


@dataclass
class ArapConfig:
    """Control points move as rigidly as possible (`deformation.kind: control_points`).

    Attributes:
        weight: Factor of the loss; 0 switches it off.
        neighbours: Other control points that each one is compared with.
    """

    weight: float = 0.0
    neighbours: int = 8


def neighbour_weights(distances: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
    """exp(-d² / mean d²): near neighbours count more, in any scene unit."""
    squared = distances.square()
    return torch.exp(-squared / squared.mean().clamp_min(1e-12))


def rigidity_loss(
    means: Float[Tensor, "B N 3"],
    quats: Float[Tensor, "B N 4"],
    canonical_means: Float[Tensor, "N 3"],
    canonical_quats: Float[Tensor, "N 4"],
    neighbours: Int[Tensor, "N K"],
    weights: Float[Tensor, "N K"],
    samples: Int[Tensor, " S"],
) -> Float[Tensor, ""]:
    """Mean distance between where a Gaussian's turned frame puts its neighbours and where they are.

    Zero iff every neighbourhood moves as a rigid body whose rotation is that of its centre Gaussian.

    Args:
        means: Deformed centres.
        quats: Deformed rotations; need not be normalised.
        canonical_means: Centres before the deformation.
        canonical_quats: Rotations before the deformation.
        neighbours: Indices of the canonical neighbours.
        weights: Their weights, see `neighbour_weights`.
        samples: The Gaussians to look at in this step.
    """
    near = neighbours[samples]
    rest = canonical_means[near] - canonical_means[samples][:, None]
    moved = means[:, near] - means[:, samples][:, :, None]
    start = torch.nn.functional.normalize(canonical_quats[samples], dim=-1)
    turn = quat_multiply(torch.nn.functional.normalize(quats[:, samples], dim=-1), quat_conjugate(start))
    carried = rest @ quat_to_matrix(turn).mT
    distance = (carried - moved).square().sum(-1).add(1e-10).sqrt()  # the offset keeps the gradient finite at rest
    return (weights[samples] * distance).mean()


def arap_loss(
    places: Float[Tensor, "B M 3"],
    rest: Float[Tensor, "M 3"],
    neighbours: Int[Tensor, "M K"],
    weights: Float[Tensor, "M K"],
) -> Float[Tensor, ""]:
    """Weighted mean of |(p_j - p_i) - R_i (p_j - p_i at rest)|², R_i the rotation that fits best; squared world units.

    Zero iff every neighbourhood has moved rigidly. The rotations are detached: at the best ones the gradient is the
    same. Source: Sorkine and Alexa 2007, "As-rigid-as-possible surface modeling", eq. 3 and 5.

    Args:
        places: Control points at B times.
        rest: Control points at rest.
        neighbours: Indices of the neighbours at rest.
        weights: Their weights, see `neighbour_weights`.
    """
    edges = rest[neighbours] - rest[:, None]
    moved = places[:, neighbours] - places[:, :, None]
    turns = nearest_rotation(moved.mT @ (weights[..., None] * edges))
    gap = (moved - edges @ turns.mT).square().sum(-1)
    return (weights * gap).mean() / weights.mean().clamp_min(1e-12)


def bone_lengths(points: Float[Tensor, "*B J 3"], parents: Int[Tensor, " J"]) -> Float[Tensor, "*B bones"]:
    """Distances of the keypoints that have a parent to that parent, world units."""
    children = torch.nonzero(parents >= 0)[:, 0]
    offsets = points[..., children, :] - points[..., parents[children], :]
    return offsets.square().sum(-1).add(1e-12).sqrt()


def bone_loss(
    points: Float[Tensor, "B J 3"], rest_points: Float[Tensor, "J 3"], parents: Int[Tensor, " J"]
) -> Float[Tensor, ""]:
    """Mean squared change of the bone lengths against rest; 0 where the skeleton has no bone."""
    if not bool((parents >= 0).any()):
        return points.new_zeros(())
    return (bone_lengths(points, parents) - bone_lengths(rest_points, parents)).square().mean()


def hinge_loss(
    tracks: Float[Tensor, "*B T J 3"], rest_points: Float[Tensor, "J 3"], parents: Int[Tensor, " J"], bend: float
) -> Float[Tensor, "*B"]:
    """How far bones that change their length leave the plane in which they and the bones above them move.

    A bone between two keypoints that grows and shrinks has a joint inside that is no keypoint, as a hock is. Its length
    then says nothing about its depth; but limbs bend like hinges, and where they stay in a plane with the bone above,
    whose length is kept, the image does. So this is the variance of both bones across the plane that fits them best,
    times a share that grows from 0 to 1 with the change of the lower one's length; the mean over bones.

    Args:
        tracks: Keypoints at T times, world units.
        rest_points: Keypoints that give the lengths.
        parents: Parent of each keypoint; -1 where there is no bone.
        bend: Change of its length at which a bone counts for half, world units.

    Returns:
        Squared world units; 0 where the skeleton has no bone.
    """
    children = torch.nonzero(parents >= 0)[:, 0]
    if not len(children):
        return tracks.new_zeros(tracks.shape[:-3])
    above = parents[children]
    bones = tracks[..., children, :] - tracks[..., above, :]
    around = bones - bones.mean(-3, keepdim=True)
    scatter = torch.einsum("...tki,...tkj->...kij", around, around) / tracks.shape[-3]
    limbs = ((above[:, None] == children) | (children[:, None] == children)).to(tracks)
    thickness = torch.linalg.eigvalsh(torch.einsum("kl,...lij->...kij", limbs, scatter))[..., 0]
    stretch = (bone_lengths(tracks, parents) - bone_lengths(rest_points, parents)).square().detach()
    bent = (stretch / (stretch + bend**2)).mean(-2)  # without history: lengths are not for this loss to change
    mean: Tensor = (bent * thickness).mean(-1)
    return mean


def geman_mcclure(squared: Float[Tensor, "*batch"], scale: float) -> Float[Tensor, "*batch"]:
    """s² e² / (s² + e²) of squared errors: e² where small, s² at most, so that an outlier soon stops pulling."""
    return squared / (1 + squared / scale**2)


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
