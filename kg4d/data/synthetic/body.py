"""From a character's description to posed Gaussians: surface sampling, forward kinematics, skinning."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from kg4d.data.synthetic.characters import Character, Limb
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.rotations import matrix_to_quat, quat_multiply, quat_rotate
from kg4d.geometry.skinning import linear_blend

_GOLDEN = math.pi * (3 - math.sqrt(5))  # angle between neighbours on a spiral that fills a surface evenly
_LIGHT = (0.35, 0.8, 0.5)
_OPACITY = 0.98
_COVER = 0.75  # standard deviation in units of the spacing: dense enough to be opaque
_FLATNESS = 0.25  # extent across the surface by extent along it
_BLEND = 0.05  # world units: this close to a joint, on either side, the surface follows both bones


@dataclass(frozen=True)
class SkinnedBody:
    """The Gaussians of a character at rest, with their skinning weights.

    Attributes:
        rest: The Gaussians at rest, world coordinates.
        weights: Skinning weights: how much each Gaussian follows each of the K joints; rows sum to 1.
        there: Phases of the loop from and up to which each Gaussian is there.
    """

    rest: GaussianState
    weights: Float[Tensor, "N K"]
    there: Float[Tensor, "N 2"]

    def opacities(self, phase: float) -> Float[Tensor, " N"]:
        """Those at a phase in [0, 1): 0 for what is not there."""
        seen = (self.there[:, 0] <= phase) & (phase < self.there[:, 1])
        return torch.where(seen, self.rest.opacities, 0.0)


@dataclass(frozen=True)
class Pose:
    """Rigid motion of each of the K joints from rest: x becomes R(quat) x + translation, in world coordinates."""

    quats: Float[Tensor, "K 4"]
    translations: Float[Tensor, "K 3"]

    def moved(self, points: Float[Tensor, "K 3"]) -> Float[Tensor, "K 3"]:
        """Move point k by the motion of joint k."""
        return quat_rotate(self.quats, points) + self.translations


def pose_at(character: Character, phase: float) -> Pose:
    """Forward kinematics, with the character's yaw, at a phase in [0, 1) of the motion loop."""
    yaw = math.radians(character.yaw)
    base = torch.tensor([math.cos(yaw / 2), 0.0, math.sin(yaw / 2), 0.0])
    quats: dict[str | None, Tensor] = {None: base}
    translations: dict[str | None, Tensor] = {None: torch.zeros(3)}
    for joint in character.joints:
        rotation = torch.tensor([1.0, 0.0, 0.0, 0.0])
        for swing in joint.swings:
            degrees = swing.offset + swing.amplitude * math.sin(2 * math.pi * (swing.cycles * phase + swing.lag))
            half = math.radians(degrees) / 2
            about_axis = torch.zeros(4)
            about_axis[0], about_axis[1 + swing.axis] = math.cos(half), math.sin(half)
            rotation = quat_multiply(rotation, about_axis)
        parent, rest = quats[joint.parent], torch.tensor(joint.rest)
        bob = torch.tensor([0.0, joint.bob * math.sin(4 * math.pi * phase), 0.0])
        quats[joint.name] = quat_multiply(parent, rotation)
        # The parent moves the joint itself; whatever hangs on the joint rotates about its position.
        position = quat_rotate(parent, rest) + translations[joint.parent] + bob
        translations[joint.name] = position - quat_rotate(quats[joint.name], rest)
    names = [joint.name for joint in character.joints]
    return Pose(torch.stack([quats[name] for name in names]), torch.stack([translations[name] for name in names]))


def pose_body(body: SkinnedBody, pose: Pose) -> GaussianState:
    """Put the Gaussians into a pose: linear blend skinning of the means, blended quaternions for the rotations."""
    rest, origin = body.rest, torch.zeros_like(pose.translations)
    skinned = linear_blend(rest.means, body.weights, origin, pose.translations[None], pose.quats[None])
    return replace(rest, means=skinned.points[0], quats=quat_multiply(skinned.rotations[0], rest.ellipsoids.quats))


