"""Gaussians given by covariances: the same images as by quaternions and scales, and gradients of their own."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kg4d.gaussians.moving import MovingGaussians
from kg4d.geometry.covariances import covariances_of
from kg4d.render.base import RasterOptions, Renderer
from kg4d.render.subset import project_subset
from tests.render.scenes import Case, gradients, moving_case, one_gaussian, random_case, relative


def by_covariances(case: Case) -> Case:
    """The same Gaussians, shaped by covariances."""
    shape = covariances_of(*case.gaussians.ellipsoids)
    return replace(case, gaussians=replace(case.gaussians, quats=None, scales=None, covariances=shape))


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("cameras", [1, 3])
def test_images_are_those_of_quaternions_and_scales(renderer: Renderer, cameras: int, antialiased: bool) -> None:
    case = random_case(cameras=cameras, options=RasterOptions(antialiased=antialiased))
    expected = case.on(renderer).render(renderer)
    found = by_covariances(case).on(renderer).render(renderer)
    assert (found.image - expected.image).abs().max() < 2e-5
    assert (found.alpha - expected.alpha).abs().max() < 5e-6
    assert torch.equal(found.radii, expected.radii)


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("cameras", [1, 2])
def test_gradients_equal_float64_autograd(fast: Renderer, reference: Renderer, cameras: int, antialiased: bool) -> None:
    options = RasterOptions(antialiased=antialiased)
    case = by_covariances(random_case(cameras=cameras, depth=True, absgrad=True, options=options))
    _, found = gradients(case.on(fast), fast)
    _, expected = gradients(case.on(reference, torch.float64), reference)
    assert {"covariances", "means", "viewmats"} <= found.keys() == expected.keys()
    for name, value in expected.items():
        assert relative(found[name], value) < (1e-3 if fast.name == "cuda" else 2e-5), name


def test_gradients_of_covariances_are_those_through_the_axes(reference: Renderer) -> None:
    case = random_case(count=40).on(reference, torch.float64)
    shape = case.gaussians.ellipsoids
    _, direct = gradients(case, reference)
    leaves = [values.detach().requires_grad_() for values in shape]
    through = replace(case.gaussians, quats=None, scales=None, covariances=covariances_of(*leaves))
    through.covariances.retain_grad()  # type: ignore[union-attr]
    gradients(replace(case, gaussians=through), reference)
    for name, leaf in zip(("quats", "scales"), leaves, strict=True):
        assert leaf.grad is not None
        assert relative(leaf.grad, direct[name]) < 1e-8, name


def test_flat_thin_and_point_like_gaussians_are_drawn(renderer: Renderer) -> None:
    case = one_gaussian().on(renderer)
    for shape in ((0.04, 0, 0, 0.04, 0, 0), (0.04, 0.04, 0.04, 0.04, 0.04, 0.04), (0, 0, 0, 0, 0, 0)):
        covariances = torch.tensor([shape], device=renderer.device, dtype=torch.float32).requires_grad_()
        gaussians = replace(case.gaussians, quats=None, scales=None, covariances=covariances)
        output = replace(case, gaussians=gaussians).render(renderer)
        assert float(output.alpha.detach()[0, 16, 16, 0]) == pytest.approx(0.8, rel=1e-4)
        output.alpha.sum().backward()
        assert covariances.grad is not None
        assert bool(covariances.grad.isfinite().all())


@pytest.mark.parametrize("count", [5, 16, 70])
def test_gaussians_too_faint_to_be_drawn_leave_an_empty_picture(renderer: Renderer, count: int) -> None:
    case = random_case(count=count, cameras=2)
    faint = replace(case.gaussians, opacities=torch.full((count,), 1 / 256, dtype=torch.float64))
    output, found = gradients(replace(case, gaussians=faint).on(renderer), renderer)
    assert case.background is not None
    assert torch.equal(output.alpha, torch.zeros_like(output.alpha))
    assert not output.radii.any()
    background = case.background[:, None, None].to(output.image)
    assert torch.equal(output.image, background.expand_as(output.image))
    assert not found["means"].any()


def test_frames_at_several_times(fast: Renderer) -> None:
    moving, cameras = moving_case()
    shape = covariances_of(*moving.ellipsoids).detach().requires_grad_()
    other = replace(moving, quats=None, scales=None, covariances=shape)
    expected = fast.frames(moving, cameras)
    found = fast.frames(other, cameras)
    assert (found.image - expected.image).abs().max() < 2e-5
    found.image.sum().backward()
    assert shape.grad is not None
    assert bool(shape.grad.any(-1).any(-1).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # of a native call, of plain torch
def test_a_subset_is_projected_as_by_quaternions_and_scales(dtype: torch.dtype) -> None:
    moving, cameras = moving_case()
    g = torch.Generator().manual_seed(0)
    ids, frames = torch.randint(-1, 150, (7, 5), generator=g), torch.randint(3, (7,), generator=g)
    views = replace(cameras, viewmats=cameras.viewmats.to(dtype), Ks=cameras.Ks.to(dtype))
    means, quats, scales = (values.detach().to(dtype) for values in (moving.means, *moving.ellipsoids))
    shape = covariances_of(quats, scales).requires_grad_()
    leaves = [quats.clone().requires_grad_(), scales.clone().requires_grad_()]
    weights = torch.randn(7, 5, 2, 2, generator=g).to(dtype)

    def backward(covs: Tensor) -> Tensor:
        (covs * weights).sum().backward()
        return covs.detach()

    known = ids >= 0
    expected = backward(project_subset(means, *leaves, views, ids, frames).covs * known[..., None, None])
    found = backward(
        project_subset(means, None, None, views, ids, frames, covariances=shape).covs * known[..., None, None]
    )
    assert relative(found, expected) < 1e-5
    assert shape.grad is not None
    again = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    covariances_of(*again).backward(shape.grad)
    for leaf, other in zip(leaves, again, strict=True):
        assert leaf.grad is not None
        assert other.grad is not None
        assert relative(other.grad, leaf.grad) < 1e-4


def test_one_shape_is_needed() -> None:
    state = one_gaussian().gaussians
    with pytest.raises(ValueError, match="or covariances"):
        replace(state, covariances=torch.zeros(1, 6, dtype=torch.float64))
    with pytest.raises(ValueError, match="or covariances"):
        replace(state, quats=None)
    with pytest.raises(ValueError, match="or covariances"):
        MovingGaussians(state, state.means[None], None, None)
