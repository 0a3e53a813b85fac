from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kg4d.gaussians.model import GaussianModel
from kg4d.gaussians.moving import MovingGaussians
from kg4d.render.base import RasterOptions, RenderOutput
from kg4d.render.build import build_renderer
from kg4d.stages.density import DensityControl, DensityReport
from kg4d.stages.settings import DensityConfig, DensityKind
from tests import make

ADAPTIVE = DensityConfig(kind=DensityKind.ADAPTIVE, grad_threshold=0.1, split_scale=0.5)


def rendered(gradients: Tensor, seen: Tensor | None = None, size: tuple[int, int] = (10, 20)) -> RenderOutput:
    """An output of C cameras whose centres have those gradients, (C, N, 2), in loss per px."""
    cameras, count, _ = gradients.shape
    means2d = torch.zeros(cameras, count, 2, requires_grad=True)
    means2d.grad, means2d.absgrad = gradients, 2 * gradients.abs()
    radii = torch.ones(cameras, count, 2, dtype=torch.int32)
    if seen is not None:
        radii[~seen] = 0
    image = torch.zeros(cameras, *size, 3)
    return RenderOutput(image, image[..., :1], None, means2d, radii, RasterOptions(), None)


def gaussians(opacities: list[float], scales: list[float] | None = None) -> tuple[GaussianModel, torch.optim.Adam]:
    state = make.random_gaussians(len(opacities))
    state.opacities[:] = torch.tensor(opacities)
    state.scales[:] = 1.0 if scales is None else torch.tensor(scales)[:, None]
    model = GaussianModel.from_state(state)
    return model, make.trained_optimizer(model, steps=0)


def gradients(*norms: float) -> Tensor:
    """One camera, 20 px wide: these norms in the unit of the threshold, along x."""
    return torch.tensor([[[norm / 10, 0.0] for norm in norms]])


def test_gradients_of_moved_centres_are_those_of_their_pixels() -> None:
    """Round and small Gaussians, whose picture moves with the centre and hardly changes else."""
    state, views, renderer = make.blobs(), make.cameras((0.0, 30.0), size=(24, 18)), build_renderer("reference")
    state = replace(state, scales=torch.full_like(state.scales, 0.02))
    config = DensityConfig(kind=DensityKind.ADAPTIVE)
    means = state.means.expand(2, -1, -1).clone().requires_grad_()
    moving = replace(MovingGaussians.still(state, 2), means=means)
    weights = torch.randn(2, views.height, views.width, 3, generator=torch.Generator().manual_seed(0))
    output = renderer.frames(moving, views)
    (output.image * weights).sum().backward()
    by_centres = DensityControl(config, 10)
    by_centres.after_frames(moving, views, output)
    by_pixels = DensityControl(config, 10)
    for frame in range(2):
        drawn = renderer(replace(moving.at(frame).detach(), means=means[frame].detach().requires_grad_()), views[frame])
        (drawn.image * weights[frame]).sum().backward()
        by_pixels.after_backward(drawn)
    assert torch.equal(by_centres.visits, by_pixels.visits)
    expected = 2 * by_pixels.gradient_sums  # a mean over two cameras would have half of each
    torch.testing.assert_close(by_centres.gradient_sums, expected, rtol=0.05, atol=1e-3)


def control_steps(config: DensityConfig, steps: int) -> list[int]:
    """The steps at which a Gaussian that is always dead is relocated."""
    control, hits = DensityControl(config, steps), []
    model, optimizer = gaussians([0.9, 0.001])
    for step in range(steps):
        with torch.no_grad():
            model.opacity_logits.copy_(torch.tensor([2.0, -7.0]))
        if control.after_step(step, model, optimizer, torch.Generator().manual_seed(0)).relocated:
            hits.append(step)
    return hits


def test_the_default_schedule_is_a_share_of_the_stage() -> None:
    assert control_steps(DensityConfig(), 500) == [100, 150, 200, 250, 300, 350]
    assert control_steps(DensityConfig(), 1000) == [200, 300, 400, 500, 600, 700]
    assert control_steps(DensityConfig(), 10) == [2, 3, 4, 5, 6, 7]


def test_relocation_reuses_the_transparent_and_keeps_the_number() -> None:
    model, optimizer = gaussians([0.9, 0.019, 0.021, 0.001])
    control = DensityControl(DensityConfig(), 500)
    report = control.after_step(100, model, optimizer, torch.Generator().manual_seed(0))
    assert report == DensityReport(relocated=2)
    assert len(model) == 4
    assert model.state().opacities.min() > 0.02


def test_none_does_nothing() -> None:
    model, optimizer = gaussians([0.9, 0.001])
    control = DensityControl(DensityConfig(kind=DensityKind.NONE), 500)
    assert not any(control.after_step(100, model, optimizer, torch.Generator()))
    assert len(model) == 2


def test_adaptive_duplicates_small_splits_large_and_removes_transparent() -> None:
    model, optimizer = gaussians([0.5, 0.5, 0.5, 0.001], scales=[0.1, 1.0, 1.0, 0.1])
    with torch.no_grad():
        model.keypoint_logits[:, 0] = torch.arange(4)
    control = DensityControl(ADAPTIVE, 500)
    control.after_backward(rendered(gradients(0.2, 0.2, 0.05, 9.0)))
    report = control.after_step(100, model, optimizer, torch.Generator().manual_seed(0))
    assert report == DensityReport(duplicated=1, split=1, removed=1)
    assert sorted(model.keypoint_logits[:, 0].tolist()) == [0, 0, 1, 1, 2]
    assert control.gradient_sums.tolist() == [0] * 5


