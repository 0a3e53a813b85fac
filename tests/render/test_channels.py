"""Many channels, and channels whose own gradient nobody wants: the rest must not change."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kg4d import kernels
from kg4d.render.base import Renderer, RenderOutput
from kg4d.render.cpu import CpuRenderer
from tests.render.scenes import Case, gradients, random_case, relative


def without_features(case: Case, renderer: Renderer) -> tuple[RenderOutput, dict[str, Tensor]]:
    """`gradients` where the features want none."""
    frozen = replace(case, features=case.features.detach())
    output = frozen.render(renderer)
    g = torch.Generator().manual_seed(1)
    loss = sum((t * torch.randn(t.shape, generator=g, dtype=torch.float64).to(t)).sum() for t in images(output))
    assert isinstance(loss, Tensor)
    loss.backward()
    assert frozen.features.grad is None
    leaves = {name: getattr(case.gaussians, name) for name in ("means", "quats", "scales", "opacities")}
    leaves |= {"viewmats": case.cameras.viewmats, "means2d": output.means2d}
    found = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    assert found.keys() == leaves.keys()
    if case.background is not None and case.background.grad is not None:
        found["background"] = case.background.grad
    if case.absgrad:
        found["absgrad"] = output.means2d.absgrad  # type: ignore[attr-defined]
    return output, {name: gradient.double().cpu() for name, gradient in found.items()}


def images(output: RenderOutput) -> list[Tensor]:
    """What `gradients` weighs, in its order and with its factors."""
    return [output.image, output.alpha] + ([] if output.depth is None else [0.1 * output.depth])


@pytest.mark.parametrize("channels", [1, 3, 17, 40])
@pytest.mark.parametrize("depth", [False, True])
@pytest.mark.parametrize("per_camera", [False, True])
def test_leaving_out_the_gradient_of_the_features_changes_no_other(
    fast: Renderer, channels: int, depth: bool, per_camera: bool
) -> None:
    case = random_case(channels=channels, cameras=2, depth=depth, absgrad=True, per_camera=per_camera)
    output, expected = gradients(case.on(fast), fast)
    other, found = without_features(case.on(fast), fast)
    assert torch.equal(output.image, other.image)
    assert found.keys() == expected.keys() - {"features"}
    for name, value in found.items():
        assert relative(value, expected[name]) < 1e-6, name


@pytest.mark.parametrize("channels", [17, 40])
def test_so_it_is_with_every_instruction_set_and_any_number_of_threads(isa: str, channels: int) -> None:
    case = random_case(channels=channels, depth=True, absgrad=True, count=900, width=100)
    results = []
    for threads in (1, 2, 3):
        renderer = CpuRenderer(threads)
        results.append(without_features(case.on(renderer), renderer)[1])
        expected = gradients(case.on(renderer), renderer)[1]
        for name, value in results[-1].items():
            assert relative(value, expected[name]) < 1e-6, name
    for other in results[1:]:
        assert all(torch.equal(value, results[0][name]) for name, value in other.items())


@pytest.mark.parametrize("channels", [32, 40, 64, 65, 100])
def test_many_channels_equal_float64_autograd(fast: Renderer, reference: Renderer, channels: int) -> None:
    case = random_case(channels=channels, cameras=2, depth=True, seed=channels, count=80)
    output, found = gradients(case.on(fast), fast)
    exact, expected = gradients(case.on(reference, torch.float64), reference)
    assert (output.image.cpu() - exact.image).abs().max() < 1e-5
    for name, value in expected.items():
        assert relative(found[name], value) < 1e-5, name  # depth is divided by alpha, which has few digits


@pytest.mark.parametrize("channels", [40, 100])
def test_many_channels_are_the_same_in_every_instruction_set(isa: str, channels: int) -> None:
    case = random_case(channels=channels, cameras=2, depth=True, absgrad=True)
    renderer = CpuRenderer(threads=1)
    output, found = gradients(case.on(renderer), renderer)
    kernels.use_isa("generic")
    plain, expected = gradients(case.on(renderer), renderer)
    assert torch.allclose(output.image, plain.image, atol=1e-5)
    for name, value in expected.items():
        assert relative(found[name], value) < 2e-5, name


def test_channels_do_not_see_each_other(fast: Renderer) -> None:
    case = random_case(channels=40).on(fast)
    case.background = None
    whole = case.render(fast).image
    for first in (0, 15, 33):
        part = replace(case, features=case.features[:, first : first + 7]).render(fast).image
        assert torch.allclose(whole[..., first : first + 7], part, atol=1e-6)
