"""The procedural characters: joints that swing, and coloured limbs attached to them.

World axes, +Y up. A character is described at rest: upright around the origin, its face towards +Z and its left side
towards +X. Posing it rotates it about +Y by its yaw.
"""

from dataclasses import dataclass, replace

Point = tuple[float, float, float]
Color = tuple[float, float, float]


@dataclass(frozen=True)
class Swing:
    """A rotation by offset + amplitude sin(2 pi (cycles p + lag)), where p in [0, 1) is the phase of the loop.

    Attributes:
        axis: 0, 1 or 2 for the x, y or z axis of the parent's frame.
        amplitude: Degrees.
        lag: Fraction of a period.
        offset: Degrees.
        cycles: Swings per loop.
    """

    axis: int
    amplitude: float
    lag: float = 0.0
    offset: float = 0.0
    cycles: int = 1


@dataclass(frozen=True)
class Joint:
    """A joint that rotates about its own position and moves with its parent, which comes before it.

    Attributes:
        name: Unique.
        parent: Name of the parent, None for the root.
        rest: Position at rest, world units.
        swings: Rotations; the first is applied last.
        bob: Amplitude of a vertical oscillation, two periods per loop, world units.
    """

    name: str
    parent: str | None
    rest: Point
    swings: tuple[Swing, ...] = ()
    bob: float = 0.0


@dataclass(frozen=True)
class Limb:
    """A tapered capsule attached to a joint, with rings of a second colour.

    Attributes:
        joint: The joint that moves it.
        start: Position of one end at rest, world units.
        end: Position of the other end at rest, world units.
        radii: At the two ends, world units.
        color: RGB in [0, 1].
        accent: RGB of the rings, in [0, 1].
        rings: Number of rings along the limb.
        start_blend: Joint that moves the start together with `joint`, so that the surface bends there.
        end_blend: Likewise for the end.
        there: Phases of the loop from and up to which it is there, in [0, 1].
    """

    joint: str
    start: Point
    end: Point
    radii: tuple[float, float]
    color: Color
    accent: Color = (0.0, 0.0, 0.0)
    rings: int = 0
    start_blend: str | None = None
    end_blend: str | None = None
    there: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Character:
    """A skeleton, its limbs, and the joints that serve as keypoints.

    Attributes:
        name: Name of the character.
        yaw: Rotation about +Y, degrees.
        joints: Parents before children.
        limbs: The visible parts.
        keypoints: Names of the joints that are keypoints, in order.
        keypoint_parents: Name of the parent of each keypoint, None for the root.
    """

    name: str
    yaw: float
    joints: tuple[Joint, ...]
    limbs: tuple[Limb, ...]
    keypoints: tuple[str, ...]
    keypoint_parents: tuple[str | None, ...]


SKIN, RED, WHITE, NAVY = (0.93, 0.72, 0.55), (0.85, 0.2, 0.16), (0.95, 0.93, 0.88), (0.12, 0.18, 0.42)
TEAL, YELLOW, DARK, BROWN = (0.1, 0.55, 0.55), (0.97, 0.78, 0.2), (0.06, 0.05, 0.07), (0.36, 0.2, 0.1)
GREEN, ORANGE = (0.25, 0.6, 0.25), (0.95, 0.45, 0.1)


def _mirrored(point: Point, side: float) -> Point:
    return side * point[0], point[1], point[2]


