import math

import pytest
import torch
from torch.func import jacrev

from kg4d.geometry.cameras import Cameras
from kg4d.geometry.projection import project_gaussians, projection_factor
from kg4d.geometry.rotations import quat_to_matrix
from tests import make

WIDTH, HEIGHT = 48, 32


def camera(dtype: torch.dtype = torch.float64) -> Cameras:
    view = make.cameras([35.0], [20.0], size=(WIDTH, HEIGHT))
    return Cameras(view.viewmats.to(dtype), view.Ks.to(dtype), WIDTH, HEIGHT)


def gaussians(count: int, spread: float, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    """Means, quaternions that are not normalised, and scales."""
    g = torch.Generator().manual_seed(0)
    means = spread * torch.randn(count, 3, generator=g, dtype=dtype)
    quats = torch.randn(count, 4, generator=g, dtype=dtype)
    scales = torch.rand(count, 3, generator=g, dtype=dtype) * 0.2 + 0.01
    return means, quats, scales


def test_factor_is_the_derivative_of_the_pixel_by_the_gaussians_own_coordinates() -> None:
    view = camera()
    for mean, quat, scale in zip(*gaussians(8, spread=0.2), strict=True):

        def pixel(
            u: torch.Tensor, mean: torch.Tensor = mean, quat: torch.Tensor = quat, scale: torch.Tensor = scale
        ) -> torch.Tensor:
            return view.project(mean + quat_to_matrix(quat) @ (scale * u)).pixels[0]

        expected = jacrev(pixel)(torch.zeros(3, dtype=torch.float64))
        factor = projection_factor(mean, quat, scale, view.viewmats[0], view.Ks[0], WIDTH, HEIGHT)
        torch.testing.assert_close(factor, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [0.3, 1.2])  # the second leaves the image on all sides, where the clamp acts
def test_agrees_with_gsplat(dtype: torch.dtype, spread: float) -> None:
    gsplat = pytest.importorskip("gsplat.cuda._torch_impl", reason="gsplat is not installed")
    means, quats, scales = gaussians(200, spread, dtype)
    view = camera(dtype)
    in_front = view.project(means).depths[0] > 0.1
    means, quats, scales = means[in_front], quats[in_front], scales[in_front]
    covars, _ = gsplat._quat_scale_to_covar_preci(quats, scales, compute_covar=True, compute_preci=False)
    _, means2d, _, conics, _ = gsplat._fully_fused_projection(
        means, covars, view.viewmats, view.Ks, WIDTH, HEIGHT, eps2d=0.3
    )
    found = project_gaussians(means, quats, scales, view.viewmats[0], view.Ks[0], WIDTH, HEIGHT)
    precision = torch.linalg.inv(found.covs)
    conic = torch.stack([precision[:, 0, 0], precision[:, 0, 1], precision[:, 1, 1]], dim=-1)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-3
    torch.testing.assert_close(found.means, means2d[0], atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(conic, conics[0], atol=tolerance, rtol=tolerance)
    if spread > 1:
        outside = (found.means < 0) | (found.means > torch.tensor([WIDTH, HEIGHT]))
        assert outside.any(0).all()


def test_rolling_the_camera_turns_means_and_covariances() -> None:
    view, angle = camera(), math.radians(25.0)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    roll = torch.block_diag(turn, torch.eye(2, dtype=torch.float64))
    means, quats, scales = gaussians(16, spread=0.15)
    plain = project_gaussians(means, quats, scales, view.viewmats[0], view.Ks[0], WIDTH, HEIGHT)
    rolled = project_gaussians(means, quats, scales, roll @ view.viewmats[0], view.Ks[0], WIDTH, HEIGHT)
    center = view.Ks[0, :2, 2]
    torch.testing.assert_close(rolled.means - center, (plain.means - center) @ turn.mT)
    torch.testing.assert_close(rolled.covs, turn @ plain.covs @ turn.mT)


def test_small_gaussian_has_the_covariance_of_its_projected_samples() -> None:
    view = camera()
    mean, quat = torch.tensor([0.1, -0.2, 0.1], dtype=torch.float64), torch.tensor([1, 0.3, -0.2, 0.5]).double()
    scale = torch.tensor([0.02, 0.005, 0.01], dtype=torch.float64)
    noise = torch.randn(200_000, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    samples = view.project(mean + (noise * scale) @ quat_to_matrix(quat).mT).pixels[0]
    found = project_gaussians(mean, quat, scale, view.viewmats[0], view.Ks[0], WIDTH, HEIGHT, eps2d=0.0)
    torch.testing.assert_close(found.means, samples.mean(0), atol=2e-3, rtol=0)
    torch.testing.assert_close(found.covs, samples.mT.cov(), atol=0, rtol=2e-2)


def test_dilation_and_leading_axes() -> None:
    view = camera()
    means, quats, scales = (x.reshape(2, 3, -1) for x in gaussians(6, spread=0.2))
    args = (means, quats, scales, view.viewmats[0], view.Ks[0], WIDTH, HEIGHT)
    plain, dilated = project_gaussians(*args, eps2d=0.0), project_gaussians(*args, eps2d=0.3)
    assert dilated.means.shape == (2, 3, 2)
    torch.testing.assert_close(dilated.covs - plain.covs, 0.3 * torch.eye(2).double().expand(2, 3, 2, 2))


def test_gradients() -> None:
    view = camera()
    inputs = tuple(x.requires_grad_() for x in gaussians(3, spread=0.2))
    assert torch.autograd.gradcheck(
        lambda *x: tuple(project_gaussians(*x, view.viewmats[0], view.Ks[0], WIDTH, HEIGHT)), inputs
    )


def test_behind_and_inside_the_camera_stay_finite() -> None:
    view = camera(torch.float32)
    means = torch.stack([2 * view.centers[0], view.centers[0]]).requires_grad_()
    found = project_gaussians(
        means, torch.ones(2, 4), torch.full((2, 3), 0.1), view.viewmats[0], view.Ks[0], WIDTH, HEIGHT
    )
    (found.means.sum() + found.covs.sum()).backward()
    assert means.grad is not None
    for value in (found.means, found.covs, means.grad):
        assert value.isfinite().all()
