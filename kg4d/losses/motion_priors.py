"""Priors on motion, independent of any image: local rigidity, bones of constant length, limbs that bend in a plane."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from kg4d.geometry.rotations import nearest_rotation, quat_conjugate, quat_multiply, quat_rotate, quat_to_matrix

_STEPS = 15  # units of time in a clip, for accelerations: weights are those of sixteen frames


class Bones(NamedTuple):
    """The bones of a skeleton, found once: looking for them in `parents` would let every step wait for a GPU."""

    children: Int[Tensor, " bones"]  # the keypoints that have a parent
    above: Int[Tensor, " bones"]  # their parents

    @staticmethod
    def of(parents: "Int[Tensor, ' J'] | Bones") -> "Bones":
        """From the parent of each keypoint, -1 where there is no bone; bones stay as they are."""
        if isinstance(parents, Bones):
            return parents
        children = torch.nonzero(parents >= 0)[:, 0]
        return Bones(children, parents[children])


def neighbour_weights(distances: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
    """exp(-d² / mean d²): nearer neighbours weigh more, whatever the unit of the scene."""
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
    """Mean weighted distance of neighbours from where the rotation of a Gaussian would carry them, world units.

    Zero iff every neighbourhood moves as a rigid body with the rotation of its central Gaussian. Source: Luiten et al.
    2024, "Dynamic 3D Gaussians", eq. 5, from the canonical state to each of B times.

    Args:
        means: Deformed centres at B times, world units.
        quats: Deformed rotations, wxyz; need not be normalised.
        canonical_means: Centres before the deformation, world units.
        canonical_quats: Rotations before the deformation, wxyz; need not be normalised.
        neighbours: Indices of the K canonical neighbours of each Gaussian.
        weights: Their weights, see `neighbour_weights`.
        samples: Indices of the Gaussians that count in this step.
    """
    near = neighbours[samples]
    rest = canonical_means[near] - canonical_means[samples][:, None]
    moved = means[:, near] - means[:, samples][:, :, None]
    start = torch.nn.functional.normalize(canonical_quats[samples], dim=-1)
    rotation = quat_multiply(torch.nn.functional.normalize(quats[:, samples], dim=-1), quat_conjugate(start))
    carried = rest @ quat_to_matrix(rotation).mT
    distance = (carried - moved).square().sum(-1).add(1e-10).sqrt()  # the offset keeps the gradient finite at rest
    return (weights[samples] * distance).mean()


def arap_loss(
    positions: Float[Tensor, "B M 3"],
    rest: Float[Tensor, "M 3"],
    neighbours: Int[Tensor, "M K"],
    weights: Float[Tensor, "M K"],
) -> Float[Tensor, ""]:
    """Weighted mean of |(p_j - p_i) - R_i (p_j - p_i at rest)|², R_i the best-fitting rotations; squared world units.

    Zero iff every neighbourhood has moved rigidly. The rotations are detached: they minimise the loss, so its gradient
    is the same. Source: Sorkine and Alexa 2007, "As-rigid-as-possible surface modeling", eq. 3 and 5.

    Args:
        positions: Control points at B times, world units.
        rest: Control points at rest, world units.
        neighbours: Indices of the K neighbours of each control point at rest.
        weights: Their weights, see `neighbour_weights`.
    """
    edges = rest[neighbours] - rest[:, None]
    moved = positions[:, neighbours] - positions[:, :, None]
    rotations = nearest_rotation(moved.mT @ (weights[..., None] * edges))
    gap = (moved - edges @ rotations.mT).square().sum(-1)
    return (weights * gap).mean() / weights.mean().clamp_min(1e-12)


def bone_lengths(points: Float[Tensor, "*B J 3"], parents: Int[Tensor, " J"] | Bones) -> Float[Tensor, "*B bones"]:
    """Distance of each keypoint that has a parent to that parent, in the unit of `points`."""
    bones = Bones.of(parents)
    offsets = points[..., bones.children, :] - points[..., bones.above, :]
    return offsets.square().sum(-1).add(1e-12).sqrt()


def bone_loss(
    points: Float[Tensor, "B J 3"], rest_points: Float[Tensor, "J 3"], parents: Int[Tensor, " J"] | Bones
) -> Float[Tensor, ""]:
    """Mean squared change of the bone lengths since rest, squared world units; 0 for a skeleton without bones."""
    bones = Bones.of(parents)
    if not len(bones.children):
        return points.new_zeros(())
    return (bone_lengths(points, bones) - bone_lengths(rest_points, bones)).square().mean()


def hinge_loss(
    tracks: Float[Tensor, "*B T J 3"], rest_points: Float[Tensor, "J 3"], parents: Int[Tensor, " J"], bend: float
) -> Float[Tensor, "*B"]:
    """Variance of limbs across the plane they move in, where a bone changes its length.

    A bone whose length changes hides a joint that is not a keypoint, such as a hock, so its length says nothing about
    its depth. But limbs bend like hinges: while such a bone stays in one plane with the bone above it, whose length is
    kept, the image determines its depth. The variance of the two bones across their best-fitting plane is therefore
    weighted by the mean over time of c² / (c² + bend²), c the change of the lower bone's length, and averaged over all
    bones.

    Args:
        tracks: Keypoints at T times, world units.
        rest_points: Keypoints at rest, which define the bone lengths, world units.
        parents: Parent of each keypoint; -1 where there is no bone.
        bend: Change of length, world units, at which a bone has half its full weight.

    Returns:
        Squared world units; 0 for a skeleton without bones.
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
    bent = (stretch / (stretch + bend**2)).mean(-2)  # `stretch` is detached: this loss must not change the lengths
    mean: Tensor = (bent * thickness).mean(-1)
    return mean


