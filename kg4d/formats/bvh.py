"""The skeleton and its motion as BVH, which Blender and other animation programs read.

The file has the axes and units of the scene's world; Blender's importer expects +Y up unless told otherwise. A joint
is a keypoint. Bones from one joint to several children turn apart from each other, as those of keypoints do: each has a
joint of its own, named `<joint>_to_<child>`, in the same place.

Directions of bones are kept in all frames, and lengths are those of the first one: positions are kept where lengths do
not change. A skeleton with several roots gets one above them, at the origin, that does not move.
"""

import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.formats.base import Exported, ExportSource
from kg4d.formats.tracks import Tracks, tracks_of
from kg4d.geometry.rotations import quat_conjugate, quat_multiply, quat_rotate, quat_to_matrix, swing
from kg4d.keypoints.skeleton import bone_rotations
from kg4d.utils.files import replacing

_POSITION = "Xposition Yposition Zposition"
_ROTATION = "Zrotation Xrotation Yrotation"
_INERTIA = 1e-5  # enough to decide what bones leave open, too little to hold the root back
_END = 0.25  # length of the stub at a leaf, relative to the bone that leads there


@dataclass
class _Joint:
    name: str
    offset: Float[Tensor, " 3"]  # from its parent in the first frame
    quats: Float[Tensor, "T 4"]  # its rotation relative to its parent
    children: list["_Joint"]
    positions: Float[Tensor, "T 3"] | None = None  # of roots alone


def export_bvh(source: ExportSource, folder: Path) -> Exported:
    """Write `skeleton.bvh`.

    Raises:
        InputError: The scene has no keypoints.
    """
    write_bvh(folder / "skeleton.bvh", tracks_of(source))
    return Exported([folder / "skeleton.bvh"])


def write_bvh(path: str | Path, tracks: Tracks) -> None:
    """Write the skeleton as it is in the first frame, and how it moves; the file appears whole or not at all.

    Args:
        path: The file; parent folders are created.
        tracks: At least one keypoint in at least one frame.
    """
    columns: list[np.ndarray] = []
    hierarchy = _describe(_hierarchy(tracks), "ROOT", 0, columns)
    rows = np.concatenate(columns, axis=1)
    motion = ["MOTION", f"Frames: {len(rows)}", f"Frame Time: {1 / tracks.fps:.9f}", *map(_numbers, rows)]
    with replacing(path) as part:
        part.write_text("\n".join(["HIERARCHY", *hierarchy, *motion, ""]), encoding="utf-8")


def _hierarchy(tracks: Tracks) -> _Joint:
    skeleton = _Skeleton(tracks)
    roots = [index for index, parent in enumerate(tracks.parents) if parent < 0]
    if len(roots) == 1:
        return skeleton.root(roots[0])
    still = torch.zeros_like(skeleton.positions[:, 0])
    below = [skeleton.root(index) for index in roots]
    return _Joint(skeleton.free_name("origin"), still[0], skeleton.upright, below, still)


