"""Sizes, layouts and values that nobody should ask for: a clear error or a right answer, never a crash."""

import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from jaxtyping import TypeCheckError

from kg4d.render import build_renderer
from kg4d.render.base import Renderer
from tests.render.scenes import Case, gradients, one_gaussian, random_case


@pytest.fixture(params=["cpu", "reference"])
def on_cpu(request: pytest.FixtureRequest) -> Renderer:
    return build_renderer(request.param, threads=1)


def many(count: int, renderer: Renderer) -> Case:
    """`one_gaussian`, `count` times: each tensor repeats one row in place, so it costs nothing."""
    case = one_gaussian().on(renderer)
    repeated = case.gaussians.map(lambda rows: rows.detach().expand(count, *rows.shape[1:]))
    return replace(case, gaussians=repeated, features=repeated.colors)


@pytest.mark.parametrize("count", [2**31, 2**32 + 1, 2**40])
def test_more_gaussians_than_can_be_counted_are_refused(renderer: Renderer, count: int) -> None:
    with pytest.raises(ValueError, match="below 2³¹"):
        many(count, renderer).render(renderer)


def test_each_camera_counts(renderer: Renderer) -> None:
    case = many(2**20, renderer)
    viewmats, Ks = case.cameras.viewmats.detach().expand(2**11, 4, 4), case.cameras.Ks.expand(2**11, 3, 3)
    with pytest.raises(ValueError, match="below 2³¹"):
        replace(case, cameras=replace(case.cameras, viewmats=viewmats, Ks=Ks)).render(renderer)


@pytest.fixture
def one_gigabyte(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if the machine had no more."""
    real = os.sysconf
    monkeypatch.setattr(os, "sysconf", lambda n: 10**9 // real("SC_PAGE_SIZE") if n == "SC_PHYS_PAGES" else real(n))
    return


@pytest.mark.usefixtures("one_gigabyte")
def test_what_does_not_fit_into_memory_is_refused_before_it_is_asked_for(on_cpu: Renderer) -> None:
    with pytest.raises(MemoryError, match=r"needs 2 GB, this machine has 1 GB"):
        many(2**24, on_cpu).render(on_cpu)  # 56 bytes copied and 64 computed for each
    case = many(10, on_cpu)
    with pytest.raises(MemoryError, match=r"needs 3 GB, this machine has 1 GB"):
        replace(case, cameras=replace(case.cameras, width=2**14, height=2**14)).render(on_cpu)
    assert many(100, on_cpu).render(on_cpu).alpha.any()


@pytest.mark.parametrize("side", ["width", "height"])
@pytest.mark.parametrize("length", [0, -1])
def test_images_without_pixels_are_refused(renderer: Renderer, side: str, length: int) -> None:
    case = one_gaussian().on(renderer)
    with pytest.raises(ValueError, match="pixel"):
        replace(case, cameras=replace(case.cameras, **{side: length})).render(renderer)


def test_cameras_that_do_not_fit_together_are_refused(renderer: Renderer) -> None:
    case = random_case(cameras=2, count=5).on(renderer)
    with pytest.raises((ValueError, TypeCheckError)):  # the tests check shapes before the renderer does
        replace(case, cameras=replace(case.cameras, Ks=case.cameras.Ks[:1])).render(renderer)
    with pytest.raises(ValueError, match="camera"):
        replace(case, cameras=case.cameras[:0], background=None).render(renderer)


def test_intrinsics_that_are_not_finite_are_refused(on_cpu: Renderer) -> None:
    case = random_case(count=5).on(on_cpu)
    Ks = case.cameras.Ks.clone()
    Ks[0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN or Inf"):
        replace(case, cameras=replace(case.cameras, Ks=Ks)).render(on_cpu)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("quats", v) for v in (0.0, 1e-30, 1e30)),
        *(("scales", v) for v in (0.0, 1e-30, 1e30)),
        *(("opacities", v) for v in (-1.0, 0.0, 2.0)),
        *(("means", v) for v in (1e30, -1e30)),
    ],
)
def test_extreme_gaussians_leave_a_finite_image(renderer: Renderer, name: str, value: float) -> None:
    case = random_case(count=30, depth=True).on(renderer)
    with torch.no_grad():
        getattr(case.gaussians, name)[:5] = value
    output = case.render(renderer)
    assert output.image.isfinite().all()
    assert ((output.alpha >= 0) & (output.alpha <= 1)).all()
    output.image.sum().backward()


def test_without_gaussians_a_loss_can_be_taken_back(renderer: Renderer) -> None:
    case = random_case(count=0, channels=2, cameras=2).on(renderer)
    case.render(renderer).image.sum().backward()
    for tensor in (case.gaussians.means, case.gaussians.quats, case.gaussians.opacities, case.features):
        assert tensor.grad is not None
        assert tensor.grad.shape == tensor.shape
    assert case.background is not None
    assert case.background.grad is not None
    assert (case.background.grad == 38 * 45).all()


def test_gradients_do_not_depend_on_the_layout(renderer: Renderer) -> None:
    dense, strided = (random_case(count=40, channels=4, cameras=2).on(renderer) for _ in range(2))
    weights = torch.rand(2, 4, 45, 38, device=renderer.device).permute(0, 3, 2, 1)  # not contiguous
    strided.gaussians.means.data = strided.gaussians.means.data.T.contiguous().T
    strided.features.data = strided.features.data.T.contiguous().T
    for case, gradient in ((dense, weights.contiguous()), (strided, weights)):
        case.render(renderer).image.backward(gradient)
    for a, b in ((dense.gaussians.means, strided.gaussians.means), (dense.features, strided.features)):
        assert a.grad is not None
        assert b.grad is not None
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-6)


def test_pixels_without_a_camera_are_refused(renderer: Renderer) -> None:
    output = random_case(count=5).on(renderer).render(renderer)
    ids, pixels = torch.zeros(1, dtype=torch.int64, device=renderer.device), torch.zeros(3, 2, device=renderer.device)
    with pytest.raises((ValueError, TypeCheckError)):
        renderer.contributors(output, ids, pixels, 1)


def _gradients_in_child(case: Case, connection: object) -> None:
    renderer = build_renderer("cpu", threads=2)
    _, found = gradients(case.on(renderer), renderer)
    connection.send([t.numpy().tobytes() for t in found.values()])  # type: ignore[attr-defined]


def test_after_a_fork_both_sides_go_on() -> None:
    case, renderer = random_case(count=2000, width=100, height=100), build_renderer("cpu", threads=2)
    before = gradients(case.on(renderer), renderer)[1]
    context = multiprocessing.get_context("fork")
    for _ in range(2):
        ours, theirs = context.Pipe()
        child = context.Process(target=_gradients_in_child, args=(case, theirs))
        child.start()
        during = gradients(case.on(renderer), renderer)[1]
        assert ours.poll(30), "the child hangs"
        assert ours.recv() == [t.numpy().tobytes() for t in before.values()]
        child.join(30)
        assert child.exitcode == 0
        assert all(torch.equal(during[name], value) for name, value in before.items())