def test_gradients_are_means_over_the_cameras_that_see_a_gaussian() -> None:
    control = DensityControl(ADAPTIVE, 500)
    both = torch.cat([gradients(0.3, 0.3), gradients(0.1, 9.0)]) / 2  # a loss that is a mean over two cameras
    control.after_backward(rendered(both, seen=torch.tensor([[True, True], [True, False]])))
    control.after_backward(rendered(gradients(0.2, 0.3)))
    torch.testing.assert_close(control.gradient_sums / control.visits, torch.tensor([0.2, 0.3]))


def test_the_threshold_does_not_depend_on_the_image_size() -> None:
    sums = []
    for factor in (1, 4):  # the same loss over a finer grid: a pixel is 1 / factor as far
        control = DensityControl(ADAPTIVE, 500)
        control.after_backward(rendered(gradients(0.2) / factor, size=(10 * factor, 20 * factor)))
        sums.append(control.gradient_sums)
    torch.testing.assert_close(*sums)


def test_absolute_gradients_are_used_when_asked_for() -> None:
    control = DensityControl(replace(ADAPTIVE, absgrad=True), 500)
    assert control.wants_absgrad
    control.after_backward(rendered(gradients(0.2)))
    torch.testing.assert_close(control.gradient_sums, torch.tensor([0.4]))
    assert not DensityControl(replace(ADAPTIVE, absgrad=True, kind=DensityKind.RELOCATE), 500).wants_absgrad


def test_growth_stops_at_the_cap_and_prefers_the_largest_gradients() -> None:
    model, optimizer = gaussians([0.5] * 4, scales=[0.1] * 4)
    with torch.no_grad():
        model.keypoint_logits[:, 0] = torch.arange(4)
    control = DensityControl(replace(ADAPTIVE, max_count=6), 500)
    control.after_backward(rendered(gradients(0.3, 0.9, 0.2, 0.8)))
    report = control.after_step(100, model, optimizer, torch.Generator().manual_seed(0))
    assert report.duplicated == 2
    assert model.keypoint_logits[4:, 0].tolist() == [1, 3]
    control.after_backward(rendered(gradients(*[9.0] * 6)))
    assert not any(control.after_step(150, model, optimizer, torch.Generator().manual_seed(0)))


def test_decay_does_not_save_the_dead_from_removal() -> None:
    model, optimizer = gaussians([0.5, 0.006, 0.012])
    config = replace(ADAPTIVE, opacity_threshold=0.01, opacity_decay=0.001, opacity_floor=0.01)
    control = DensityControl(config, 500)
    assert control.after_step(100, model, optimizer, torch.Generator()).removed == 1
    torch.testing.assert_close(model.state().opacities, torch.tensor([0.499, 0.011]))


def test_resets_come_at_their_own_distance_and_kill_none() -> None:
    config = replace(ADAPTIVE, start=0.2, stop=0.8, every=0.2, opacity_reset_every=0.3)
    control = DensityControl(config, 100)
    for step, expected in ((20, 0.5), (50, 0.04), (60, 0.04)):
        model, optimizer = gaussians([0.5, 0.04] if step != 60 else [0.04, 0.04])
        control.after_step(step, model, optimizer, torch.Generator())
        assert len(model) == 2
        torch.testing.assert_close(model.state().opacities.max(), torch.tensor(expected))


@pytest.mark.parametrize("scale", [0.1, 1.0], ids=["duplicated", "split"])
def test_growing_after_a_reset_kills_none(scale: float) -> None:
    """A reset leaves .04, a few steps may take some of it; halves of .015 would be removed by the next edit."""
    model, optimizer = gaussians([0.03, 0.025], scales=[scale] * 2)
    control = DensityControl(ADAPTIVE, 500)
    control.after_backward(rendered(gradients(9.0, 9.0)))
    assert control.after_step(100, model, optimizer, torch.Generator().manual_seed(0)).removed == 0
    assert len(model) == 4
    assert control.after_step(150, model, optimizer, torch.Generator().manual_seed(0)).removed == 0


def test_a_restored_control_goes_on_exactly() -> None:
    first, second = DensityControl(ADAPTIVE, 500), DensityControl(ADAPTIVE, 500)
    first.after_backward(rendered(gradients(0.06, 0.06)))
    second.load_state_dict(first.state_dict())
    for control in (first, second):
        control.after_backward(rendered(gradients(0.05, 0.3)))
    assert torch.equal(first.gradient_sums, second.gradient_sums)
    assert second.visits.tolist() == [2, 2]


def test_growing_model_trains_on() -> None:
    """Edits between real optimiser steps, through a graph that is still alive."""
    model, _ = gaussians([0.5] * 3, scales=[0.1, 1.0, 1.0])
    optimizer = make.trained_optimizer(model, steps=1)
    control = DensityControl(ADAPTIVE, 10)
    alive = model.state().means.sum()
    for step in range(1, 6):
        optimizer.zero_grad()
        model.state().means.square().sum().backward()
        control.after_backward(rendered(gradients(*[0.2] * len(model))))
        optimizer.step()
        control.after_step(step, model, optimizer, torch.Generator().manual_seed(step))
    assert len(model) == 3 * 2**4
    assert alive.isfinite()


@pytest.mark.parametrize("bad", [{"start": 0.8}, {"stop": 1.2}, {"every": 0.0}, {"opacity_reset_every": -0.1}])
def test_a_schedule_that_cannot_be_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="density"):
        DensityControl(replace(DensityConfig(), **bad), 100)