def geman_mcclure(squared: Float[Tensor, "*batch"], scale: float) -> Float[Tensor, "*batch"]:
    """Geman-McClure loss s² e² / (s² + e²) of squared errors e², s the scale in the unit of e.

    About e² for small errors and s² at most, so that outliers hardly pull.
    """
    return squared / (1 + squared / scale**2)


def lean_loss(sines: Float[Tensor, "S T K"], leans: Float[Tensor, "T K"]) -> Float[Tensor, " S"]:
    """Mean of max(0, -l s)² over bones and times: bones should lean to the side to which they are estimated to lean.

    Only the side counts: a bone that leans to it by any angle costs nothing. A single image does not show depth well,
    so how far a bone leans is left to its length and its projection.

    Args:
        sines: Sine s of the angle by which each of the K bones leans away from the camera.
        leans: The estimated sines l times the confidence in them; 0 where nothing is known.

    >>> lean_loss(torch.tensor([[[0.5, 0.5, 0.5]]]), torch.tensor([[0.4, -0.4, 0.0]]))
    tensor([0.0133])
    """
    if sines.shape[-1] == 0:
        return sines.sum((1, 2))
    return (-leans * sines).clamp_min(0).square().mean((1, 2))


def carried_bones_loss(
    rest: Float[Tensor, "J 3"],
    translations: Float[Tensor, "T J 3"],
    quats: Float[Tensor, "T J 4"],
    parents: Int[Tensor, " J"] | Bones,
    *,
    loose: float,
    stretch: float,
) -> Float[Tensor, ""]:
    """How far bones are from where their parents' frames carry them, and from their length at rest.

    The sum of two robust means over bones and times (`geman_mcclure`): of |(X_c - X_p) - R_p (X_c - X_p at rest)|² for
    a child c of p, and of the squared change of length. They are robust because real skeletons have joints that are
    not keypoints. Zero iff every frame carries its children rigidly.

    Args:
        rest: Positions of the frames at rest, world units.
        translations: Translation of each frame since rest at T key times, world units.
        quats: Rotation of each frame since rest, wxyz; any norm but zero.
        parents: Parent of each frame; -1 where there is no bone.
        loose: Scale of the robust loss on positions, world units.
        stretch: Scale of the robust loss on lengths, world units.

    Returns:
        Squared world units; 0 for a skeleton without bones.
    """
    bones = Bones.of(parents)
    children, above = bones
    if not len(children):
        return translations.new_zeros(())
    positions = rest + translations
    carried = quat_rotate(quats[:, above], (rest[children] - rest[above]).expand(len(translations), -1, -1))
    gaps = (positions[:, children] - positions[:, above] - carried).square().sum(-1)
    changes = (bone_lengths(positions, bones) - bone_lengths(rest, bones)).square()
    return geman_mcclure(gaps, loose).mean() + geman_mcclure(changes, stretch).mean()


def acceleration_loss(values: Float[Tensor, "*B T J D"], times: Float[Tensor, " T"]) -> Float[Tensor, "*B"]:
    """Squared second derivative in time, a mean over the points and over the time; 0 for fewer than three times.

    The unit of time is a fifteenth of the clip. With sixteen even frames this is the mean squared second difference;
    the same motion costs the same at any other times. The second derivative is exact for parabolas.

    Args:
        values: J points at T times.
        times: Ascending, in [0, 1]; evenly spaced or not.
    """
    if len(times) < 3:
        return values.new_zeros(values.shape[:-3])
    steps = times.to(values).diff() * _STEPS
    spans = (steps[1:] + steps[:-1]) / 2
    velocities = values.diff(dim=-3) / steps[:, None, None]
    squared = (velocities.diff(dim=-3) / spans[:, None, None]).square().sum(-1).mean(-1)
    mean: Tensor = squared @ (spans / spans.sum())
    return mean


def coherence_loss(quats: Float[Tensor, "T J 4"], parents: Int[Tensor, " J"] | Bones) -> Float[Tensor, ""]:
    """Mean over bones and times of 1 - <q_c, q_p>²: squared sine of half the angle between child and parent."""
    children, above = Bones.of(parents)
    if not len(children):
        return quats.new_zeros(())
    unit = normalize(quats, dim=-1)
    return (1 - (unit[:, children] * unit[:, above]).sum(-1).square()).mean()
