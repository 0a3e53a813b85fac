import torch
from hypothesis import given
from hypothesis import strategies as st

from kg4d.geometry.rotations import quat_to_matrix
from kg4d.geometry.rotations4 import matrix_to_pair, pair_to_matrix

F64 = torch.float64


def pairs(seed: int, count: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    left, right = torch.randn(2, count, 4, generator=g, dtype=F64)
    return left, right


@given(st.integers(0, 2**20))
def test_a_pair_is_a_rotation_whatever_its_lengths(seed: int) -> None:
    R = pair_to_matrix(*pairs(seed))
    assert torch.allclose(R @ R.mT, torch.eye(4, dtype=F64).expand_as(R), atol=1e-12)
    assert torch.allclose(torch.linalg.det(R), torch.ones(10, dtype=F64))


@given(st.integers(0, 2**20))
def test_any_rotation_is_reached(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    R = torch.linalg.qr(torch.randn(10, 4, 4, generator=g, dtype=F64)).Q
    R[:, :, 0] *= torch.linalg.det(R).sign()[:, None]
    assert torch.allclose(pair_to_matrix(*matrix_to_pair(R)), R, atol=1e-10)


def test_both_factors_are_needed_and_do_different_things() -> None:
    one = torch.tensor([1.0, 0, 0, 0], dtype=F64)
    left, right = pairs(1, 1)
    both = pair_to_matrix(left, one.expand(1, 4)) @ pair_to_matrix(one.expand(1, 4), right)
    assert torch.allclose(both, pair_to_matrix(left, right))
    assert not torch.allclose(pair_to_matrix(left, one.expand(1, 4)), pair_to_matrix(one.expand(1, 4), left))


def test_equal_quaternions_turn_space_and_leave_time() -> None:
    left, _ = pairs(2)
    R = pair_to_matrix(left, left)
    assert torch.allclose(R[:, :3, :3], quat_to_matrix(left))
    assert torch.allclose(R[:, 3], torch.tensor([0, 0, 0, 1.0], dtype=F64).expand(10, 4), atol=1e-12)


def test_gradients() -> None:
    left, right = (part.requires_grad_() for part in pairs(3, 3))
    assert torch.autograd.gradcheck(pair_to_matrix, (left, right))
