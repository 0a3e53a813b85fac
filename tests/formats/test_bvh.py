"""BVH files, read back by a small forward kinematics of its own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kg4d.formats.bvh import write_bvh
from kg4d.formats.tracks import Tracks


def read_bvh(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str | None], float]:
    """Positions (T, 3) of each joint, the parent of each, and the seconds of a frame."""
    hierarchy, motion = path.read_text().split("MOTION\n")
    _, seconds, *rows = motion.strip().split("\n")
    values = np.array([row.split() for row in rows], dtype=float)
    parents: dict[str, str | None] = {}
    positions: dict[str, np.ndarray] = {}
    turns: dict[str, np.ndarray] = {}
    stack: list[str] = []
    words = iter(hierarchy.split())
    column, name, offset = 0, "", np.zeros(3)
    for word in words:
        if word in ("ROOT", "JOINT", "End"):
            name = next(words)
            parents[name] = stack[-1] if stack else None
        elif word == "{":
            stack.append(name)
        elif word == "}":
            stack.pop()
        elif word == "OFFSET":
            offset = np.array([float(next(words)) for _ in range(3)])
        elif word == "CHANNELS":
            kinds = [next(words) for _ in range(int(next(words)))]
            channels = dict(zip(kinds, values[:, column : column + len(kinds)].T, strict=True))
            column += len(kinds)
            local, turn = np.tile(offset, (len(values), 1)), np.tile(np.eye(3), (len(values), 1, 1))
            for kind, angles in channels.items():
                axis = "XYZ".index(kind[0])
                if kind.endswith("position"):
                    local[:, axis] = angles
                else:
                    turn = turn @ about(axis, np.radians(angles))
            above = parents[name]
            at, turned = (np.zeros(3), np.eye(3)) if above is None else (positions[above], turns[above])
            positions[name] = at + (turned @ local[..., None])[..., 0]
            turns[name] = turned @ turn
    assert column == values.shape[1]
    return positions, parents, float(seconds.split(":")[1])


def about(axis: int, angles: np.ndarray) -> np.ndarray:
    turn = np.tile(np.eye(3), (len(angles), 1, 1))
    first, second = (axis + 1) % 3, (axis + 2) % 3
    turn[:, first, first] = turn[:, second, second] = np.cos(angles)
    turn[:, second, first] = np.sin(angles)
    turn[:, first, second] = -np.sin(angles)
    return turn


PARENTS = {
    "chain": (-1, 0, 1, 2),
    "branches": (-1, 0, 0, 0, 1, 2, 4, 4),
    "children come first": (2, 0, 3, -1, 3),
    "two roots": (-1, 0, -1, 2, 2),
    "points": (-1, -1, -1),
    "one": (-1,),
}


def swinging(parents: tuple[int, ...], seed: int, frames: int = 6) -> Tracks:
    """Bones of constant length in directions that have nothing to do with each other."""
    g = torch.Generator().manual_seed(seed)
    bones = torch.nn.functional.normalize(
        torch.randn(frames, len(parents), 3, generator=g, dtype=torch.float64), dim=-1
    )
    bones = bones * (0.1 + torch.rand(len(parents), 1, generator=g, dtype=torch.float64))

    def place(joint: int) -> torch.Tensor:
        return bones[:, joint] + (place(parents[joint]) if parents[joint] >= 0 else 0.5)

    positions = torch.stack([place(joint) for joint in range(len(parents))], dim=1)
    return Tracks(tuple(f"joint {j}" for j in range(len(parents))), parents, 8, positions.float())


@given(kind=st.sampled_from(sorted(PARENTS)), seed=st.integers(0, 500))
def test_joints_are_where_they_were(tmp_path: Path, kind: str, seed: int) -> None:
    tracks = swinging(PARENTS[kind], seed)
    write_bvh(tmp_path / "a.bvh", tracks)
    positions, parents, seconds = read_bvh(tmp_path / "a.bvh")
    assert seconds == pytest.approx(1 / 8)
    size = float((tracks.positions.amax((0, 1)) - tracks.positions.amin((0, 1))).norm())
    for index, parent in enumerate(tracks.parents):
        error = np.abs(positions[f"joint_{index}"] - tracks.positions[:, index].numpy()).max()
        assert error < 1e-4 * size
        above = parents[f"joint_{index}"]
        while above is not None and "_to_" in above:
            above = parents[above]
        assert above == (
            f"joint_{parent}" if parent >= 0 else ("origin" if list(tracks.parents).count(-1) > 1 else None)
        )


def test_a_body_that_turns_as_a_whole_turns_its_root(tmp_path: Path) -> None:
    rest = torch.tensor([[0.0, 1, 0], [0.3, 1, 0], [-0.3, 1, 0], [0, 1.5, 0.1]], dtype=torch.float64)
    turn = torch.from_numpy(about(1, np.radians([0.0, 80, 160, 240])))
    write_bvh(tmp_path / "a.bvh", Tracks(tuple("abcd"), (-1, 0, 0, 0), 8, (rest @ turn.mT).float()))
    rows = (tmp_path / "a.bvh").read_text().split("MOTION\n")[1].strip().split("\n")[2:]
    values = np.array([row.split() for row in rows], dtype=float)
    np.testing.assert_allclose(values[:, 3:6], [[0, 0, angle] for angle in (0, 80, 160, 240)], atol=0.02)
    np.testing.assert_allclose(values[:, 6:], 0, atol=0.02)


def test_of_bones_that_stretch_the_directions_are_kept(tmp_path: Path) -> None:
    tracks = swinging((-1, 0, 1), seed=0)
    root = tracks.positions[:, :1]
    grown = root + torch.linspace(1, 2, 6)[:, None, None] * (tracks.positions - root)
    write_bvh(tmp_path / "a.bvh", Tracks(tracks.names, tracks.parents, 8, grown))
    positions = read_bvh(tmp_path / "a.bvh")[0]
    for index in range(3):
        np.testing.assert_allclose(positions[f"joint_{index}"], tracks.positions[:, index], atol=1e-4)


def test_names_stay_apart_without_their_spaces(tmp_path: Path) -> None:
    tracks = swinging((-1, -1, 0), seed=1)
    write_bvh(tmp_path / "a.bvh", Tracks(("left  hand", "left hand", "origin"), tracks.parents, 8, tracks.positions))
    names = [
        line.split()[1]
        for line in (tmp_path / "a.bvh").read_text().splitlines()
        if line.split()[0] in ("ROOT", "JOINT")
    ]
    assert sorted(names) == ["left_hand", "left_hand_2", "origin", "origin_2"]


def test_looking_straight_up_keeps_its_heading(tmp_path: Path) -> None:
    """Where the second angle is 90 degrees the others turn about one axis."""
    rest = torch.tensor([[0.0, 0, 0], [0, 0, 1], [0.2, 0, 0]], dtype=torch.float64)
    turn = torch.from_numpy(
        about(2, np.radians([0.0, 50])) @ about(0, np.radians([0.0, 90])) @ about(1, np.radians([0.0, 20]))
    )
    positions = (rest @ turn.mT).float()
    write_bvh(tmp_path / "a.bvh", Tracks(tuple("abc"), (-1, 0, 0), 8, positions))
    read = read_bvh(tmp_path / "a.bvh")[0]
    for index, name in enumerate("abc"):
        np.testing.assert_allclose(read[name], positions[:, index], atol=1e-5)