def walker() -> Character:
    """A biped that walks in place."""
    joints = [
        Joint("pelvis", None, (0.0, -0.02, 0.0), (Swing(1, 8.0, 0.25), Swing(2, 3.0, 0.0)), bob=0.02),
        Joint("chest", "pelvis", (0.0, 0.08, 0.0), (Swing(1, -16.0, 0.25), Swing(0, 3.0, 0.1, 6.0, 2))),
        Joint("neck", "chest", (0.0, 0.36, 0.0), (Swing(1, 9.0, 0.35), Swing(0, 4.0, 0.2, -5.0, 2))),
        Joint("head", "neck", (0.0, 0.55, 0.0)),
    ]
    limbs = [
        Limb("chest", (0.0, 0.27, 0.0), (0.0, 0.08, 0.0), (0.155, 0.125), RED, WHITE, 3, None, "pelvis"),
        Limb("pelvis", (0.0, 0.02, 0.0), (0.0, -0.05, 0.0), (0.128, 0.13), NAVY, YELLOW, 1),
        Limb("chest", (0.0, 0.24, -0.16), (0.0, 0.12, -0.16), (0.09, 0.1), GREEN, YELLOW, 2),
        Limb("neck", (0.0, 0.34, 0.0), (0.0, 0.42, 0.0), (0.06, 0.06), SKIN),
        Limb("neck", (0.0, 0.5, 0.01), (0.0, 0.55, 0.01), (0.135, 0.14), SKIN),
        Limb("neck", (0.0, 0.55, -0.03), (0.0, 0.59, -0.03), (0.145, 0.13), BROWN, ORANGE, 1),
        Limb("neck", (0.0, 0.5, 0.15), (0.0, 0.52, 0.16), (0.025, 0.025), ORANGE),
    ]
    for side, left in ((1.0, "left"), (-1.0, "right")):
        half = 0.0 if side > 0 else 0.5
        hip, knee, ankle = (_mirrored(p, side) for p in ((0.08, -0.06, 0.0), (0.09, -0.36, 0.0), (0.09, -0.63, 0.0)))
        shoulder, elbow = _mirrored((0.18, 0.31, 0.0), side), _mirrored((0.21, 0.08, 0.0), side)
        wrist = _mirrored((0.22, -0.13, 0.0), side)
        joints += [
            Joint(f"{left}_hip", "pelvis", hip, (Swing(0, 34.0, half),)),
            Joint(f"{left}_knee", f"{left}_hip", knee, (Swing(0, 32.0, half - 0.2, 36.0),)),
            Joint(f"{left}_ankle", f"{left}_knee", ankle, (Swing(0, 14.0, half + 0.1, -8.0),)),
            Joint(
                f"{left}_shoulder", "chest", shoulder, (Swing(0, 36.0, half + 0.5), Swing(2, 5.0, 0.1, side * 14.0, 2))
            ),
            Joint(f"{left}_elbow", f"{left}_shoulder", elbow, (Swing(0, 22.0, half + 0.55, -36.0),)),
            Joint(f"{left}_wrist", f"{left}_elbow", wrist, (Swing(0, 12.0, half),)),
        ]
        sleeve, trouser = (RED, TEAL) if side > 0 else (YELLOW, NAVY)
        toe, eye = _mirrored((0.1, -0.66, 0.11), side), _mirrored((0.055, 0.55, 0.135), side)
        limbs += [
            Limb(f"{left}_shoulder", shoulder, elbow, (0.06, 0.048), sleeve, WHITE, 2, "chest", f"{left}_elbow"),
            Limb(f"{left}_elbow", elbow, wrist, (0.047, 0.036), SKIN, DARK, 1, f"{left}_shoulder", f"{left}_wrist"),
            Limb(f"{left}_wrist", wrist, (wrist[0], wrist[1] - 0.05, 0.01), (0.042, 0.045), SKIN),
            Limb(f"{left}_hip", hip, knee, (0.088, 0.062), trouser, WHITE, 2, "pelvis", f"{left}_knee"),
            Limb(f"{left}_knee", knee, ankle, (0.06, 0.042), trouser, YELLOW, 2, f"{left}_hip", f"{left}_ankle"),
            Limb(f"{left}_ankle", (ankle[0], ankle[1] - 0.02, -0.02), toe, (0.052, 0.042), BROWN, WHITE, 1),
            Limb("neck", eye, eye, (0.028, 0.028), DARK),
        ]
    arm, leg = ("shoulder", "elbow", "wrist"), ("hip", "knee", "ankle")
    keypoints, parents = ["neck", "head"], [None, "neck"]
    for chain in (arm, leg):
        for left in ("left", "right"):
            keypoints += [f"{left}_{name}" for name in chain]
            parents += ["neck", f"{left}_{chain[0]}", f"{left}_{chain[1]}"]
    return Character("walker", 35.0, tuple(joints), tuple(limbs), tuple(keypoints), tuple(parents))


