import torch
from hypothesis import given
from hypothesis import strategies as st

from kg4d.geometry.covariances import covariances_of, ellipsoids_of, packed, rotated_covariances, unpacked
from kg4d.geometry.rotations import quat_to_matrix


def shapes(seed: int, count: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    quats = torch.randn(count, 4, generator=g, dtype=torch.float64)
    return quats, torch.randn(count, 3, generator=g, dtype=torch.float64).exp()


@given(st.integers(0, 2**20))
def test_axes_of_a_covariance_make_it_again(seed: int) -> None:
    covariances = covariances_of(*shapes(seed))
    found = ellipsoids_of(covariances)
    assert torch.allclose(covariances_of(*found), covariances, rtol=1e-10, atol=1e-10)
    assert torch.allclose(found.quats.norm(dim=-1), torch.ones(20, dtype=torch.float64))


def test_six_numbers_are_a_symmetric_matrix() -> None:
    matrices = unpacked(torch.arange(12.0).reshape(2, 6))
    assert torch.equal(matrices, matrices.mT)
    assert torch.equal(packed(matrices), torch.arange(12.0).reshape(2, 6))


def test_flat_points_and_what_rounding_left_have_positive_scales() -> None:
    found = ellipsoids_of(torch.tensor([[1.0, 0, 0, 1.0, 0, 0], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0 - 1e-7], [0.0] * 6]))
    assert bool((found.scales > 0).all())
    assert bool(found.quats.isfinite().all())
    assert torch.allclose(found.scales[0, 1:], torch.ones(2))


def test_a_rotation_turns_the_axes() -> None:
    quats, scales = shapes(0)
    turn = quat_to_matrix(quats[0])
    direct = turn @ unpacked(covariances_of(quats, scales)) @ turn.mT
    assert torch.allclose(unpacked(rotated_covariances(covariances_of(quats, scales), turn)), direct)
