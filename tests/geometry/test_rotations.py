import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from kg4d.geometry import rotations
from kg4d.geometry.rotations import (
    matrix_to_quat,
    nearest_rotation,
    quat_conjugate,
    quat_multiply,
    quat_rotate,
    quat_to_matrix,
    slerp,
    swing,
)

seeds = st.integers(0, 2**31)


def random_quats(seed: int, count: int) -> torch.Tensor:
    """Quaternions of norms around 1, not normalised."""
    return torch.randn(count, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def up_to_sign(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.minimum((a - b).abs().amax(-1), (a + b).abs().amax(-1))


@given(seeds)
def test_matrices_are_those_of_scipy(seed: int) -> None:
    q = random_quats(seed, 8)
    expected = Rotation.from_quat(q[:, [1, 2, 3, 0]].numpy()).as_matrix()  # scipy: (x, y, z, w), normalises
    torch.testing.assert_close(quat_to_matrix(q), torch.from_numpy(expected))


@given(seeds)
def test_product_composes_rotations(seed: int) -> None:
    a, b = random_quats(seed, 8), random_quats(seed + 1, 8)
    torch.testing.assert_close(quat_to_matrix(quat_multiply(a, b)), quat_to_matrix(a) @ quat_to_matrix(b))
    torch.testing.assert_close(quat_multiply(a, b).norm(dim=-1), a.norm(dim=-1) * b.norm(dim=-1))


@given(seeds)
def test_rotate_is_the_matrix_product_and_conjugate_undoes_it(seed: int) -> None:
    q, v = random_quats(seed, 8), random_quats(seed + 1, 8)[:, :3]
    rotated = quat_rotate(q, v)
    torch.testing.assert_close(rotated, (quat_to_matrix(q) @ v[..., None])[..., 0])
    torch.testing.assert_close(quat_rotate(quat_conjugate(q), rotated), v)


@given(seeds)
def test_matrix_to_quat_inverts_quat_to_matrix(seed: int) -> None:
    q = random_quats(seed, 8)
    q = q / q.norm(dim=-1, keepdim=True)
    found = matrix_to_quat(quat_to_matrix(q))
    assert (found[:, 0] >= 0).all()
    assert up_to_sign(found, q).max() < 1e-12


def test_half_turns_round_trip_with_exact_gradients() -> None:
    """At w = 0 a formula that divides by w fails; so does its gradient."""
    half_turns = torch.tensor([[0.0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0.6, 0.8, 0]], dtype=torch.float64)
    assert up_to_sign(matrix_to_quat(quat_to_matrix(half_turns)), half_turns).max() < 1e-12
    near = (half_turns + 0.01).requires_grad_()
    assert torch.autograd.gradcheck(lambda q: matrix_to_quat(quat_to_matrix(q)), (near,))


def test_gradients() -> None:
    q, v = random_quats(0, 3).requires_grad_(), random_quats(1, 3)[:, :3].clone().requires_grad_()
    assert torch.autograd.gradcheck(quat_rotate, (q, v))
    assert torch.autograd.gradcheck(quat_to_matrix, (q,))
    assert torch.autograd.gradcheck(quat_multiply, (q, random_quats(2, 3)))


def test_batches_broadcast() -> None:
    q, v = random_quats(0, 5), random_quats(1, 3)[:, :3]
    every = quat_rotate(q[:, None], v)
    assert every.shape == (5, 3, 3)
    torch.testing.assert_close(every[2, 1], quat_rotate(q[2], v[1]))
    assert quat_multiply(q[:, None], q[:3]).shape == (5, 3, 4)


@pytest.mark.parametrize(
    ("q", "v", "expected"),
    [
        ([1.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]),
        ([1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]),  # a quarter turn about +Z takes +X to +Y
    ],
)
def test_known_rotations(q: list[float], v: list[float], expected: list[float]) -> None:
    torch.testing.assert_close(quat_rotate(torch.tensor(q), torch.tensor(v)), torch.tensor(expected))


@given(seeds, st.floats(0, 1))
def test_slerp_turns_at_constant_speed_the_shorter_way(seed: int, fraction: float) -> None:
    a, b = torch.nn.functional.normalize(random_quats(seed, 8), dim=-1).split(4)
    between = slerp(a, b, torch.full((4,), fraction, dtype=torch.float64))

    def angle(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 2 * (x * y).sum(-1).abs().clamp_max(1).acos()

    torch.testing.assert_close(angle(a, between), fraction * angle(a, b), atol=1e-5, rtol=0)
    torch.testing.assert_close(angle(between, b), (1 - fraction) * angle(a, b), atol=1e-5, rtol=0)


def test_slerp_is_exact_at_its_start_and_has_finite_gradients_everywhere() -> None:
    q = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.6, 0.0, 0.8, 0.0]], dtype=torch.float64)
    assert torch.equal(slerp(q, q.flip(0), torch.zeros(2, dtype=torch.float64)), q)
    a, b = q.clone().requires_grad_(), (-q).clone().requires_grad_()
    slerp(a, b, torch.full((2,), 0.3, dtype=torch.float64)).sum().backward()
    assert a.grad is not None
    assert b.grad is not None
    assert a.grad.isfinite().all()
    assert b.grad.isfinite().all()
    apart = torch.tensor([[0.5, 0.5, -0.5, 0.5], [0.1, 0.3, 0.9, -0.2]], dtype=torch.float64)
    inputs = (q.clone().requires_grad_(), apart.requires_grad_(), torch.tensor([0.2, 0.9], dtype=torch.float64))
    assert torch.autograd.gradcheck(slerp, inputs)


