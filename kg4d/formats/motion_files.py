"""Motions of skeletons read from files: BVH, and the JSON that `kg4d.formats.tracks` writes."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.errors import InputError
from kg4d.formats.settings import MotionConfig
from kg4d.geometry.rotations import matrix_to_quat, quat_conjugate, quat_multiply
from kg4d.utils.reading import read_json, read_table

_LISTED = 8  # names in an error message
_LONGEST = 100_000  # frames
_AXES = "XYZ"


@dataclass(frozen=True)
class Motion:
    """J joints in T frames, in axes and units of their own.

    Attributes:
        names: J names.
        fps: Frames per second, > 0.
        positions: Of the joints.
        quats: Their rotations since the first frame (wxyz); None where only positions are known.
    """

    names: tuple[str, ...]
    fps: float
    positions: Float[Tensor, "T J 3"]
    quats: Float[Tensor, "T J 4"] | None = None

    def thinned(self, every: int) -> "Motion":
        """Every n-th frame, beginning with the first."""
        quats = None if self.quats is None else self.quats[::every]
        return replace(self, fps=self.fps / every, positions=self.positions[::every], quats=quats)

    def of(self, names: Sequence[str], where: str | Path, called: Mapping[str, str] | None = None) -> "Motion":
        """The joints with these names, in that order; capitals, spaces and punctuation do not matter.

        Args:
            names: Those of the model's keypoints.
            where: What the motion was read from, for the error message.
            called: Names of joints by those of keypoints, where they differ.

        Raises:
            InputError: There is no such joint, or it is not told which of several it is.
        """
        called = {_plain(name): joint for name, joint in (called or {}).items()}
        known: dict[str, list[int]] = {}
        for index, name in enumerate(self.names):
            known.setdefault(_plain(name), []).append(index)
        found = {name: known.get(_plain(called.get(_plain(name), name)), []) for name in names}
        lacking = [name for name, joints in found.items() if not joints]
        remedy = "rename the joints, or say which is which: motion.names={left_hip: LeftUpLeg, ...}"
        if lacking:
            rest = [self.names[joint] for joint in range(len(self.names)) if [joint] not in found.values()]
            what = f"has no joint for the keypoints {_listed(lacking)}; its other joints are {_listed(rest) or 'none'}"
            raise InputError(where, what, remedy)
        twice = [name for name, joints in found.items() if len(joints) > 1]
        if twice:
            raise InputError(where, f"has several joints called {_listed(twice)}", remedy)
        joints = [found[name][0] for name in names]
        quats = None if self.quats is None else self.quats[:, joints]
        return replace(self, names=tuple(names), positions=self.positions[:, joints], quats=quats)


def read_motion(config: MotionConfig) -> Motion:
    """The frames of a motion file that are used.

    Raises:
        InputError: The file is missing, damaged, of another format, or fewer than two frames are used.
    """
    path = Path(config.path)
    readers = {".bvh": read_bvh, ".json": read_tracks}
    if path.suffix.lower() not in readers:
        raise InputError(path, "is no motion that can be read", "give a .bvh file, or the .json of an export as tracks")
    motion = readers[path.suffix.lower()](path).thinned(config.every)
    if len(motion.positions) < 2:
        raise InputError(path, "gives a single frame", "a motion takes two: lower motion.every, or give another file")
    return motion


def read_tracks(path: str | Path) -> Motion:
    """Read the JSON that `kg4d.formats.tracks.export_tracks` writes; of it, `names`, `fps` and `xyz`.

    Raises:
        InputError: It is missing or damaged.
    """
    try:
        table = read_json(path)
        names, fps = tuple(map(str, table["names"])), float(table["fps"])
        positions = torch.tensor(table["xyz"], dtype=torch.float64)
        if positions.shape[1:] != (len(names), 3) or not names or not 0 < fps < np.inf:
            raise ValueError("names, fps and xyz do not belong together")
        if not bool(positions.isfinite().all()):
            raise ValueError("xyz has numbers that are not finite")
    except OSError as error:
        raise InputError(path, (error.strerror or str(error)).lower(), "give the path of a file") from error
    except (ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
        what = f"is no motion of keypoints ({type(error).__name__}: {str(error)[:100]})"
        raise InputError(
            path, what, "it needs names, fps and xyz[frame][keypoint], as an export as tracks has"
        ) from error
    return Motion(names, fps, positions)


def read_bvh(path: str | Path) -> Motion:
    """Read a BVH file: where its joints are in each frame, and how they have turned since the first one.

    Any order of rotations and any channels are read. Ends of chains that have no name are left out.

    Raises:
        InputError: It is missing or damaged.
    """
    remedy = "export it again as BVH"
    try:
        text = read_table(path)
        hierarchy, mark, motion = text.partition("MOTION")
        if not mark:
            raise ValueError("there is no line MOTION")
        joints = _joints(iter(hierarchy.split()))
        seconds, values = _frames(motion, sum(len(joint.channels) for joint in joints))
    except OSError as error:
        raise InputError(path, (error.strerror or str(error)).lower(), "give the path of a file") from error
    except StopIteration as error:
        raise InputError(path, "is no BVH file: its hierarchy ends too early", remedy) from error
    except (ValueError, IndexError, OverflowError) as error:
        raise InputError(path, f"is no BVH file: {str(error)[:100]}", remedy) from error
    positions, turns = _placed(joints, values)
    quats = matrix_to_quat(torch.from_numpy(turns))
    since = quat_multiply(quats, quat_conjugate(quats[:1]).expand_as(quats))
    return Motion(tuple(joint.name for joint in joints), 1 / seconds, torch.from_numpy(positions), since)


@dataclass
class _Joint:
    name: str
    parent: int
    offset: np.ndarray
    channels: list[str]


def _joints(words: Iterator[str]) -> list[_Joint]:
    """The joints of a hierarchy, parents first.

    Raises:
        ValueError: A word stands where it should not.
        StopIteration: It ends too early.
    """
    joints: list[_Joint] = []
    open_ones: list[int] = []  # -1 for an end of a chain, which has no name and is left out
    current, end = -1, _Joint("", -1, np.zeros(3), [])
    for word in words:
        joint = joints[current] if current >= 0 else end
        match word.upper():
            case "HIERARCHY":
                continue
            case "ROOT" | "JOINT":
                current = len(joints)
                joints.append(_Joint(next(words), open_ones[-1] if open_ones else -1, np.zeros(3), []))
            case "END":
                current = -1
                next(words)
            case "{":
                open_ones.append(current)
            case "}":
                open_ones.pop()
            case "OFFSET":
                joint.offset = np.array([float(next(words)) for _ in range(3)])
            case "CHANNELS":
                joint.channels = [_channel(next(words)) for _ in range(int(next(words)))]
            case _:
                raise ValueError(f"{word!r} is no word of its hierarchy")
    if not joints or open_ones:
        raise ValueError("its hierarchy has no joint, or is not closed")
    return joints


def _channel(word: str) -> str:
    kind = word[:1].upper() + word[1:].lower()
    if kind[0] not in _AXES or kind[1:] not in ("position", "rotation"):
        raise ValueError(f"{word!r} is no channel")
    return kind


def _frames(text: str, columns: int) -> tuple[float, Float[np.ndarray, "T columns"]]:
    """Seconds of a frame, and the values of all channels in each."""
    found = re.match(r"\s*Frames:\s*(\d+)\s*Frame Time:\s*(\S+)", text, re.IGNORECASE)
    if found is None:
        raise ValueError("the lines Frames and Frame Time are missing")
    count, seconds = int(found[1]), float(found[2])
    numbers = np.array(text[found.end() :].split(), dtype=float)
    if not 0 < count <= _LONGEST or not 0 < seconds < np.inf:
        raise ValueError(f"{count} frames of {seconds} seconds")
    if len(numbers) != count * columns or not np.isfinite(numbers).all():
        raise ValueError(
            f"{count} frames of {columns} channels need {count * columns} finite numbers, not {len(numbers)}"
        )
    return seconds, numbers.reshape(count, columns)


def _placed(
    joints: Sequence[_Joint], values: Float[np.ndarray, "T columns"]
) -> tuple[Float[np.ndarray, "T J 3"], Float[np.ndarray, "T J 3 3"]]:
    """Positions of the joints and rotations of their axes, in the axes of the file."""
    positions, turns = np.zeros((len(values), len(joints), 3)), np.zeros((len(values), len(joints), 3, 3))
    column = 0
    for index, joint in enumerate(joints):
        local, turn = np.tile(joint.offset, (len(values), 1)), np.tile(np.eye(3), (len(values), 1, 1))
        for channel in joint.channels:
            axis, numbers = _AXES.index(channel[0]), values[:, column]
            column += 1
            if channel.endswith("position"):
                local[:, axis] = numbers  # readers take a position for the offset of its joint, not for what is added
            else:
                turn = turn @ _about(axis, np.radians(numbers))
        if joint.parent >= 0:
            above = turns[:, joint.parent]
            local = positions[:, joint.parent] + (above @ local[..., None])[..., 0]
            turn = above @ turn
        positions[:, index], turns[:, index] = local, turn
    return positions, turns


def _about(axis: int, angles: Float[np.ndarray, " T"]) -> Float[np.ndarray, "T 3 3"]:
    turn = np.tile(np.eye(3), (len(angles), 1, 1))
    first, second = (axis + 1) % 3, (axis + 2) % 3
    turn[:, first, first] = turn[:, second, second] = np.cos(angles)
    turn[:, second, first], turn[:, first, second] = np.sin(angles), -np.sin(angles)
    return turn


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
