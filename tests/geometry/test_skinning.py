from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn.functional import normalize

from kg4d.geometry.rotations import quat_multiply, quat_rotate, quat_to_matrix
from kg4d.geometry.skinning import Skinned, dual_quaternion_blend, linear_blend

BLENDS = [linear_blend, dual_quaternion_blend]
Blend = Callable[..., Skinned]


def problem(
    points: int = 7, joints: int = 3, batch: int = 2, dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return (
        torch.randn(points, 3, generator=g, dtype=dtype),
        torch.randn(points, joints, generator=g, dtype=dtype).softmax(-1),
        torch.randn(joints, 3, generator=g, dtype=dtype),
        torch.randn(batch, joints, 3, generator=g, dtype=dtype),
        torch.randn(batch, joints, 4, generator=g, dtype=dtype),
    )


@pytest.mark.parametrize("blend", BLENDS)
def test_frames_at_rest_leave_every_point_where_it_is_to_the_bit(blend: Blend) -> None:
    points, shares, rest, shifts, quats = problem(500, dtype=torch.float32)
    quats = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand_as(quats)
    moved = blend(points, shares, rest, torch.zeros_like(shifts), quats)
    assert torch.equal(moved.points, points.expand_as(moved.points))
    assert torch.equal(moved.turns, quats[:, :1].expand_as(moved.turns))


@pytest.mark.parametrize("blend", BLENDS)
@given(turn=st.lists(st.floats(-2, 2), min_size=4, max_size=4).filter(lambda q: sum(x * x for x in q) > 0.1))
def test_frames_that_move_as_one_body_carry_everything_with_it(blend: Blend, turn: list[float]) -> None:
    points, shares, rest, shifts, _ = problem()
    q, shift = torch.tensor(turn, dtype=torch.float64), shifts[:1, 0]
    together = quat_rotate(q.expand(3, 4), rest) + shift - rest
    signs = torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)[:, None]  # the sign and the norm of q say nothing
    moved = blend(points, shares, rest, together[None], (signs * q)[None])
    torch.testing.assert_close(moved.points[0], quat_rotate(q.expand(7, 4), points) + shift)
    torch.testing.assert_close(quat_to_matrix(moved.turns[0]), quat_to_matrix(q).expand(7, 3, 3))


@pytest.mark.parametrize("blend", BLENDS)
def test_a_point_of_one_frame_moves_with_it(blend: Blend) -> None:
    points, _, rest, shifts, quats = problem()
    owner = torch.arange(7) % 3
    moved = blend(points, torch.eye(3, dtype=torch.float64)[owner], rest, shifts, quats)
    expected = quat_rotate(quats[:, owner], (points - rest[owner]).expand(2, 7, 3)) + rest[owner] + shifts[:, owner]
    torch.testing.assert_close(moved.points, expected)
    torch.testing.assert_close(quat_to_matrix(moved.turns), quat_to_matrix(quats[:, owner]))


@pytest.mark.parametrize("blend", BLENDS)
def test_blends_have_the_gradients_they_claim(blend: Blend) -> None:
    inputs = [value.requires_grad_() for value in problem(3)]
    assert gradcheck(lambda *values: tuple(blend(*values)), inputs)


def test_dual_quaternions_keep_what_linear_blending_loses() -> None:
    """Half way between a frame at rest and one twisted by 180 degrees a limb has no thickness under linear blending."""
    points = torch.tensor([[0.0, 0.1, 0.0]], dtype=torch.float64)
    shares = torch.full((1, 2), 0.5, dtype=torch.float64)
    rest, shifts = torch.zeros(2, 3, dtype=torch.float64), torch.zeros(1, 2, 3, dtype=torch.float64)
    quats = torch.tensor([[[1.0, 0.0, 0.0, 0.0], [1e-9, 1.0, 0.0, 0.0]]], dtype=torch.float64)
    assert linear_blend(points, shares, rest, shifts, quats).points.norm() < 1e-9
    assert dual_quaternion_blend(points, shares, rest, shifts, quats).points.norm() == pytest.approx(0.1)


def test_every_dual_quaternion_blend_is_a_rigid_motion() -> None:
    """Points with the same shares keep their distances, and turn as the blend says."""
    points, shares, rest, shifts, quats = problem()
    moved = dual_quaternion_blend(points, shares[:1].expand(7, 3), rest, shifts, quats)
    torch.testing.assert_close(torch.cdist(moved.points, moved.points)[0], torch.cdist(points, points))
    offsets = quat_rotate(moved.turns[:, 1:], (points[1:] - points[:1]).expand(2, 6, 3))
    torch.testing.assert_close(moved.points[:, 1:] - moved.points[:, :1], offsets)


def test_turns_compose_with_the_rotation_of_what_is_carried() -> None:
    points, shares, rest, shifts, quats = problem()
    own = normalize(torch.randn(7, 4, dtype=torch.float64), dim=-1)
    turns = linear_blend(points, shares, rest, shifts, quats).turns
    assert quat_multiply(turns, own.expand(2, 7, 4)).norm(dim=-1).allclose(torch.ones(2, 7, dtype=torch.float64))
