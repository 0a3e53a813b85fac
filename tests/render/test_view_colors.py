"""Colours that depend on the direction in which a Gaussian is seen, in every renderer."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kg4d import kernels
from kg4d.gaussians.model import GaussianModel
from kg4d.gaussians.moving import MovingGaussians
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.degrees import harmonics_count
from kg4d.geometry.harmonics import rotated_harmonics
from kg4d.geometry.rotations import matrix_to_quat, quat_multiply, quat_to_matrix
from kg4d.optim.build import build_optimizer
from kg4d.optim.settings import OptimizerConfig
from kg4d.render import build_renderer
from kg4d.render.base import RasterOptions, Renderer
from kg4d.render.cpu import CpuRenderer
from tests.render.scenes import Case, gradients, random_case, relative

DEGREES = [1, 2, 3]


def glossy_case(degree: int, **settings: object) -> Case:
    """Gaussians whose colours differ much from camera to camera, some of them black from some sides; float64."""
    case = random_case(**settings)  # type: ignore[arg-type]
    g = torch.Generator().manual_seed(7)
    shape = (len(case.gaussians), harmonics_count(degree), 3)
    harmonics = 0.4 * torch.randn(*shape, generator=g, dtype=torch.float64)
    return replace(case, gaussians=replace(case.gaussians, harmonics=harmonics), features=None)


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize(
    "settings",
    [
        {"cameras": 1, "count": 203},
        {"cameras": 3, "depth": True, "absgrad": True, "options": RasterOptions(antialiased=True, near=2.4)},
    ],
)
def test_values_and_gradients_equal_float64_autograd(
    fast: Renderer, reference: Renderer, degree: int, settings: dict[str, object]
) -> None:
    case = glossy_case(degree, **settings)
    output, found = gradients(case.on(fast), fast)
    exact, expected = gradients(case.on(reference, torch.float64), reference)
    assert (output.image.cpu() - exact.image).abs().max() < 8e-6
    assert {"colors", "harmonics", "viewmats"} <= expected.keys()
    for name, value in expected.items():
        bound = 1e-3 if fast.name == "cuda" else 2e-5 if case.depth else 3e-6  # as for other features
        assert relative(found[name], value) < bound, name


@pytest.mark.parametrize("degree", DEGREES)
def test_gradients_are_those_of_differences(reference: Renderer, degree: int) -> None:
    case = glossy_case(degree, count=4, width=8, height=6, cameras=2)
    case = replace(case, background=None)

    def images(means: Tensor, colors: Tensor, harmonics: Tensor, viewmats: Tensor) -> Tensor:
        moved = replace(case.gaussians, means=means, colors=colors, harmonics=harmonics)
        return replace(case, gaussians=moved, cameras=replace(case.cameras, viewmats=viewmats)).render(reference).image

    g = case.gaussians
    inputs = [t.requires_grad_() for t in (g.means, g.colors, g.harmonics, case.cameras.viewmats) if t is not None]
    assert torch.autograd.gradcheck(images, inputs, eps=1e-7, atol=1e-5)


def test_a_colour_goes_with_its_camera(renderer: Renderer) -> None:
    case = glossy_case(3, cameras=3).on(renderer)
    together = case.render(renderer).image
    for camera in range(3):
        background = None if case.background is None else case.background[camera]
        alone = replace(case, cameras=case.cameras[camera], background=background).render(renderer).image
        torch.testing.assert_close(together[camera], alone[0], atol=1e-6, rtol=0)
    plain = replace(case, gaussians=replace(case.gaussians, harmonics=None)).render(renderer).image
    assert (together - plain).abs().amax(dim=(1, 2, 3)).min() > 0.05


def test_harmonics_that_are_zero_change_nothing(renderer: Renderer) -> None:
    case = glossy_case(3, cameras=2).on(renderer)
    assert case.gaussians.harmonics is not None
    zero = replace(case.gaussians, harmonics=torch.zeros_like(case.gaussians.harmonics))
    plain = replace(case, gaussians=replace(case.gaussians, harmonics=None)).render(renderer)
    found = replace(case, gaussians=zero).render(renderer)
    torch.testing.assert_close(found.image, plain.image, atol=0 if renderer.name == "cpu" else 1e-6, rtol=0)


def test_features_that_are_given_are_drawn_as_they_are(renderer: Renderer) -> None:
    case = glossy_case(2).on(renderer)
    given = torch.rand(200, 5, device=renderer.device)
    wide = replace(case, features=given, background=None)
    plain = replace(wide, gaussians=replace(case.gaussians, harmonics=None))
    assert torch.equal(wide.render(renderer).image, plain.render(renderer).image)


def test_no_colour_is_below_black(renderer: Renderer) -> None:
    case = replace(glossy_case(1, cameras=2), background=None).on(renderer)
    dark = replace(case.gaussians, colors=case.gaussians.colors.detach() - 9)
    assert (replace(case, gaussians=dark).render(renderer).image == 0).all()


@pytest.mark.parametrize("degree", DEGREES)
def test_a_world_that_is_turned_looks_the_same(renderer: Renderer, degree: int) -> None:
    case = glossy_case(degree, cameras=2)
    g, turn = case.gaussians, quat_to_matrix(torch.tensor([0.4, 0.7, -0.2, 0.5], dtype=torch.float64))
    assert g.harmonics is not None
    viewmats = case.cameras.viewmats.clone()
    viewmats[:, :3, :3] = viewmats[:, :3, :3] @ turn.mT
    turned = replace(
        g,
        means=g.means @ turn.mT,
        quats=quat_multiply(matrix_to_quat(turn), g.quats),
        harmonics=rotated_harmonics(g.harmonics, turn),
    )
    other = replace(case, gaussians=turned, cameras=replace(case.cameras, viewmats=viewmats))
    found, expected = (one.on(renderer).render(renderer).image for one in (other, case))
    error = (found - expected).detach().abs()
    assert (error > 2e-5).float().mean() < 1e-3  # but where rounding decides whether a faint splat is drawn
    assert error.max() < 1 / 255


def test_frames_show_each_moved_gaussian_in_its_own_direction(renderer: Renderer) -> None:
    case = glossy_case(2, cameras=3).on(renderer)
    moving = MovingGaussians.still(case.gaussians.detach(), 3)
    steps = torch.linspace(0, 0.3, 3, device=renderer.device)[:, None, None]
    for colors in (None, torch.rand(3, 200, 3, device=renderer.device)):
        moved = replace(moving, means=moving.means + steps, colors=colors)
        output = renderer.frames(moved, case.cameras)
        for frame, state in enumerate(moved.states()):
            alone = renderer(state, case.cameras[frame])
            torch.testing.assert_close(output.image[frame], alone.image[0])


def test_glossy_gaussians_are_learnt_from_views_around_them() -> None:
    renderer, case = CpuRenderer(threads=1), glossy_case(2, cameras=12, count=120)
    truth = case.gaussians.map(Tensor.float)
    cameras = replace(case.cameras, viewmats=case.cameras.viewmats.float(), Ks=case.cameras.Ks.float())
    target = renderer(truth, cameras).image
    errors = []
    for degree in (0, 2):
        blank = torch.zeros(120, harmonics_count(degree), 3) if degree else None
        model = GaussianModel.from_state(replace(truth, colors=torch.full((120, 3), 0.5), harmonics=blank))
        optimizer = build_optimizer(OptimizerConfig(), model.color_groups(0.1))
        for _ in range(150):
            optimizer.zero_grad()
            error = (renderer(model.state(), cameras).image - target).square().mean()
            error.backward()
            optimizer.step()
        errors.append(error.detach())
    assert 10 * (errors[0] / errors[1]).log10() > 6  # dB


def test_harmonics_without_gaussians(renderer: Renderer) -> None:
    case = glossy_case(3, count=0, cameras=2).on(renderer)
    output, found = gradients(case, renderer)
    assert case.background is not None
    assert torch.equal(output.image, case.background[:, None, None].expand_as(output.image))
    assert found["harmonics"].shape == (0, 15, 3)


@pytest.mark.parametrize("kind", ["cpu", "reference"])
def test_harmonics_that_make_no_sense_are_refused(kind: str) -> None:
    renderer = build_renderer(kind)
    case = glossy_case(2, count=20).on(renderer)
    harmonics = case.gaussians.harmonics
    assert harmonics is not None
    with pytest.raises(ValueError, match="0, 3, 8 or 15 harmonics"):
        replace(case, gaussians=replace(case.gaussians, harmonics=harmonics[:, :5])).render(renderer)
    with pytest.raises(ValueError, match="must be torch.float32"):
        replace(case, gaussians=replace(case.gaussians, harmonics=harmonics.half())).render(renderer)
    with torch.no_grad():
        harmonics[-1, -1, -1] = float("nan")
    with pytest.raises(ValueError, match="NaN or Inf"):
        case.render(renderer)


def test_every_instruction_set_gives_the_same(isa: str) -> None:
    case = glossy_case(3, cameras=2, depth=True)
    renderer = CpuRenderer(threads=1)
    output, found = gradients(case.on(renderer), renderer)
    kernels.use_isa("generic")
    plain, expected = gradients(case.on(renderer), renderer)
    assert torch.allclose(output.image, plain.image, atol=5e-6)
    for name, value in expected.items():
        assert relative(found[name], value) < 2e-5, name


def test_any_number_of_threads_gives_the_same_bytes() -> None:
    case = glossy_case(3, count=3000, width=150, height=90, cameras=2)
    results = []
    for threads in (1, 2, 3):
        renderer = CpuRenderer(threads=threads)
        output, found = gradients(case.on(renderer), renderer)
        results.append((output.image, *found.values()))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_what_needs_no_gradient_gets_none() -> None:
    renderer = CpuRenderer(threads=1)
    case = glossy_case(2, cameras=2).on(renderer)
    _, expected = gradients(case, renderer)
    frozen = case.gaussians.detach()
    assert frozen.harmonics is not None
    means = frozen.means.requires_grad_()
    cameras = Cameras(case.cameras.viewmats.detach(), case.cameras.Ks, 45, 38)
    again = replace(case, gaussians=replace(frozen, means=means), cameras=cameras)
    _, found = gradients(again, renderer)
    assert torch.equal(found["means"], expected["means"])
    assert "harmonics" not in found
