import pytest
import torch
from scipy.special import sph_harm_y
from torch import Tensor

from kg4d.geometry.degrees import harmonics_count, harmonics_degree
from kg4d.geometry.harmonics import SH_C0, harmonics_basis, rgb_to_sh0, rotated_harmonics, seen_colors
from kg4d.geometry.rotations import quat_to_matrix

DEGREES = [1, 2, 3]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def directions(count: int, seed: int = 0) -> Tensor:
    return torch.nn.functional.normalize(drawn(count, 3, seed=seed), dim=-1)


def test_constant_is_that_of_scipy() -> None:
    assert pytest.approx(sph_harm_y(0, 0, 0.3, 0.7).real) == SH_C0


def test_grey_is_zero_and_other_colours_are_what_the_harmonic_adds_to_it() -> None:
    assert rgb_to_sh0(torch.full((3,), 0.5)).tolist() == [0.0, 0.0, 0.0]
    rgb = torch.rand(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(0.5 + SH_C0 * rgb_to_sh0(rgb), rgb)


def test_the_basis_is_that_of_scipy_by_degree_and_order() -> None:
    d = directions(40)
    polar, azimuth = d[:, 2].acos().numpy(), torch.atan2(d[:, 1], d[:, 0]).numpy()
    expected = []
    for degree in DEGREES:
        for order in range(-degree, degree + 1):
            value = sph_harm_y(degree, abs(order), polar, azimuth)  # with the phase of Condon and Shortley
            scale = 1 if order == 0 else 2**0.5
            expected.append(torch.from_numpy(scale * (value.imag if order < 0 else value.real)))
    torch.testing.assert_close(harmonics_basis(d, 3), torch.stack(expected, dim=-1))


@pytest.mark.parametrize("degree", DEGREES)
def test_colours_and_gradients_are_those_of_gsplat(degree: int) -> None:
    gsplat = pytest.importorskip("gsplat.cuda._torch_impl", reason="gsplat is not installed")
    colors, harmonics = drawn(30, 3, seed=1) * 0.3 + 0.4, drawn(30, harmonics_count(degree), 3, seed=2)
    means, centers = drawn(30, 3, seed=3), drawn(2, 3, seed=4) + 2
    inputs = [values.requires_grad_() for values in (colors, harmonics, means, centers)]
    coefficients = torch.cat([rgb_to_sh0(colors)[:, None], harmonics], dim=1).expand(2, -1, -1, -1)
    expected = (gsplat._spherical_harmonics(degree, means - centers[:, None], coefficients) + 0.5).clamp_min(0)
    found = seen_colors(*inputs)
    assert (found == 0).any()
    torch.testing.assert_close(found, expected)
    weights = drawn(*found.shape, seed=5)
    ours, theirs = (torch.autograd.grad((values * weights).sum(), inputs) for values in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("degree", DEGREES)
def test_gradients_are_those_of_differences(degree: int) -> None:
    inputs = (drawn(4, 3) + 9, drawn(4, harmonics_count(degree), 3), drawn(4, 3, seed=1), drawn(2, 3, seed=2) * 4)
    assert torch.autograd.gradcheck(seen_colors, [values.requires_grad_() for values in inputs])


def test_a_gaussian_at_the_camera_has_finite_gradients() -> None:
    inputs = [drawn(1, 3), drawn(1, 15, 3), torch.zeros(1, 3).double(), torch.zeros(1, 3).double()]
    seen_colors(*(values.requires_grad_() for values in inputs)).sum().backward()
    assert all(bool(torch.isfinite(values.grad).all()) for values in inputs if values.grad is not None)


@pytest.mark.parametrize("degree", DEGREES)
def test_rotated_coefficients_show_in_turned_directions_what_was_seen_before(degree: int) -> None:
    turn = quat_to_matrix(torch.tensor([0.3, -0.8, 0.5, 0.2], dtype=torch.float64))
    harmonics, d = drawn(6, harmonics_count(degree), 3), directions(50, seed=1)
    turned = rotated_harmonics(harmonics, turn)
    before = torch.einsum("dk,nkc->dnc", harmonics_basis(d, degree), harmonics)
    after = torch.einsum("dk,nkc->dnc", harmonics_basis(d @ turn.mT, degree), turned)
    torch.testing.assert_close(after, before, atol=1e-12, rtol=0)
    torch.testing.assert_close(rotated_harmonics(turned, turn.mT), harmonics, atol=1e-12, rtol=0)
    torch.testing.assert_close(turned.square().sum((1, 2)), harmonics.square().sum((1, 2)))


def test_the_first_degree_turns_as_a_vector() -> None:
    # the coefficients of degree 1 are those of -y, z and -x
    turn = quat_to_matrix(torch.tensor([1.0, 0.4, -0.3, 0.9], dtype=torch.float64))
    harmonics = drawn(5, 3, 3)
    vector = torch.stack([-harmonics[:, 2], -harmonics[:, 0], harmonics[:, 1]], dim=1)
    turned = rotated_harmonics(harmonics, turn)
    found = torch.stack([-turned[:, 2], -turned[:, 0], turned[:, 1]], dim=1)
    torch.testing.assert_close(found, turn @ vector)


@pytest.mark.parametrize("count", [1, 4, 9, 24])
def test_other_numbers_of_harmonics_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="0, 3, 8 or 15 harmonics"):
        harmonics_degree(count)
