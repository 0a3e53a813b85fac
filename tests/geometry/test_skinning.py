from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from kg4d.geometry.rotations import quat_rotate, quat_to_matrix
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
def test_frames_at_rest_leave_every_point_exactly_where_it_is(blend: Blend) -> None:
    points, weights, rest, translations, quats = problem(500, dtype=torch.float32)
    quats = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand_as(quats)
    moved = blend(points, weights, rest, torch.zeros_like(translations), quats)
    assert torch.equal(moved.points, points.expand_as(moved.points))
    assert torch.equal(moved.rotations, quats[:, :1].expand_as(moved.rotations))


@pytest.mark.parametrize("blend", BLENDS)
@given(rotation=st.lists(st.floats(-2, 2), min_size=4, max_size=4).filter(lambda q: sum(x * x for x in q) > 0.1))
def test_frames_that_move_as_one_body_carry_everything_with_it(blend: Blend, rotation: list[float]) -> None:
    points, weights, rest, translations, _ = problem()
    q, translation = torch.tensor(rotation, dtype=torch.float64), translations[:1, 0]
    together = quat_rotate(q.expand(3, 4), rest) + translation - rest
    signs = torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)[:, None]  # the sign and the norm of q say nothing
    moved = blend(points, weights, rest, together[None], (signs * q)[None])
    torch.testing.assert_close(moved.points[0], quat_rotate(q.expand(7, 4), points) + translation)
    torch.testing.assert_close(quat_to_matrix(moved.rotations[0]), quat_to_matrix(q).expand(7, 3, 3))


@pytest.mark.parametrize("blend", BLENDS)
def test_a_point_of_one_frame_moves_with_it(blend: Blend) -> None:
    points, _, rest, translations, quats = problem()
    owner = torch.arange(7) % 3
    moved = blend(points, torch.eye(3, dtype=torch.float64)[owner], rest, translations, quats)
    expected = (
        quat_rotate(quats[:, owner], (points - rest[owner]).expand(2, 7, 3)) + rest[owner] + translations[:, owner]
    )
    torch.testing.assert_close(moved.points, expected)
    torch.testing.assert_close(quat_to_matrix(moved.rotations), quat_to_matrix(quats[:, owner]))


@pytest.mark.parametrize("blend", BLENDS)
def test_blends_have_the_gradients_they_claim(blend: Blend) -> None:
    inputs = [value.requires_grad_() for value in problem(3)]
    assert gradcheck(lambda *values: tuple(blend(*values)), inputs)


def test_dual_quaternions_keep_what_linear_blending_loses() -> None:
    """Half way between a frame at rest and one twisted by 180 degrees a limb has no thickness under linear blending."""
    points = torch.tensor([[0.0, 0.1, 0.0]], dtype=torch.float64)
    weights = torch.full((1, 2), 0.5, dtype=torch.float64)
    rest, translations = torch.zeros(2, 3, dtype=torch.float64), torch.zeros(1, 2, 3, dtype=torch.float64)
    quats = torch.tensor([[[1.0, 0.0, 0.0, 0.0], [1e-9, 1.0, 0.0, 0.0]]], dtype=torch.float64)
    assert linear_blend(points, weights, rest, translations, quats).points.norm() < 1e-9
    assert dual_quaternion_blend(points, weights, rest, translations, quats).points.norm() == pytest.approx(0.1)


def test_every_dual_quaternion_blend_is_a_rigid_motion() -> None:
    """Points with the same weights keep their distances, and rotate as the blend says."""
    points, weights, rest, translations, quats = problem()
    moved = dual_quaternion_blend(points, weights[:1].expand(7, 3), rest, translations, quats)
    torch.testing.assert_close(torch.cdist(moved.points, moved.points)[0], torch.cdist(points, points))
    offsets = quat_rotate(moved.rotations[:, 1:], (points[1:] - points[:1]).expand(2, 6, 3))
    torch.testing.assert_close(moved.points[:, 1:] - moved.points[:, :1], offsets)


@pytest.mark.parametrize("blend", BLENDS)
def test_rotations_are_unit_quaternions(blend: Blend) -> None:
    assert blend(*problem()).rotations.norm(dim=-1).allclose(torch.ones(2, 7, dtype=torch.float64))