def swimmer() -> Character:
    """A fish whose body carries a wave from the head to the tail."""
    count = 8
    positions = [0.5 - 0.14 * index for index in range(count)]
    widths = [0.09, 0.13, 0.15, 0.145, 0.12, 0.09, 0.06, 0.04]
    names = ["snout", "head", *(f"spine_{index}" for index in range(1, count - 2)), "tail"]
    joints = [Joint("body", None, (0.0, 0.0, positions[2]), (Swing(1, 8.0, 0.1), Swing(2, 6.0, 0.3)), bob=0.03)]
    limbs = []
    for index, (name, position) in enumerate(zip(names, positions, strict=True)):
        swing = Swing(1, 4.0 + 3.0 * index, -0.11 * index)
        joints.append(
            Joint(name, "body" if index == 0 else names[index - 1], (0.0, 0.0, position), (swing,) if index else ())
        )
    for index in range(count - 1):
        start, end = ((0.0, 0.0, positions[i]) for i in (index, index + 1))
        color, accent = (ORANGE, WHITE) if index % 2 else (ORANGE, DARK)
        before = names[index - 1] if index else None
        radii = (widths[index], widths[index + 1])
        limbs.append(Limb(names[index], start, end, radii, color, accent, 1, before, names[index + 1]))
    tips: dict[str, tuple[str, Point]] = {
        "tail_top": ("tail", (0.0, 0.22, -0.66)),
        "tail_bottom": ("tail", (0.0, -0.2, -0.64)),
        "fin_top": ("spine_2", (0.0, 0.33, 0.0)),
        "fin_bottom": ("spine_3", (0.0, -0.27, -0.12)),
    }
    for name, (parent, tip) in tips.items():
        joints.append(Joint(name, parent, tip))
        base = next(joint.rest for joint in joints if joint.name == parent)
        limbs.append(Limb(parent, base, tip, (0.04, 0.03), TEAL, YELLOW, 3))
    for side, left in ((1.0, "left"), (-1.0, "right")):
        root, tip = _mirrored((0.11, -0.05, 0.3), side), _mirrored((0.33, -0.14, 0.2), side)
        eye = _mirrored((0.085, 0.05, 0.46), side)
        joints += [
            Joint(f"{left}_fin", "head", root, (Swing(2, side * 28.0, 0.0, 0.0, 2),)),
            Joint(f"{left}_fin_tip", f"{left}_fin", tip),
        ]
        limbs += [
            Limb(f"{left}_fin", root, tip, (0.045, 0.03), RED if side > 0 else GREEN, WHITE, 2),
            Limb("snout", eye, eye, (0.035, 0.035), DARK),
        ]
    keypoints = (*names, *tips, "left_fin_tip", "right_fin_tip")
    chain = (None, *names[:-1])
    parents = (*chain, *(parent for parent, _ in tips.values()), "head", "head")
    return Character("swimmer", 60.0, tuple(joints), tuple(limbs), keypoints, parents)


def lamplighter() -> Character:
    """The walker, with a lamp in the left hand and a cap that come and go: what no frame 0 can be deformed into."""
    figure = walker()
    lamp, cap = (0.23, -0.25, 0.02), (0.0, 0.68, -0.02)
    more = (
        Limb("left_wrist", lamp, (lamp[0], lamp[1] - 0.06, lamp[2]), (0.1, 0.1), YELLOW, ORANGE, 2, there=(0.3, 0.7)),
        Limb("neck", cap, (cap[0], cap[1] + 0.05, cap[2]), (0.13, 0.05), TEAL, WHITE, 1, there=(0.5, 1.0)),
    )
    return replace(figure, name="lamplighter", limbs=(*figure.limbs, *more))


CHARACTERS = {"walker": walker, "swimmer": swimmer, "lamplighter": lamplighter}
