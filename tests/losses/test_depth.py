"""The depth loss: closed forms, what changes nothing, gradients, and renders of every renderer."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kg4d.gaussians.moving import MovingGaussians
from kg4d.losses.depth import depth_loss
from kg4d.losses.settings import DepthForm, DepthLossConfig
from kg4d.render.base import Renderer
from kg4d.render.build import build_renderer
from tests.make import cameras, gaussians

F64 = torch.float64
FORMS = list(DepthForm)


def loss(
    depth: Tensor,
    prior: Tensor,
    form: DepthForm,
    *,
    known: Tensor | None = None,
    alpha: Tensor | None = None,
    inverse: bool = False,
) -> Tensor:
    return depth_loss(
        depth[..., None],
        torch.ones_like(depth)[..., None] if alpha is None else alpha[..., None],
        prior,
        torch.ones_like(prior) if known is None else known,
        DepthLossConfig(form=form, pairs=500),
        torch.Generator().manual_seed(0),
        inverse=inverse,
    )


def some_depth(seed: int = 0, images: int = 2) -> Tensor:
    return 1 + torch.rand(images, 12, 15, generator=torch.Generator().manual_seed(seed), dtype=F64)


def test_minmax_is_equation_9_as_printed() -> None:
    depth, prior = some_depth(0, 1), some_depth(1, 1)
    normal = (depth - depth.min()) / (depth.max() - depth.min())
    target = (prior - prior.min()) / (prior.max() - prior.min())
    assert float(loss(depth, prior, DepthForm.MINMAX)) == pytest.approx(float((normal - target).abs().mean()))


def test_a_wrong_pixel_moves_minmax_and_not_quantiles() -> None:
    depth = some_depth(0, 1)
    wrong = depth.clone()
    wrong[0, 3, 4] = 50.0
    assert float(loss(wrong, depth, DepthForm.QUANTILE)) < 0.3
    assert float(loss(depth, depth, DepthForm.QUANTILE)) < 1e-12
    one_pixel = float((loss(wrong, depth, DepthForm.QUANTILE) - loss(depth, depth, DepthForm.QUANTILE)).detach())
    assert float(loss(wrong, depth, DepthForm.MINMAX)) > 0.4
    assert one_pixel == pytest.approx(50 / depth.numel(), rel=0.1)  # that pixel alone, in ranges of about 1


@pytest.mark.parametrize("inverse", [False, True])
@given(
    scale=st.floats(1e-2, 1e2),
    shift=st.floats(-10, 10),
    unit=st.floats(1e-2, 1e2),
    form=st.sampled_from(FORMS),
    seed=st.integers(0, 100),
)
def test_neither_scale_and_shift_of_the_prior_nor_the_unit_change_it(
    inverse: bool, scale: float, shift: float, unit: float, form: DepthForm, seed: int
) -> None:
    depth, prior = some_depth(seed), some_depth(seed + 1)
    before = loss(depth, prior, form, inverse=inverse)
    after = loss(unit * depth, scale * prior + shift, form, inverse=inverse)
    assert float(after) == pytest.approx(float(before), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("inverse", [False, True])
def test_the_truth_in_another_scale_costs_nothing(form: DepthForm, inverse: bool) -> None:
    depth = some_depth()
    depth[:, ::2] += 1
    prior = 3 * (1 / depth if inverse else depth) - 7
    margin = 0.01 if form is DepthForm.ORDINAL else 1e-9  # pairs that are hardly apart
    assert float(loss(depth, prior, form, inverse=inverse)) < margin
    assert float(loss(depth, prior, form, inverse=not inverse)) > 0.1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("inverse", [False, True])
def test_the_gradient_is_that_of_finite_differences(form: DepthForm, inverse: bool) -> None:
    """Of pixels between the bounds, which are held."""
    depth, prior = some_depth(2, 1), some_depth(3, 1)
    ranks = depth.flatten().argsort().argsort().reshape(depth.shape)
    inner = (ranks > 8) & (ranks < depth.numel() - 8)
    leaf = depth.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf, prior, form, inverse=inverse), leaf)
    for place in inner.nonzero()[::17].tolist():
        step = torch.zeros_like(depth)
        step[tuple(place)] = 1e-7
        ends = [loss(depth + sign * step, prior, form, inverse=inverse) for sign in (1, -1)]
        assert float(gradient[tuple(place)]) == pytest.approx(float(ends[0] - ends[1]) / 2e-7, abs=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_descent_brings_depth_to_the_prior(form: DepthForm) -> None:
    prior = some_depth(5, 1)
    logarithm = torch.zeros_like(prior).requires_grad_()
    optimizer = torch.optim.Adam([logarithm], lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        loss(logarithm.exp(), prior, form).backward()
        optimizer.step()
    both = torch.stack([logarithm.detach().flatten(), prior.flatten()])
    assert float(torch.corrcoef(both)[0, 1]) > 0.85


@pytest.mark.parametrize("form", FORMS)
def test_what_is_not_known_or_not_covered_does_not_count(form: DepthForm) -> None:
    depth, prior = some_depth(0, 1), some_depth(1, 1)
    known, alpha = torch.ones_like(prior), torch.ones_like(prior)
    known[:, :4], alpha[:, :, :5] = 0, 0.4
    leaf = depth.clone().requires_grad_()
    value = loss(leaf, prior, form, known=known, alpha=alpha)
    (gradient,) = torch.autograd.grad(value, leaf)
    assert bool((gradient[:, :4] == 0).all())
    assert bool((gradient[:, :, :5] == 0).all())
    assert bool((gradient != 0).any())
    other = torch.where((known > 0) & (alpha > 0.5), prior, 1e3)
    assert float(loss(depth, other, form, known=known, alpha=alpha)) == float(value.detach())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", ["flat prior", "flat render", "nothing known", "nothing drawn"])
def test_degenerate_images_have_finite_values_and_gradients(form: DepthForm, case: str) -> None:
    depth, prior = some_depth(0, 1), some_depth(1, 1)
    known = torch.ones_like(prior)
    if case == "flat prior":
        prior = torch.full_like(prior, 3.0)
    if case == "flat render":
        depth = torch.full_like(depth, 2.0)
    if case == "nothing known":
        known = torch.zeros_like(known)
    if case == "nothing drawn":
        depth = torch.zeros_like(depth)
    leaf = depth.clone().requires_grad_()
    value = loss(leaf, prior, form, known=known, alpha=(depth > 0).double())
    (gradient,) = torch.autograd.grad(value, leaf)
    assert bool(value.isfinite())
    assert bool(gradient.isfinite().all())
    if case != "flat render":
        assert float(value.detach()) == 0


@pytest.mark.parametrize("kind", ["cpu", "reference", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("form", FORMS)
def test_it_turns_a_scene_to_the_prior_in_every_renderer(kind: str, form: DepthForm) -> None:
    """Two patches at one distance; the prior says that the left one is nearer."""
    renderer: Renderer = build_renderer(kind, threads=1)
    means = torch.tensor([[-0.4, 0.0, 0.0], [0.4, 0.0, 0.1]]).to(renderer.device)
    state = gaussians(means, scales=0.2, opacities=0.99)
    camera = cameras(size=(32, 24)).to(renderer.device)
    leaf = state.means.clone().requires_grad_()
    moving = MovingGaussians(state, leaf[None], state.quats[None], state.scales[None])
    output = renderer.frames(moving, camera, depth=True)
    assert output.depth is not None
    prior = torch.ones(1, 24, 32, device=renderer.device)
    prior[..., 16:] = 2
    value = depth_loss(
        output.depth,
        output.alpha,
        prior,
        torch.ones_like(prior),
        DepthLossConfig(form=form),
        torch.Generator().manual_seed(0),
        inverse=False,
    )
    value.backward()
    assert leaf.grad is not None
    towards = leaf.grad[:, 2]  # the camera looks along -z
    assert float(towards[0]) < 0  # descent takes it to the camera
    assert float(towards[1]) > 0
