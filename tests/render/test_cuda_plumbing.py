"""How the cuda renderer calls gsplat and what it makes of the results, on a CPU with a stand-in for gsplat.

The stand-in keeps gsplat's conventions, not ours: agreement with the reference renderer is agreement with gsplat.
"""

import importlib.util
import inspect
import logging
import shutil
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from kg4d.gaussians.moving import MovingGaussians
from kg4d.render import blending, build_renderer
from kg4d.render.base import RasterOptions, Renderer
from kg4d.render.build import RendererUnavailableError
from kg4d.runs.environment import environment
from tests.pretended_gpu import pretend_gpus
from tests.render import fake_gsplat
from tests.render.scenes import Case, gradients, moving_case, moving_gradients, random_case, relative
from tests.render.test_view_colors import glossy_case


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`kg4d.render.cuda` as it is with the stand-in, in the place of the real one for the length of a test."""
    return fake_gsplat.use_instead_of_gsplat(monkeypatch, fake_gsplat.rasterization)


@pytest.fixture
def cuda(module: ModuleType) -> Renderer:
    """The cuda renderer, on the CPU."""
    renderer: Renderer = module.CudaRenderer("cpu")
    return renderer


CASES = {
    "plain": random_case(channels=3),
    "without a background": random_case(channels=3, cameras=2),
    "features per camera and depth": random_case(channels=5, cameras=3, per_camera=True, depth=True),
    "absolute gradients": random_case(channels=3, cameras=2, absgrad=True),
    "absolute gradients, many channels": random_case(channels=40, depth=True, absgrad=True),
    "harmonics": glossy_case(3, cameras=2, depth=True),
    "many channels": random_case(channels=40, depth=True),
    "other rules": random_case(
        channels=2, options=RasterOptions(eps2d=0.1, near=2.5, far=3.5, radius_clip=3.0, antialiased=True)
    ),
}
CASES["without a background"].background = None


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_every_argument_and_result_arrives(cuda: Renderer, reference: Renderer, case: Case) -> None:
    output, found = gradients(case.on(cuda), cuda)
    exact, expected = gradients(case.on(reference, torch.float64), reference)
    assert (output.image - exact.image).abs().max() < 1e-5
    assert (output.alpha - exact.alpha).abs().max() < 2e-6
    assert torch.equal(output.radii, exact.radii)
    shown = (exact.radii > 0).all(-1)
    assert (output.means2d - exact.means2d)[shown].abs().max() < 1e-5
    assert (output.depth is None) == (exact.depth is None)
    if output.depth is not None and exact.depth is not None:
        covered = exact.alpha > 0.02
        assert ((output.depth - exact.depth).abs() * covered).max() < 2e-4
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert relative(found[name], value) < 1e-5, name


@pytest.mark.parametrize("per_frame", [False, True])
def test_all_frames_are_one_call_of_gsplat(
    module: ModuleType, cuda: Renderer, reference: Renderer, monkeypatch: pytest.MonkeyPatch, per_frame: bool
) -> None:
    batches = []

    def watched(means: Tensor, *rest: Any, **settings: Any) -> Any:
        batches.append(means.shape[:-2])
        return fake_gsplat.rasterization(means, *rest, **settings)

    monkeypatch.setattr(module, "rasterization", watched)
    found, expected = (moving_gradients(renderer, per_frame) for renderer in (cuda, reference))
    assert batches == [(3,)]
    for name in ("image", "alpha"):
        assert (found[name] - expected[name]).abs().max() < 1e-5, name
    assert torch.equal(found["radii"], expected["radii"])
    for name in ("gradient of means", "gradient of quats", "gradient of scales", "gradient of features"):
        assert relative(found[name], expected[name]) < 1e-4, name


def test_frames_show_each_moved_gaussian_in_its_own_direction(cuda: Renderer, reference: Renderer) -> None:
    case = glossy_case(2, count=60, cameras=3).on(cuda)
    moving = MovingGaussians.still(case.gaussians.detach(), 3)
    for colors in (None, torch.rand(3, 60, 3)):
        moved = replace(moving, means=moving.means + torch.linspace(0, 0.3, 3)[:, None, None], colors=colors)
        found, expected = (renderer.frames(moved, case.cameras).image for renderer in (cuda, reference))
        assert (found - expected).abs().max() < 1e-5


def test_contributors_in_frames_are_those_of_the_reference(cuda: Renderer, reference: Renderer) -> None:
    frames, pixels = torch.arange(60) % 3, torch.rand(60, 2) * torch.tensor([45.0, 38.0])
    found, expected = (
        renderer.contributors(renderer.frames(*moving_case()), frames, pixels, 6) for renderer in (cuda, reference)
    )
    assert (expected.ids >= 0).any()
    assert torch.equal(found.ids, expected.ids)
    assert torch.allclose(found.weights, expected.weights, atol=1e-5)


def test_frames_without_gaussians_show_the_background(cuda: Renderer) -> None:
    moving, cameras = moving_case(count=0)
    output = cuda.frames(moving, cameras, background=torch.ones(3))
    assert (output.image == 1).all()
    nothing = cuda.contributors(output, torch.tensor([0, 2]), torch.full((2, 2), 4.0), 5)
    assert (nothing.ids == -1).all()


@pytest.mark.parametrize("antialiased", [False, True])
def test_contributors_are_those_of_the_reference(cuda: Renderer, reference: Renderer, antialiased: bool) -> None:
    case = random_case(cameras=2, options=RasterOptions(antialiased=antialiased, near=2.7))
    cameras, pixels = torch.arange(60) % 2, torch.rand(60, 2) * torch.tensor([45.0, 38.0])
    found = cuda.contributors(case.on(cuda).render(cuda), cameras, pixels, 6)
    expected = reference.contributors(case.on(reference).render(reference), cameras, pixels, 6)
    assert (expected.ids >= 0).any()
    assert torch.equal(found.ids, expected.ids)
    torch.testing.assert_close(found.weights, expected.weights, atol=1e-5, rtol=0)


def test_a_look_up_in_small_parts_gives_the_same(cuda: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    output = random_case(cameras=2).on(cuda).render(cuda)
    cameras, pixels = torch.arange(500) % 2, torch.rand(500, 2) * torch.tensor([45.0, 38.0])
    whole = cuda.contributors(output, cameras, pixels, 6)
    held = []
    real = blending.blend_weights

    def watched(pixels: Tensor, means2d: Tensor, splats: blending.Splats) -> blending.Weights:
        held.append(means2d.shape[0] * means2d.shape[1])
        return real(pixels, means2d, splats)

    monkeypatch.setattr(blending, "blend_weights", watched)
    monkeypatch.setattr(blending, "_MOST_WEIGHTS", 5000)
    parts = cuda.contributors(output, cameras, pixels, 6)
    assert len(held) > 2
    assert max(held) < 5500
    assert torch.equal(parts.ids, whole.ids)
    assert torch.equal(parts.weights, whole.weights)


def test_without_gaussians_gsplat_is_not_called(cuda: Renderer) -> None:
    case = random_case(count=0, channels=4, cameras=2, depth=True).on(cuda)
    output = case.render(cuda)
    assert case.background is not None
    assert torch.equal(output.image, case.background[:, None, None].expand_as(output.image))
    output.image.sum().backward()
    assert case.gaussians.means.grad is not None
    found = cuda.contributors(output, torch.tensor([0, 1]), torch.tensor([[3.0, 3.0], [4.0, 4.0]]), 5)
    assert (found.ids == -1).all()


def test_counts_beyond_those_of_gsplat_are_refused(module: ModuleType) -> None:
    case = random_case(count=1)
    module._check_counts(2**26, case.cameras, 31)
    with pytest.raises(ValueError, match="fewer cameras"):
        module._check_counts(2**26, case.cameras, 32)
    with pytest.raises(ValueError, match="16384x65536 px"):
        module._check_counts(1, replace(case.cameras, width=2**14, height=2**16), 3)


def test_wrong_inputs_are_refused_before_gsplat_sees_them(cuda: Renderer) -> None:
    case = random_case(count=20).on(cuda, torch.float64)
    with pytest.raises(ValueError, match="float32"):
        case.render(cuda)


def test_gsplat_has_the_arguments_and_defaults_that_the_stand_in_has() -> None:
    real = inspect.signature(pytest.importorskip("gsplat").rasterization).parameters
    for name, parameter in inspect.signature(fake_gsplat.rasterization).parameters.items():
        assert real[name].default == parameter.default, name
    positional = 9  # what the renderer passes by position
    assert list(real)[:positional] == list(inspect.signature(fake_gsplat.rasterization).parameters)[:positional]


@pytest.mark.parametrize(("kernels", "missing"), [(None, "nvcc"), (object(), None)])
def test_missing_kernels_of_gsplat_are_noticed_before_the_first_render(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, kernels: object, missing: str | None
) -> None:
    monkeypatch.setitem(sys.modules, "gsplat.cuda", SimpleNamespace(_backend=SimpleNamespace(_C=kernels)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    if missing is None:
        assert build_renderer("auto").name == "cuda"
    else:
        assert build_renderer("auto").name == "cpu"
        with pytest.raises(RendererUnavailableError, match=missing):
            build_renderer("cuda")


class Loading(ModuleType):
    """`gsplat.cuda`, whose `_backend` builds the kernels when it is asked for."""

    def __init__(self, load: Callable[[], object]) -> None:
        super().__init__("gsplat.cuda")
        self._load = load

    def __getattr__(self, name: str) -> object:
        if name != "_backend":
            raise AttributeError(name)
        return self._load()


def loading(load: Callable[[], object], patch: pytest.MonkeyPatch, cache: Path) -> None:
    patch.setitem(sys.modules, "gsplat.cuda", Loading(load))
    patch.setenv("KG4D_CACHE", str(cache))


def failing(*errors: Exception) -> Callable[[], object]:
    following = iter(errors)

    def load() -> object:
        raise next(following)

    return load


@pytest.mark.parametrize("error", [RuntimeError, TypeError, ImportError])
def test_kernels_of_gsplat_that_do_not_build_are_a_reason(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: type[Exception]
) -> None:
    loading(failing(error("Error building extension 'gsplat_cuda'\nlong output")), monkeypatch, tmp_path)
    assert module.gsplat_missing_reason() == (
        "gsplat's CUDA kernels cannot be built (Error building extension 'gsplat_cuda'); use renderer.kind=cpu"
    )


def test_the_first_reason_stays(module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    errors = RuntimeError("Ninja is required"), RuntimeError("gsplat_cuda.so: cannot open shared object file")
    loading(failing(*errors), monkeypatch, tmp_path)
    assert "Ninja is required" in module.gsplat_missing_reason()
    assert "Ninja is required" in module.gsplat_missing_reason()


def test_ninja_of_the_environment_is_found_while_gsplat_builds(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = []

    def load() -> object:
        found.append(shutil.which("ninja"))
        return SimpleNamespace(_C=object())

    loading(load, monkeypatch, tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    assert module.gsplat_missing_reason() is None
    assert found == [str(Path(sysconfig.get_path("scripts")) / "ninja")]


def test_a_build_keeps_other_processes_waiting(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    refused = []

    def load() -> object:
        try:
            FileLock(tmp_path / "gsplat-build.lock").acquire(timeout=0)
        except Timeout:
            refused.append(True)
        return SimpleNamespace(_C=object())

    loading(load, monkeypatch, tmp_path)
    assert module.gsplat_missing_reason() is None
    assert refused == [True]
    FileLock(tmp_path / "gsplat-build.lock").acquire(timeout=0)


def test_a_gpu_that_lies_idle_is_a_warning_and_in_the_record(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pretend_gpus(monkeypatch)
    loading(failing(RuntimeError("Ninja is required")), monkeypatch, tmp_path)
    monkeypatch.setattr("kg4d.render.cuda", module)
    monkeypatch.setitem(sys.modules, "kg4d.render.cuda", module)
    with caplog.at_level(logging.WARNING):
        renderer = build_renderer()
    assert renderer.name == "cpu"
    assert "a pretended GPU is not used" in caplog.text
    assert "Ninja is required" in caplog.text
    record = environment(renderer)
    assert "Ninja is required" in record["renderer_reason"]
    assert record["cuda"]["gpus"][0]["name"] == "a pretended GPU"
    assert record["cuda"]["used"] is None