@given(seeds)
def test_the_nearest_rotation_is_the_polar_factor_and_never_a_reflection(seed: int) -> None:
    rotations = quat_to_matrix(random_quats(seed, 6))
    g = torch.Generator().manual_seed(seed)
    stretch = torch.randn(6, 3, 3, dtype=torch.float64, generator=g)
    stretch = stretch @ stretch.mT + 0.1 * torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(nearest_rotation(rotations @ stretch), rotations, atol=1e-6, rtol=0)
    mirrored = nearest_rotation(rotations @ stretch @ torch.diag(torch.tensor([-1.0, 1.0, 1.0])).double())
    torch.testing.assert_close(torch.linalg.det(mirrored), torch.ones(6, dtype=torch.float64))


@given(seeds)
def test_swings_carry_one_direction_to_the_other_by_the_shortest_way(seed: int) -> None:
    start, end = torch.randn(2, 8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    turn = swing(start, end)
    unit_start, unit_end = torch.nn.functional.normalize(start, dim=-1), torch.nn.functional.normalize(end, dim=-1)
    torch.testing.assert_close(quat_rotate(turn, unit_start), unit_end)
    angle = 2 * torch.nn.functional.normalize(turn, dim=-1)[:, 0].acos()
    torch.testing.assert_close(angle, (unit_start * unit_end).sum(-1).clamp(-1, 1).acos())


def test_a_swing_to_the_opposite_has_finite_gradients() -> None:
    end = torch.tensor([[-2.0, 0.0, 0.0]], requires_grad=True)
    quat_to_matrix(swing(torch.tensor([[1.0, 0.0, 0.0]]), end)).sum().backward()
    assert end.grad is not None
    assert bool(end.grad.isfinite().all())


def test_the_forms_for_gpus_are_those_for_cpus() -> None:
    a, b = (torch.randn(2, 50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    assert torch.allclose(rotations._by_products(a, b, rotations._MULTIPLY), rotations.quat_multiply(a, b))
    unit = torch.nn.functional.normalize(a, dim=-1)
    matrices = rotations._by_products(unit, unit, rotations._TO_MATRIX).unflatten(-1, (3, 3))
    assert torch.allclose(matrices + torch.eye(3, dtype=torch.float64), rotations.quat_to_matrix(a))
