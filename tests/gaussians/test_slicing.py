"""Slices of Gaussians in space and time, against moments that are found otherwise."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kg4d import kernels
from kg4d.gaussians.slicing import Slices, Spacetime, sliced, spacetime_axes
from kg4d.geometry.covariances import covariances_of, unpacked
from tests.render.scenes import relative

F64 = torch.float64


def random_spacetime(count: int = 9, seed: int = 0, dtype: torch.dtype = F64) -> Spacetime:
    g = torch.Generator().manual_seed(seed)
    parts = [torch.randn(count, 4, generator=g, dtype=F64) for _ in range(3)]
    scales = torch.exp(0.5 * torch.randn(count, 4, generator=g, dtype=F64) - 1)
    return Spacetime(*(part.to(dtype) for part in (*parts, scales, torch.rand(count, generator=g, dtype=F64))))


def spacetime_velocities(gaussians: Spacetime) -> Tensor:
    """S_xt / S_tt, from the axes alone."""
    axes = spacetime_axes(gaussians)
    time = axes[:, 3]
    return (axes[:, :3] @ time[..., None])[..., 0] / time.square().sum(-1, keepdim=True)


def test_a_slice_is_what_a_sum_over_space_gives() -> None:
    """The density of a 4D Gaussian on a fine grid of space at one time: its mass, mean and covariance there."""
    gaussians, time = random_spacetime(3), 0.4
    gaussians = gaussians._replace(means=0.3 * gaussians.means)
    slices = sliced(gaussians, torch.tensor([time], dtype=F64))
    axes = spacetime_axes(gaussians)
    line = torch.linspace(-6, 6, 97, dtype=F64)
    grid = torch.cartesian_prod(line, line, line)
    for i in range(3):
        offsets = torch.cat([grid, torch.full((len(grid), 1), time, dtype=F64)], dim=1) - gaussians.means[i]
        density = torch.exp(-0.5 * (offsets @ torch.linalg.inv(axes[i]).mT).square().sum(-1))
        mean = (density[:, None] * grid).sum(0) / density.sum()
        spread = (density[:, None] * (grid - mean)).mT @ (grid - mean) / density.sum()
        assert torch.allclose(slices.means[0, i], mean, atol=1e-4)
        assert torch.allclose(unpacked(slices.covariances[i]), spread, atol=1e-3)
        weight = slices.opacities[0, i] / gaussians.opacities[i]
        peak = density.sum() * float(line[1] - line[0]) ** 3 / torch.linalg.det(2 * math.pi * spread).sqrt()
        assert float(weight) == pytest.approx(float(peak), rel=1e-3)


@given(st.integers(0, 2**20))
def test_conditional_moments(seed: int) -> None:
    gaussians, times = random_spacetime(5, seed), torch.tensor([-0.3, 0.5, 2.0], dtype=F64)
    slices, axes = sliced(gaussians, times), spacetime_axes(gaussians)
    S = axes @ axes.mT
    velocities = S[:, :3, 3] / S[:, 3:, 3]
    since = times[:, None] - gaussians.means[:, 3]
    assert torch.allclose(slices.velocities, velocities)
    assert torch.allclose(slices.means, gaussians.means[:, :3] + since[..., None] * velocities)
    conditional = S[:, :3, :3] - S[:, :3, 3:] @ S[:, 3:, :3] / S[:, 3:, 3:]
    assert torch.allclose(unpacked(slices.covariances), conditional, atol=1e-10)
    weights = torch.exp(-since.square() / (2 * S[:, 3, 3]))
    assert torch.allclose(slices.opacities, gaussians.opacities * weights)
    assert torch.allclose(spacetime_velocities(gaussians), velocities)


def test_gradients() -> None:
    inputs = [part.requires_grad_() for part in (*random_spacetime(3), torch.tensor([0.1, 0.7], dtype=F64))]

    def cut(*parts: Tensor) -> tuple[Tensor, ...]:
        return tuple(sliced(Spacetime(*parts[:5]), parts[5]))

    assert torch.autograd.gradcheck(cut, inputs)


def test_one_that_lasts_and_does_not_move_is_the_static_one() -> None:
    g = torch.Generator().manual_seed(0)
    quats, scales = torch.randn(4, 4, generator=g), torch.rand(4, 3, generator=g) + 0.1
    endless = torch.cat([scales, torch.full((4, 1), 1e6)], dim=1)
    means = torch.randn(4, 4, generator=g)
    slices = sliced(Spacetime(means, quats, quats, endless, torch.full((4,), 0.5)), torch.tensor([0.0, 1.0]), 0.05)
    assert torch.allclose(slices.means, means[:, :3].expand(2, 4, 3), atol=1e-6)
    assert torch.allclose(slices.covariances, covariances_of(quats, scales), atol=1e-6)
    assert torch.allclose(slices.opacities, torch.tensor(0.5))
    assert not slices.velocities.abs().max() > 1e-6


@pytest.mark.parametrize("count", [1, 16, 37, 2100])
@pytest.mark.parametrize("times", [0, 1, 3])
def test_the_native_call_equals_plain_torch(count: int, times: int) -> None:
    if kernels.missing_reason() is not None:
        pytest.skip("no native kernels")
    g, at = torch.Generator().manual_seed(1), torch.linspace(-0.5, 1.5, times)
    shapes = [(times, count, 3), (times, count), (count, 6), (count, 3)]
    weights = [torch.randn(shape, generator=g) for shape in shapes]

    def taken(dtype: torch.dtype) -> tuple[Slices, list[Tensor]]:
        gaussians = Spacetime(*(part.requires_grad_() for part in random_spacetime(count, 2, dtype)))
        slices = sliced(gaussians, at.to(dtype), 0.02)
        torch.stack([(part * w.to(dtype)).sum() for part, w in zip(slices, weights, strict=True)]).sum().backward()
        return slices, [part.grad for part in gaussians if part.grad is not None]

    (found, gradients), (exact, expected) = taken(torch.float32), taken(F64)
    for name, part in found._asdict().items():
        assert torch.allclose(part.double(), getattr(exact, name), rtol=1e-4, atol=1e-5), name
    for gradient, other in zip(gradients, expected, strict=True):
        assert (gradient - other).norm() <= 1e-5 * other.norm()


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_what_is_not_there_has_no_opacity_and_no_gradient(dtype: torch.dtype) -> None:
    gaussians = Spacetime(*(part.requires_grad_() for part in random_spacetime(6, 3, dtype)))
    slices = sliced(gaussians, torch.tensor([1e4], dtype=dtype), 1e-3)
    assert not slices.opacities.any()
    slices.opacities.sum().backward()
    assert gaussians.means.grad is not None
    assert not gaussians.means.grad.any()


def test_few_gradients_are_asked_for() -> None:
    gaussians = Spacetime(*(part.requires_grad_() for part in random_spacetime(6, 3, torch.float32)))
    sliced(gaussians, torch.tensor([0.1]), 0.0).means.sum().backward()
    assert gaussians.means.grad is not None
    assert torch.equal(gaussians.means.grad[:, :3], torch.ones(6, 3))
    assert relative(gaussians.means.grad[:, 3], -spacetime_velocities(gaussians).detach().sum(1)) < 1e-5
