"""From a described character to posed Gaussians: sampling of the limbs, forward kinematics, skinning."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from kg4d.data.synthetic.characters import Character, Limb
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.rotations import matrix_to_quat, quat_multiply, quat_rotate

_GOLDEN = math.pi * (3 - math.sqrt(5))  # angle between neighbours on a spiral that fills a surface evenly
_LIGHT = (0.35, 0.8, 0.5)
_OPACITY = 0.98
_COVER = 0.75  # standard deviation in units of the spacing: dense enough to be opaque
_FLATNESS = 0.25  # extent across the surface by extent along it
_BLEND = 0.05  # length of the skin on each side of a joint that follows both bones, world units


@dataclass(frozen=True)
class Skin:
    """Gaussians at rest and what carries them.

    Attributes:
        rest: The Gaussians at rest.
        joints: Three joints that carry each Gaussian: its own, and those at the two ends of its limb.
        weights: Their shares; each row sums to one.
    """

    rest: GaussianState
    joints: Int[Tensor, "N 3"]
    weights: Float[Tensor, "N 3"]


@dataclass(frozen=True)
class Pose:
    """Rigid motion of every joint from rest: x goes to R(quat) x + shift."""

    quats: Float[Tensor, "K 4"]
    shifts: Float[Tensor, "K 3"]

    def moved(self, points: Float[Tensor, "K 3"]) -> Float[Tensor, "K 3"]:
        """One point of each joint, moved."""
        return quat_rotate(self.quats, points) + self.shifts


def pose(character: Character, phase: float) -> Pose:
    """Forward kinematics at a phase in [0, 1) of the loop, the yaw included."""
    yaw = math.radians(character.yaw)
    base = torch.tensor([math.cos(yaw / 2), 0.0, math.sin(yaw / 2), 0.0])
    quats: dict[str | None, Tensor] = {None: base}
    shifts: dict[str | None, Tensor] = {None: torch.zeros(3)}
    for joint in character.joints:
        turn = torch.tensor([1.0, 0.0, 0.0, 0.0])
        for swing in joint.swings:
            degrees = swing.offset + swing.amplitude * math.sin(2 * math.pi * (swing.cycles * phase + swing.lag))
            half = math.radians(degrees) / 2
            about = torch.zeros(4)
            about[0], about[1 + swing.axis] = math.cos(half), math.sin(half)
            turn = quat_multiply(turn, about)
        parent, rest = quats[joint.parent], torch.tensor(joint.rest)
        bob = torch.tensor([0.0, joint.bob * math.sin(4 * math.pi * phase), 0.0])
        quats[joint.name] = quat_multiply(parent, turn)
        # The joint itself goes where its parent carries it; what hangs on it turns about it.
        place = quat_rotate(parent, rest) + shifts[joint.parent] + bob
        shifts[joint.name] = place - quat_rotate(quats[joint.name], rest)
    names = [joint.name for joint in character.joints]
    return Pose(torch.stack([quats[name] for name in names]), torch.stack([shifts[name] for name in names]))


def posed(skin: Skin, pose: Pose) -> GaussianState:
    """The Gaussians in a pose: linear blend skinning of the centres, blended quaternions for the rotations."""
    quats, shifts = pose.quats[skin.joints], pose.shifts[skin.joints]
    carried = quat_rotate(quats, skin.rest.means[:, None].expand(-1, 3, -1)) + shifts
    means = (skin.weights[..., None] * carried).sum(1)
    aligned = torch.where((quats * quats[:, :1]).sum(-1, keepdim=True) < 0, -quats, quats)
    turn = normalize((skin.weights[..., None] * aligned).sum(1), dim=-1)
    rest = skin.rest
    moved = quat_multiply(turn, rest.quats)
    return GaussianState(means, moved, rest.scales, rest.opacities, rest.colors, rest.keypoint_logits)


def build_skin(character: Character, count: int, generator: torch.Generator) -> Skin:
    """Cover the limbs with about `count` flat, nearly opaque Gaussians of equal area.

    Args:
        character: What to cover.
        count: Number of Gaussians, rounded limb by limb.
        generator: For the noise on the colours.
    """
    index = {joint.name: place for place, joint in enumerate(character.joints)}
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
    carriers = [
        [index[limb.joint], index[limb.start_blend or limb.joint], index[limb.end_blend or limb.joint]]
        for limb in character.limbs
    ]
    lengths = torch.tensor([len(part.points) for part in parts])
    joints = torch.tensor(carriers).repeat_interleave(lengths, dim=0)
    return Skin(rest, joints, torch.cat([part.weights for part in parts]))


def burial(character: Character, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """How deep points at rest lie inside the limb that buries them deepest, world units; 0 outside of all."""
    depths = torch.zeros(len(points))
    for limb in character.limbs:
        start, end = torch.tensor(limb.start), torch.tensor(limb.end)
        along = end - start
        share = ((points - start) @ along / along.dot(along).clamp_min(1e-9)).clamp(0, 1)
        radius = limb.radii[0] + (limb.radii[1] - limb.radii[0]) * share
        depths = torch.maximum(depths, radius - (points - start - share[:, None] * along).norm(dim=-1))
    return depths


@dataclass(frozen=True)
class _Covered:
    points: Float[Tensor, "n 3"]
    normals: Float[Tensor, "n 3"]
    colors: Float[Tensor, "n 3"]
    weights: Float[Tensor, "n 3"]


def _area(limb: Limb) -> float:
    """Surface of the capsule: its side and two half balls."""
    (first, last), length = limb.radii, math.dist(limb.start, limb.end)
    return math.pi * (first + last) * length + 2 * math.pi * (first**2 + last**2)


def _cover(limb: Limb, count: int) -> _Covered:
    """`count` points on a spiral from one tip of the capsule to the other, evenly by area."""
    start, end = torch.tensor(limb.start), torch.tensor(limb.end)
    (first, last), length = limb.radii, math.dist(limb.start, limb.end)
    axis = normalize(end - start, dim=-1) if length > 0 else torch.tensor([0.0, 1.0, 0.0])
    cap, side = 2 * math.pi * first**2, math.pi * (first + last) * length
    area = (torch.arange(count) + 0.5) / count * _area(limb)
    # Along the axis: a half ball (equal heights have equal areas), the side, the other half ball.
    height = torch.where(
        area < cap,
        area / cap * first - first,
        torch.where(
            area < cap + side,
            (area - cap) / max(side, 1e-9) * length,
            length + (area - cap - side) / (2 * math.pi * last),
        ),
    )
    share = (height / max(length, 1e-9)).clamp(0, 1)
    radius = first + (last - first) * share
    beyond = (height - height.clamp(0, length)) / radius  # sine of the latitude on the half balls, 0 on the side
    frame = _frames(axis[None])[0]
    angle = _GOLDEN * torch.arange(count)
    around = angle.cos()[:, None] * frame[:, 0] + angle.sin()[:, None] * frame[:, 1]
    normals = (1 - beyond**2).clamp_min(0).sqrt()[:, None] * around + beyond[:, None] * axis
    points = start + height.clamp(0, length)[:, None] * axis + radius[:, None] * normals
    rings = (
        torch.sin(math.pi * (2 * limb.rings * share - 0.5)) > 0.3
        if limb.rings
        else torch.zeros(count, dtype=torch.bool)
    )
    colors = torch.where(rings[:, None], torch.tensor(limb.accent), torch.tensor(limb.color))
    ends = torch.stack([height, length - height], dim=-1)
    shared = 0.5 * (1 - ends / _BLEND).clamp(0, 1)
    shared = shared / shared.sum(-1, keepdim=True).clamp_min(1)
    return _Covered(points, normals, colors, torch.cat([1 - shared.sum(-1, keepdim=True), shared], dim=-1))


def _frames(normals: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3 3"]:
    """Rotations whose third column is the normal (unit length)."""
    up, aside = torch.eye(3)[1], torch.eye(3)[0]
    helper = torch.where(normals[:, 1:2].abs() < 0.9, up, aside)
    first = normalize(torch.linalg.cross(helper.expand_as(normals), normals), dim=-1)
    second: Tensor = torch.linalg.cross(normals, first)
    return torch.stack([first, second, normals], dim=-1)