class _Skeleton:
    """Makes the joints of the file, in float64."""

    def __init__(self, tracks: Tracks) -> None:
        parents = torch.tensor(tracks.parents)
        self.taken: set[str] = set()
        self.keypoints = [self.free_name(name) for name in tracks.names]
        self.positions = tracks.positions.double()
        self.turned = bone_rotations(self.positions[0], self.positions, parents, inertia=_INERTIA).double()
        self.upright = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64).expand(len(self.positions), 4)
        self.children = [torch.nonzero(parents == index)[:, 0].tolist() for index in range(len(parents))]

    def free_name(self, name: str) -> str:
        """The name without spaces, which the format cannot hold, numbered where it is taken."""
        name = "_".join(name.split())
        numbered = (f"{name}_{number}" for number in itertools.count(2))
        free = next(one for one in itertools.chain([name], numbered) if one not in self.taken)
        self.taken.add(free)
        return free

    def root(self, index: int) -> _Joint:
        """The tree below a keypoint without a parent: placed by positions alone, as readers differ in their offsets."""
        joint = self.joint(index, self.upright)
        return replace(joint, offset=torch.zeros_like(joint.offset), positions=self.positions[:, index])

    def joint(self, index: int, held: Float[Tensor, "T 4"], parent: int | None = None) -> _Joint:
        """The tree below a keypoint.

        Args:
            index: The keypoint.
            held: Rotation of what it hangs on, in world axes.
            parent: The keypoint that this belongs to; None for roots.
        """
        name, children, rest = self.keypoints[index], self.children[index], self.positions[0]
        offset = rest[index] - (rest[index] if parent is None else rest[parent])
        if not children:
            return _Joint(name, offset, self.upright, [])
        bones = [self.bone(index, child) for child in children]
        if len(children) == 1:
            own, below = bones[0], [self.joint(children[0], bones[0], index)]
        else:
            own, below = self.turned[:, index], []
            for child, bone in zip(children, bones, strict=True):
                between = self.free_name(f"{name}_to_{self.keypoints[child]}")
                tree = self.joint(child, bone, index)
                below.append(_Joint(between, torch.zeros_like(offset), _relative(bone, own), [tree]))
        return _Joint(name, offset, _relative(own, held), below)

    def bone(self, index: int, child: int) -> Float[Tensor, "T 4"]:
        """The joint's rotation, changed as little as lets the bone to that child point where it shall."""
        carried = quat_rotate(self.turned[:, index], self.positions[0, child] - self.positions[0, index])
        return quat_multiply(swing(carried, self.positions[:, child] - self.positions[:, index]), self.turned[:, index])


def _relative(own: Float[Tensor, "T 4"], above: Float[Tensor, "T 4"]) -> Float[Tensor, "T 4"]:
    return quat_multiply(quat_conjugate(above), own)


def _describe(joint: _Joint, kind: str, depth: int, columns: list[np.ndarray]) -> list[str]:
    """Lines of the joint and those below it; their channels are added to `columns`."""
    tab = "  " * depth
    placed = joint.positions is not None
    lines = [f"{tab}{kind} {joint.name}", f"{tab}{{", f"{tab}  OFFSET {_numbers(joint.offset.numpy())}"]
    lines.append(f"{tab}  CHANNELS {f'6 {_POSITION}' if placed else '3'} {_ROTATION}")
    if joint.positions is not None:
        columns.append(joint.positions.numpy())
    columns.append(_euler_degrees(joint.quats))
    for child in joint.children:
        lines += _describe(child, "JOINT", depth + 1, columns)
    if not joint.children:
        lines += [
            f"{tab}  End Site",
            f"{tab}  {{",
            f"{tab}    OFFSET {_numbers(_END * joint.offset.numpy())}",
            f"{tab}  }}",
        ]
    return [*lines, f"{tab}}}"]


def _numbers(values: Float[np.ndarray, " n"]) -> str:
    return " ".join(f"{value:.9f}" for value in values)


def _euler_degrees(quats: Float[Tensor, "T 4"]) -> Float[np.ndarray, "T 3"]:
    """Angles about z, x and y, in degrees, that turn about y first and z last; without jumps by whole turns."""
    R = quat_to_matrix(quats)
    x = torch.atan2(R[:, 2, 1], torch.hypot(R[:, 0, 1], R[:, 1, 1]))
    z = torch.atan2(-R[:, 0, 1], R[:, 1, 1])
    y = torch.atan2(-R[:, 2, 0], R[:, 2, 2])
    level = R[:, 2, 1].abs() > 1 - 1e-12  # z and y turn about one axis: all of it is given to z
    z, y = torch.where(level, torch.atan2(R[:, 1, 0], R[:, 0, 0]), z), torch.where(level, 0, y)
    return np.unwrap(torch.rad2deg(torch.stack([z, x, y], dim=-1)).numpy(), axis=0, period=360.0)