def build_body(character: Character, count: int, generator: torch.Generator) -> SkinnedBody:
    """Cover the limbs with about `count` flat, nearly opaque Gaussians of equal area.

    Args:
        character: Whose limbs to cover.
        count: Number of Gaussians; rounding limb by limb may change it slightly.
        generator: For the noise on the colours.
    """
    index = {joint.name: number for number, joint in enumerate(character.joints)}
    areas = [_area(limb) for limb in character.limbs]
    spacing = math.sqrt(sum(areas) / count)
    parts = [_cover(limb, max(8, round(area / spacing**2))) for limb, area in zip(character.limbs, areas, strict=True)]
    means = torch.cat([part.points for part in parts])
    normals = torch.cat([part.normals for part in parts])
    colors = torch.cat([part.colors for part in parts])
    light = normalize(torch.tensor(_LIGHT), dim=-1)
    shade = 0.72 + 0.28 * (normals @ light)
    noise = 0.03 * torch.randn(len(means), 1, generator=generator)
    widths = torch.tensor([_COVER * spacing, _COVER * spacing, _FLATNESS * _COVER * spacing])
    rest = GaussianState(
        means=means,
        quats=matrix_to_quat(_frames(normals)),
        scales=widths.expand(len(means), 3).clone(),
        opacities=torch.full((len(means),), _OPACITY),
        colors=(colors * shade[:, None] + noise).clamp(0, 1),
        keypoint_logits=torch.zeros(len(means), 0),
    )
    joints_of_limbs = [
        [index[limb.joint], index[limb.start_blend or limb.joint], index[limb.end_blend or limb.joint]]
        for limb in character.limbs
    ]
    counts = torch.tensor([len(part.points) for part in parts])
    joints = torch.tensor(joints_of_limbs).repeat_interleave(counts, dim=0)
    weights = torch.zeros(len(means), len(index)).scatter_add(1, joints, torch.cat([part.weights for part in parts]))
    there = torch.tensor([limb.there for limb in character.limbs]).repeat_interleave(counts, dim=0)
    return SkinnedBody(rest, weights, there)


def depth_inside(character: Character, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """Depth of points at rest below the surface of the limb that covers them most, world units; 0 outside all limbs."""
    depths = torch.zeros(len(points))
    for limb in character.limbs:
        start, end = torch.tensor(limb.start), torch.tensor(limb.end)
        along = end - start
        fraction = ((points - start) @ along / along.dot(along).clamp_min(1e-9)).clamp(0, 1)
        radius = limb.radii[0] + (limb.radii[1] - limb.radii[0]) * fraction
        depths = torch.maximum(depths, radius - (points - start - fraction[:, None] * along).norm(dim=-1))
    return depths


@dataclass(frozen=True)
class _SurfacePoints:
    points: Float[Tensor, "n 3"]
    normals: Float[Tensor, "n 3"]
    colors: Float[Tensor, "n 3"]
    weights: Float[Tensor, "n 3"]


def _area(limb: Limb) -> float:
    """Surface area of the capsule: its side and two hemispheres."""
    (first, last), length = limb.radii, math.dist(limb.start, limb.end)
    return math.pi * (first + last) * length + 2 * math.pi * (first**2 + last**2)


def _cover(limb: Limb, count: int) -> _SurfacePoints:
    """`count` points on a spiral from one tip of the capsule to the other, evenly spaced by area."""
    start, end = torch.tensor(limb.start), torch.tensor(limb.end)
    (first, last), length = limb.radii, math.dist(limb.start, limb.end)
    axis = normalize(end - start, dim=-1) if length > 0 else torch.tensor([0.0, 1.0, 0.0])
    cap, side = 2 * math.pi * first**2, math.pi * (first + last) * length
    area = (torch.arange(count) + 0.5) / count * _area(limb)
    # Along the axis: a hemisphere (equal heights have equal areas), the side, the other hemisphere.
    height = torch.where(
        area < cap,
        area / cap * first - first,
        torch.where(
            area < cap + side,
            (area - cap) / max(side, 1e-9) * length,
            length + (area - cap - side) / (2 * math.pi * last),
        ),
    )
    fraction = (height / max(length, 1e-9)).clamp(0, 1)
    radius = first + (last - first) * fraction
    sine = (height - height.clamp(0, length)) / radius  # of the latitude on the hemispheres, 0 on the side
    frame = _frames(axis[None])[0]
    angle = _GOLDEN * torch.arange(count)
    around = angle.cos()[:, None] * frame[:, 0] + angle.sin()[:, None] * frame[:, 1]
    normals = (1 - sine**2).clamp_min(0).sqrt()[:, None] * around + sine[:, None] * axis
    points = start + height.clamp(0, length)[:, None] * axis + radius[:, None] * normals
    rings = (
        torch.sin(math.pi * (2 * limb.rings * fraction - 0.5)) > 0.3
        if limb.rings
        else torch.zeros(count, dtype=torch.bool)
    )
    colors = torch.where(rings[:, None], torch.tensor(limb.accent), torch.tensor(limb.color))
    distances_to_ends = torch.stack([height, length - height], dim=-1)
    blended = 0.5 * (1 - distances_to_ends / _BLEND).clamp(0, 1)
    blended = blended / blended.sum(-1, keepdim=True).clamp_min(1)
    return _SurfacePoints(points, normals, colors, torch.cat([1 - blended.sum(-1, keepdim=True), blended], dim=-1))


def _frames(normals: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3 3"]:
    """Rotation matrices whose third column is the normal (unit length)."""
    x_axis, y_axis = torch.eye(3)[0], torch.eye(3)[1]
    helper = torch.where(normals[:, 1:2].abs() < 0.9, y_axis, x_axis)
    first = normalize(torch.linalg.cross(helper.expand_as(normals), normals), dim=-1)
    second: Tensor = torch.linalg.cross(normals, first)
    return torch.stack([first, second, normals], dim=-1)
