"""What every renderer must do; the fast ones are held against float64 autograd through the plain one."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from kg4d.gaussians.moving import MovingGaussians
from kg4d.render import build_renderer
from kg4d.render.base import RasterOptions, Renderer, between_planes
from tests.render.scenes import Case, gradients, moving_case, one_gaussian, random_case, relative


@pytest.mark.parametrize("channels", [1, 2, 3, 14, 17, 33])
@pytest.mark.parametrize("cameras", [1, 2])
def test_values_and_gradients_equal_float64_autograd(
    fast: Renderer, reference: Renderer, channels: int, cameras: int
) -> None:
    case = random_case(channels=channels, cameras=cameras, seed=channels)
    output, found = gradients(case.on(fast), fast)
    exact, expected = gradients(case.on(reference, torch.float64), reference)
    assert (output.image.cpu() - exact.image).abs().max() < 8e-6
    assert (output.alpha.cpu() - exact.alpha).abs().max() < 2e-6
    assert torch.equal(output.radii.cpu(), exact.radii)
    # gsplat takes T back from 1 - alpha, its conics from a determinant that cancels, and exp from the fast unit
    bound = 1e-4 if fast.name == "cuda" else 3e-6
    for name, value in expected.items():
        assert relative(found[name], value) < bound, name


@pytest.mark.parametrize("antialiased", [False, True])
def test_depth_absgrad_and_own_features_per_camera(fast: Renderer, reference: Renderer, antialiased: bool) -> None:
    case = random_case(
        channels=5,
        cameras=3,
        per_camera=True,
        depth=True,
        absgrad=True,
        options=RasterOptions(antialiased=antialiased, radius_clip=2.0, near=2.2, far=3.7),
    )
    output, found = gradients(case.on(fast), fast)
    exact, expected = gradients(case.on(reference, torch.float64), reference)
    assert output.depth is not None
    assert exact.depth is not None
    # gsplat divides by an alpha that has few digits where little is covered
    covered = exact.alpha > (0.5 if fast.name == "cuda" else 0.02)
    assert ((output.depth.cpu() - exact.depth).abs() * covered).max() < 2e-4
    for name, value in expected.items():
        # Depth is divided by alpha = 1 - T, which in single precision has few digits where little is covered.
        assert relative(found[name], value) < (1e-3 if fast.name == "cuda" else 2e-5), name


def test_a_lone_gaussian_has_its_closed_form(renderer: Renderer) -> None:
    case = one_gaussian().on(renderer)
    output = case.render(renderer)
    variance = (40 * 0.2 / 2) ** 2 + 0.3
    x = torch.arange(33) - 16.0
    expected = 0.8 * torch.exp(-(x[:, None] ** 2 + x**2) / (2 * variance))
    expected[expected < 1 / 255] = 0
    assert torch.allclose(output.alpha[0, ..., 0].cpu(), expected, atol=1e-6)
    assert torch.equal(output.image[..., 0], output.image[..., 2])
    extent = math.sqrt(2 * math.log(255 * 0.8) * variance)
    assert output.radii.tolist() == [[[math.ceil(extent)] * 2]]
    assert output.means2d.tolist() == [[[16.5, 16.5]]]


def test_depth_of_a_lone_gaussian_is_its_distance(renderer: Renderer) -> None:
    output = replace(one_gaussian().on(renderer), depth=True).render(renderer)
    assert output.depth is not None
    covered = output.alpha > 0
    assert torch.allclose(output.depth[covered], torch.tensor(2.0, device=renderer.device), atol=1e-4)
    assert (output.depth[~covered] == 0).all()


def test_antialiasing_keeps_the_light_of_a_small_gaussian(renderer: Renderer) -> None:
    case = replace(one_gaussian(scale=0.01).on(renderer), options=RasterOptions(antialiased=True))
    sharp = (40 * 0.01 / 2) ** 2
    peak = case.render(renderer).alpha.detach()[0, 16, 16, 0]
    assert float(peak) == pytest.approx(0.8 * sharp / (sharp + 0.3), rel=1e-5)


def test_the_nearer_gaussian_covers_the_farther(renderer: Renderer) -> None:
    near, far = one_gaussian(), one_gaussian(mean=(0.0, 0.0, 3.0), opacity=0.5)
    for order in ([near, far], [far, near]):
        parts = [[tensor for tensor in vars(case.gaussians).values() if tensor is not None] for case in order]
        gaussians = type(near.gaussians)(*map(torch.cat, zip(*parts, strict=True)))
        depths = gaussians.means[:, 2:]
        output = Case(gaussians, near.cameras, depths).on(renderer).render(renderer)
        assert float(output.image.detach()[0, 16, 16, 0]) == pytest.approx(0.8 * 2 + 0.2 * 0.5 * 3, rel=1e-5)


def test_without_gaussians_only_the_background_is_seen(renderer: Renderer) -> None:
    case = random_case(count=0, channels=4, cameras=2, depth=True).on(renderer)
    output, _ = case.render(renderer), None
    assert case.background is not None
    assert torch.equal(output.image, case.background[:, None, None].expand(2, 38, 45, 4))
    assert (output.alpha == 0).all()
    assert output.means2d.shape == (2, 0, 2)


def test_gaussians_behind_the_camera_or_beyond_the_planes_are_not_drawn(renderer: Renderer) -> None:
    for z, options in ((-2.0, RasterOptions()), (0.0, RasterOptions()), (2.0, RasterOptions(far=1.9))):
        case = replace(one_gaussian(mean=(0.0, 0.0, z)).on(renderer), options=options)
        output, found = gradients(case, renderer)
        assert (output.alpha == 0).all()
        assert (output.radii == 0).all()
        assert all(bool(torch.isfinite(gradient).all()) for gradient in found.values())
        assert not found["means"].any()


def test_planes_of_a_renderer_hold_where_a_call_has_none(renderer: Renderer) -> None:
    case = one_gaussian().on(renderer)  # at a depth of 2
    assert float(case.render(renderer).alpha.detach().max()) > 0.5
    for near, far in ((2.1, 9.0), (0.1, 1.9)):
        between = between_planes(renderer, near, far)
        drawn = between(case.gaussians, case.cameras, depth=True)
        assert float(drawn.alpha.detach().max()) == 0
        moving = MovingGaussians.still(case.gaussians, 1)
        assert float(between.frames(moving, case.cameras).alpha.detach().max()) == 0
        assert drawn.options == RasterOptions(near=near, far=far)
        assert float(between(case.gaussians, case.cameras, options=RasterOptions()).alpha.detach().max()) > 0.5
    assert renderer.options == RasterOptions()


def test_a_radius_clip_drops_small_gaussians(renderer: Renderer) -> None:
    case = one_gaussian().on(renderer)
    radius = int(case.render(renderer).radii[0, 0, 0])
    assert (replace(case, options=RasterOptions(radius_clip=float(radius))).render(renderer).alpha == 0).all()
    assert (replace(case, options=RasterOptions(radius_clip=radius - 0.5)).render(renderer).alpha > 0).any()


def test_a_loss_on_the_projected_centres_reaches_the_means(renderer: Renderer) -> None:
    case = one_gaussian(mean=(0.1, 0.2, 2.0)).on(renderer)
    output = case.render(renderer)
    output.means2d[..., 0].sum().backward()
    expected = torch.tensor([[40 / 2.0, 0.0, -40 * 0.1 / 4.0]], device=renderer.device)
    assert case.gaussians.means.grad is not None
    assert torch.allclose(case.gaussians.means.grad, expected, atol=1e-5)
    assert output.means2d.grad is not None
    assert output.means2d.grad.tolist() == [[[1.0, 0.0]]]


def test_screen_gradients_add_up_over_backward_passes(renderer: Renderer) -> None:
    case = replace(one_gaussian(mean=(0.05, 0.0, 2.0)).on(renderer), absgrad=True)
    output = case.render(renderer)
    weights = torch.linspace(0, 1, 33, device=renderer.device)[None, None, :, None]
    (output.alpha * weights).sum().backward(retain_graph=True)
    once = output.means2d.grad.clone()  # type: ignore[union-attr]
    (output.alpha * weights).sum().backward()
    assert torch.allclose(output.means2d.grad, 2 * once)  # type: ignore[arg-type]
    assert (output.means2d.absgrad >= output.means2d.grad.abs() * 0.49).all()  # type: ignore[attr-defined, union-attr]


def test_a_lower_resolution_sees_the_same_scene(renderer: Renderer) -> None:
    case = random_case(width=64, height=64).on(renderer)
    full = case.render(renderer)
    small = replace(case, cameras=case.cameras.resized(32, 32)).render(renderer)
    seen = (small.radii > 0).all(-1) & (full.radii > 0).all(-1)  # of others the centres have no meaning
    assert torch.allclose(small.means2d[seen] * 2, full.means2d[seen], atol=1e-4)
    assert float(small.alpha.detach().mean()) == pytest.approx(float(full.alpha.detach().mean()), rel=0.1)


def test_dense_and_strided_inputs_give_the_same(renderer: Renderer) -> None:
    case = random_case(count=40, channels=4).on(renderer)
    wide = {f: torch.cat([getattr(case.gaussians, f)] * 2, dim=-1) for f in ("means", "quats", "scales")}
    strided = replace(
        case.gaussians, **{f: t[:, : t.shape[1] // 2] for f, t in wide.items()}, opacities=case.gaussians.opacities
    )
    features = case.features.detach().T.contiguous().T
    assert not strided.means.is_contiguous()
    assert not features.is_contiguous()
    other = replace(case, gaussians=strided, features=features).render(renderer)
    assert torch.equal(other.image, case.render(renderer).image)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities", "features", "background", "viewmats"])
def test_values_that_are_not_finite_are_refused(name: str, bad: float) -> None:
    for kind in ("cpu", "reference"):
        renderer = build_renderer(kind, threads=1)
        case = random_case(count=20, channels=3).on(renderer)
        holder = case.gaussians if hasattr(case.gaussians, name) else case.cameras if name == "viewmats" else case
        with torch.no_grad():
            getattr(holder, name).view(-1)[-1] = bad
        with pytest.raises(ValueError, match="NaN or Inf"):
            case.render(renderer)


def test_inputs_that_do_not_fit_are_refused(renderer: Renderer) -> None:
    case = random_case(count=20, channels=3, cameras=2).on(renderer)
    with pytest.raises(ValueError, match="shape"):
        replace(case, features=case.features[:19]).render(renderer)
    with pytest.raises((ValueError, TypeCheckError)):  # the tests check shapes before the renderer does
        replace(case, background=torch.zeros(2, 4, device=renderer.device)).render(renderer)
    with pytest.raises(ValueError, match="must be"):
        replace(case, features=case.features.half()).render(renderer)
    with pytest.raises(ValueError, match="must be"):
        replace(case, features=case.features.to("meta")).render(renderer)
    with pytest.raises(ValueError, match="pixel"):
        replace(case, cameras=replace(case.cameras, width=0)).render(renderer)
    with pytest.raises(ValueError, match="channel"):
        replace(case, features=case.features[:, :0], background=None).render(renderer)
    with pytest.raises(ValueError, match="eps2d"):
        replace(case, options=RasterOptions(eps2d=-1.0)).render(renderer)


@given(
    st.integers(1, 50),
    st.integers(1, 40),
    st.integers(1, 6),
    st.integers(0, 60),
    st.integers(0, 1000),
)
def test_any_size_equals_the_reference(width: int, height: int, channels: int, count: int, seed: int) -> None:
    case = random_case(count=count, width=width, height=height, channels=channels, seed=seed)
    cpu, reference = build_renderer("cpu", threads=2), build_renderer("reference")
    image = case.on(cpu).render(cpu).image
    assert torch.allclose(image, case.on(reference).render(reference).image, atol=2e-5)


def test_many_gaussians_in_one_tile_equal_the_reference(fast: Renderer, reference: Renderer) -> None:
    case = random_case(count=1500, width=16, height=16, channels=3)
    case.gaussians.opacities.mul_(0.02)
    output, found = gradients(case.on(fast), fast)
    exact, expected = gradients(case.on(reference, torch.float64), reference)
    assert (output.image.cpu() - exact.image).abs().max() < 1e-5
    for name, value in expected.items():
        assert relative(found[name], value) < 2e-5, name  # faint: few splats lie well above the threshold


def test_the_reference_passes_gradcheck(reference: Renderer) -> None:
    case = random_case(count=4, width=6, height=5, channels=2).on(reference, torch.float64)

    def images(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        means, quats, scales, opacities, features, viewmats = tensors
        moved = replace(
            case,
            gaussians=replace(case.gaussians, means=means, quats=quats, scales=scales, opacities=opacities),
            cameras=replace(case.cameras, viewmats=viewmats),
            features=features,
        )
        output = replace(moved, depth=True).render(reference)
        assert output.depth is not None
        return output.image, output.alpha, output.depth * output.alpha

    g = case.gaussians
    inputs = (g.means, g.quats, g.scales, g.opacities, case.features, case.cameras.viewmats)
    assert torch.autograd.gradcheck(images, inputs, eps=1e-7, atol=1e-5)


def test_frames_are_the_gaussians_at_each_time_in_its_camera(renderer: Renderer) -> None:
    moving, cameras = moving_case()
    moving, cameras = on_device(moving, renderer), cameras.to(renderer.device)
    background = torch.rand(3, device=renderer.device)
    output = renderer.frames(moving, cameras, background=background, depth=True)
    assert output.depth is not None
    for frame, state in enumerate(moving.states()):
        alone = renderer(state, cameras[frame], background=background, depth=True)
        assert alone.depth is not None
        torch.testing.assert_close(output.image[frame], alone.image[0])
        torch.testing.assert_close(output.alpha[frame], alone.alpha[0])
        torch.testing.assert_close(output.depth[frame], alone.depth[0])
        assert torch.equal(output.radii[frame], alone.radii[0])


def test_contributors_in_frames_are_those_of_each(renderer: Renderer) -> None:
    moving, cameras = moving_case()
    moving, cameras = on_device(moving, renderer), cameras.to(renderer.device)
    output = renderer.frames(moving, cameras)
    pixels = (torch.rand(40, 2) * torch.tensor([45.0, 38.0])).to(renderer.device)
    frames = torch.arange(40, device=renderer.device) % 3
    found = renderer.contributors(output, frames, pixels, 6)
    for frame, state in enumerate(moving.states()):
        rows = frames == frame
        here = torch.zeros(int(rows.sum()), dtype=torch.int64, device=renderer.device)
        alone = renderer.contributors(renderer(state, cameras[frame]), here, pixels[rows], 6)
        assert torch.equal(found.ids[rows], alone.ids)
        assert torch.equal(found.weights[rows], alone.weights)


def test_each_time_needs_its_camera(renderer: Renderer) -> None:
    moving, cameras = moving_case()
    with pytest.raises(ValueError, match="one camera for each time"):
        renderer.frames(on_device(moving, renderer), cameras[:2].to(renderer.device))


def on_device(moving: MovingGaussians, renderer: Renderer) -> MovingGaussians:
    tensors = {f: getattr(moving, f).to(renderer.device) for f in ("means", "quats", "scales", "colors")}
    return replace(moving, base=moving.base.to(renderer.device), **tensors)
