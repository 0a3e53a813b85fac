"""Single Gaussians projected by the native kernels against the plain projection in float64."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from kg4d import kernels
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.projection import Gaussians2D, project_gaussians
from kg4d.render.base import RasterOptions
from kg4d.render.subset import project_subset
from tests.pretended_gpu import pretend_gpus

needs_kernels = pytest.mark.skipif(kernels.missing_reason() is not None, reason="needs the native kernels")
FRAMES, COUNT, ROWS, COLUMNS = 3, 50, 7, 20


def cameras(dtype: torch.dtype) -> Cameras:
    viewmats = torch.eye(4, dtype=dtype).repeat(FRAMES, 1, 1)
    viewmats[:, :3, :3] = torch.linalg.matrix_exp(torch.tensor([[0, -0.2, 0.3], [0.2, 0, 0.1], [-0.3, -0.1, 0]]))
    viewmats[:, 2, 3] = torch.tensor([2.0, 2.3, 2.7])
    K = torch.tensor([[80.0, 0, 32], [0, 70, 30], [0, 0, 1]], dtype=dtype)
    return Cameras(viewmats, K.repeat(FRAMES, 1, 1), 64, 60)


def inputs(dtype: torch.dtype, spread: float = 0.3) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    means, quats = spread * torch.randn(FRAMES, COUNT, 3, generator=g), torch.randn(FRAMES, COUNT, 4, generator=g)
    scales = 0.01 + 0.1 * torch.rand(FRAMES, COUNT, 3, generator=g)
    return [tensor.to(dtype).requires_grad_() for tensor in (means, quats, scales)]


def choice() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randint(-1, COUNT, (ROWS, COLUMNS), generator=g), torch.randint(0, FRAMES, (ROWS,), generator=g)


def weighted_sum(found: Gaussians2D) -> Tensor:
    g = torch.Generator().manual_seed(2)
    parts = [(part * torch.randn(part.shape, generator=g).to(part)).sum() for part in found]
    return torch.stack(parts).sum()


@needs_kernels
@pytest.mark.usefixtures("isa")
def test_native_projection_is_the_plain_one() -> None:
    native, plain = inputs(torch.float32), inputs(torch.float64)
    found = project_subset(*native, cameras(torch.float32), *choice())
    expected = project_subset(*plain, cameras(torch.float64), *choice())
    for a, b in zip(found, expected, strict=True):
        assert (a - b).norm() / b.norm() < 1e-6
    weighted_sum(found).backward()
    weighted_sum(expected).backward()
    for a, b in zip(native, plain, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert (a.grad - b.grad).norm() / b.grad.norm() < 3e-6


@needs_kernels
def test_gaussians_at_the_camera_are_finite_and_get_no_gradient() -> None:
    means, quats, scales = inputs(torch.float32)
    behind = (means.detach() - torch.tensor([0.0, 0.0, 9.0])).requires_grad_()
    found = project_subset(behind, quats, scales, cameras(torch.float32), *choice())
    assert all(part.isfinite().all() for part in found)
    weighted_sum(found).backward()
    assert behind.grad is not None
    assert (behind.grad == 0).all()


def test_rows_are_the_gaussians_in_the_camera_of_their_frame() -> None:
    means, quats, scales = inputs(torch.float64)
    views, (ids, frames) = cameras(torch.float64), choice()
    found = project_subset(means, quats, scales, views, ids, frames)
    for row, (frame, chosen) in enumerate(zip(frames.tolist(), ids.clamp_min(0), strict=True)):
        parts = (means[frame][chosen], quats[frame][chosen], scales[frame][chosen])
        alone = project_gaussians(*parts, views.viewmats[frame], views.Ks[frame], views.width, views.height)
        torch.testing.assert_close(found.means[row], alone.means)
        torch.testing.assert_close(found.covs[row], alone.covs)


def test_off_the_cpu_all_rows_are_projected_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row on its own would be sixty operations and a copy that waits."""
    with pretend_gpus(monkeypatch) as mode:
        given = [tensor.detach().cuda().requires_grad_() for tensor in inputs(torch.float32)]
        views, (ids, frames) = cameras(torch.float32).to("cuda:0"), choice()
        rows, of_row = ids.repeat(40, 1).cuda(), frames.repeat(40).cuda()
        project_subset(*given, views, rows, of_row)  # sends constants to the device once
        with mode.counted():
            found = project_subset(*given, views, rows, of_row)
            (found.means.sum() + found.covs.sum()).backward()
    assert mode.operations < 300
    assert not mode.waits


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_rows_give_no_gaussians(dtype: torch.dtype) -> None:
    nothing = torch.zeros(0, COLUMNS, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    found = project_subset(*inputs(dtype), cameras(dtype), *nothing)
    assert found.means.shape == (0, COLUMNS, 2)
    assert found.covs.shape == (0, COLUMNS, 2, 2)


@needs_kernels
def test_indices_out_of_range_are_refused() -> None:
    ids, frames = choice()
    for bad_ids, bad_frames in [(ids.clone().fill_(COUNT), frames), (ids, frames + FRAMES)]:
        with pytest.raises(ValueError, match="out of range"):
            project_subset(*inputs(torch.float32), cameras(torch.float32), bad_ids, bad_frames)


def test_the_dilation_is_that_of_the_renderers() -> None:
    means, quats, scales = inputs(torch.float64)
    tiny = torch.full_like(scales, 1e-9)
    covs = project_subset(means, quats, tiny, cameras(torch.float64), *choice()).covs
    torch.testing.assert_close(covs, RasterOptions().eps2d * torch.eye(2, dtype=torch.float64).expand_as(covs))


UNCHECKED = """
import sys, torch
from kg4d.geometry.orbits import orbit
from kg4d.render.build import build_renderer
from kg4d.render.subset import project_subset
from kg4d.gaussians.state import GaussianState

cameras = orbit([0.0, 10.0], [0.0, 0.0], 2.0, 49.1, 32, 32)
means, quats, scales = torch.zeros(2, 5, 3), torch.ones(2, 5, 4), torch.ones(2, 5, 3)
ids, frames = torch.zeros(4, 3, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)
renderer = build_renderer("cpu")
state = GaussianState(means[0], quats[0], scales[0], torch.ones(5), torch.ones(5, 3), torch.zeros(5, 0))
output = renderer(state, cameras)
for call in (
    lambda: project_subset(means[:1], quats, scales, cameras, ids, frames),
    lambda: project_subset(means, quats[:, :2], scales, cameras, ids, frames),
    lambda: project_subset(means, quats, scales[..., :1], cameras, ids, frames),
    lambda: project_subset(means, quats, scales, cameras, ids, frames[:1]),
    lambda: project_subset(means, quats, scales, cameras[torch.zeros(1, dtype=torch.int64)], ids, frames),
    lambda: renderer.contributors(output, frames[:1], torch.zeros(4, 2), 3),
    lambda: renderer.contributors(output, frames, torch.zeros(4, 3), 3),
):
    try:
        call()
    except ValueError as error:
        continue
    sys.exit("no error")
assert (project_subset(means, quats, scales, cameras, ids.int(), frames.int()).means == 16).all()
"""


@needs_kernels
def test_shapes_that_do_not_fit_are_refused_where_nothing_checks_the_annotations() -> None:
    subprocess.run([sys.executable, "-c", UNCHECKED], check=True, timeout=120)
