"""Motions carried over: what must stay the same, and what must not matter."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kg4d.geometry.rotations import quat_multiply, quat_rotate, quat_to_matrix
from kg4d.keypoints.retargeting import retargeted

# a body in which every joint but the last has bones that leave no rotation open
PARENTS = torch.tensor([-1, 0, 0, 0, 1, 2, 2])
TIMES = torch.linspace(0, 1, 5)


def body(seed: int) -> Tensor:
    return torch.randn(7, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dance(rest: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The body bends at its joints, of which the first frame is rest; positions and rotations."""
    g = torch.Generator().manual_seed(seed)
    quats = torch.randn(5, 7, 4, generator=g, dtype=torch.float64) * 0.3 + torch.tensor([1.0, 0, 0, 0])
    quats = torch.nn.functional.normalize(quats, dim=-1)
    quats[0] = torch.tensor([1.0, 0, 0, 0])
    positions = torch.zeros(5, 7, 3, dtype=torch.float64)
    positions[:, 0] = rest[0] + torch.cumsum(torch.rand(5, 3, generator=g, dtype=torch.float64), 0)
    positions[:, 0] -= positions[0, 0] - rest[0]
    for joint in range(1, 7):
        above = int(PARENTS[joint])
        positions[:, joint] = positions[:, above] + quat_rotate(quats[:, above], rest[joint] - rest[above])
    return positions, quats


def lengths(positions: Tensor) -> Tensor:
    return (positions[..., 1:, :] - positions[..., PARENTS[1:], :]).norm(dim=-1)


@settings(max_examples=20)
@given(seed=st.integers(0, 300))
def test_a_body_moved_by_its_own_motion_moves_as_it_did(seed: int) -> None:
    rest = body(seed)
    positions, quats = dance(rest, seed)
    moved = retargeted(rest, PARENTS, TIMES, positions, quats)
    torch.testing.assert_close(moved.positions.double(), positions, atol=1e-5, rtol=0)
    torch.testing.assert_close(quat_to_matrix(moved.quats), quat_to_matrix(quats).float(), atol=1e-4, rtol=0)


@settings(max_examples=20)
@given(seed=st.integers(0, 300), scale=st.floats(0.01, 100))
def test_axes_place_and_size_of_a_motion_do_not_matter(seed: int, scale: float) -> None:
    rest, other = body(seed), body(seed + 1)
    positions, quats = dance(other, seed)
    turn = torch.nn.functional.normalize(body(seed + 2)[:1, [0, 1, 2, 0]] + 0.1, dim=-1)
    elsewhere = scale * quat_rotate(turn, positions) + 7
    since = quat_multiply(quat_multiply(turn, quats), turn * torch.tensor([1.0, -1, -1, -1]))
    one = retargeted(rest, PARENTS, TIMES, positions, quats)
    same = retargeted(rest, PARENTS, TIMES, elsewhere, since)
    torch.testing.assert_close(same.positions, one.positions, atol=1e-4, rtol=0)
    torch.testing.assert_close(quat_to_matrix(same.quats), quat_to_matrix(one.quats), atol=1e-3, rtol=0)


@settings(max_examples=20)
@given(seed=st.integers(0, 300), aligned=st.booleans(), known=st.booleans())
def test_bones_keep_their_lengths_and_take_directions(seed: int, aligned: bool, known: bool) -> None:
    rest = body(seed)
    positions, quats = dance(body(seed + 1), seed)
    moved = retargeted(rest, PARENTS, TIMES, positions, quats if known else None, aligned=aligned)
    torch.testing.assert_close(lengths(moved.positions), lengths(rest).float().expand(5, -1), atol=1e-4, rtol=1e-4)
    if not aligned:
        directions = [(p[..., 1:, :] - p[..., PARENTS[1:], :]) for p in (moved.positions.double(), positions)]
        cosines = torch.cosine_similarity(*directions, dim=-1)
        torch.testing.assert_close(cosines, torch.ones_like(cosines), atol=1e-6, rtol=0)


def test_another_size_scales_the_way_of_the_root() -> None:
    rest = body(0)
    positions, _ = dance(rest, 0)
    child = retargeted(0.5 * rest, PARENTS, TIMES, positions)
    torch.testing.assert_close(child.positions.double(), 0.5 * positions, atol=1e-5, rtol=0)


def test_axes_can_be_kept() -> None:
    """A motion that lies where the model stands makes the model lie."""
    rest = body(1)
    lying = rest[:, [1, 0, 2]] * torch.tensor([-1.0, 1, 1], dtype=torch.float64)  # a quarter turn about z
    kept = retargeted(rest, PARENTS, TIMES[:2], lying.expand(2, -1, -1), aligned=False)
    stood = retargeted(rest, PARENTS, TIMES[:2], lying.expand(2, -1, -1))
    torch.testing.assert_close(stood.positions[0].double(), rest, atol=1e-5, rtol=0)
    expected = lying - lying[0] + rest[0]
    torch.testing.assert_close(kept.positions[0].double(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        quat_rotate(kept.quats[0, :1].double(), rest[1:4] - rest[0]), expected[1:4] - expected[0], atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("parents", [torch.tensor([-1, -1, -1]), torch.tensor([-1, 0, 1])])
def test_bodies_without_bones_and_bones_without_length_move_too(parents: Tensor) -> None:
    rest = body(2)[:3]
    positions = torch.stack([rest, rest + 1])
    positions[:, 2] = positions[:, 1]  # no direction
    moved = retargeted(rest, parents, TIMES[:2], positions)
    assert bool(moved.positions.isfinite().all())
    assert bool(moved.quats.isfinite().all())
