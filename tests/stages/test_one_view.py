"""What the stages do where a single view leaves things open: backgrounds of their own, and no step for the unseen."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from kg4d.data.batches.refine import RefineDataset
from kg4d.data.batches.settings import DynamicDataConfig, RefineDataConfig
from kg4d.data.batches.static import StaticDataset
from kg4d.deform.identity import Identity
from kg4d.gaussians.model import GaussianModel
from kg4d.losses.settings import KfcConfig, PhotometricConfig
from kg4d.optim.build import build_optimizer
from kg4d.optim.objective import Objective
from kg4d.render.build import build_renderer
from kg4d.render.seen import blending_weights
from kg4d.representation.canonical import CanonicalGaussians
from kg4d.stages.refine import RefineStage
from kg4d.stages.settings import RefineConfig, StaticConfig
from kg4d.stages.static import StaticStage
from tests import make

WHITE = torch.ones(3)


def static_stage(model: GaussianModel, background: Tensor, **photometric: Any) -> StaticStage:
    config = StaticConfig(steps=5, photometric=PhotometricConfig(**photometric))
    return StaticStage(model, build_renderer("reference"), config, KfcConfig(weight=0.0), background, seed=3)


def test_a_step_on_a_background_of_its_own_sees_the_scene_composited_on_it() -> None:
    scene = make.tiny_scene()
    batch = StaticDataset(scene, StaticConfig().data, WHITE, seed=0).batch(2)
    stage = static_stage(GaussianModel.from_state(make.blobs(3 - 1)), WHITE, random_background=True)
    images, background = stage.backdrop(batch.images, batch.alphas, 2, stage.config.photometric)
    again = StaticDataset(scene, StaticConfig().data, background, seed=0).batch(2)
    torch.testing.assert_close(images, again.images, atol=1e-6, rtol=0)
    others = [stage.backdrop(batch.images, batch.alphas, step, stage.config.photometric)[1] for step in (0, 1, 2)]
    assert torch.equal(others[2], background)
    assert len({tuple(colour.tolist()) for colour in others}) == 3


def test_one_degree_of_harmonics_begins_after_the_other() -> None:
    batches = StaticDataset(make.tiny_scene(), StaticConfig().data, WHITE, seed=0)
    model = GaussianModel.from_state(make.random_gaussians(20, sh_degree=3, frames=None, spread=0.2))
    stage = StaticStage(
        model, build_renderer("reference"), StaticConfig(steps=9), KfcConfig(weight=0.0), WHITE, seed=3, sh_warmup=2
    )
    stage.begin()
    for step, count in ((0, 0), (1, 0), (2, 3), (4, 8), (6, 15), (8, 15)):
        model.zero_grad(set_to_none=True)
        objective = Objective(0.0)
        stage.objective(batches.batch(step), objective)
        objective.total.backward()
        gradient = model.harmonics.grad
        learning = [] if gradient is None else gradient.abs().sum((0, 2)).nonzero()[:, 0].tolist()
        assert learning == list(range(count)), step


@pytest.mark.parametrize("random_background", [False, True])
def test_a_white_shell_passes_for_the_background_only_where_that_stays_white(random_background: bool) -> None:
    shell = make.gaussians(torch.zeros(1, 3), scales=torch.full((1, 3), 0.05), opacities=0.5, colors=torch.ones(1, 3))
    shell = replace(shell, means=torch.tensor([[0.6, 0.5, 0.0]]))  # beside the ball, where mattes are empty
    model = GaussianModel.from_state(shell)
    stage = static_stage(model, WHITE, random_background=random_background, alpha=0.0, ssim=0.0)
    scene = replace(make.tiny_scene(), ring=None)
    batch = StaticDataset(scene, StaticConfig().data, WHITE, seed=0).batch(0)
    stage.begin()
    objective = Objective(0.0)
    stage.objective(batch, objective)
    objective.total.backward()
    fades = model.opacity_logits.grad.item() > 1e-6
    assert fades is random_background


def test_colours_that_no_frame_shows_stay_and_get_no_moments() -> None:
    scene = replace(make.tiny_scene(), ring=None)
    means = torch.tensor([[0.0, 0.0, 0.4], [0.0, 0.0, -0.4]])
    state = make.gaussians(means, scales=torch.tensor([[0.3] * 3, [0.05] * 3]), opacities=0.999)
    model = GaussianModel.from_state(state)
    representation = CanonicalGaussians(model, Identity(), 1.0)
    renderer, video = build_renderer("reference"), scene.reference
    seen = blending_weights(renderer, representation.states(video.times), video.cameras)
    before = model.colors.detach().clone()
    moved = []
    for mask in (None, seen):
        with torch.no_grad():
            model.colors.copy_(before)
        stage = RefineStage(representation, renderer, RefineConfig(steps=3, learning_rate=0.01), WHITE, 0, None, mask)
        stage.begin()
        optimizer = build_optimizer(stage.optimizer_config, stage.parameter_groups())
        data = RefineDataset(scene, RefineDataConfig(frames=DynamicDataConfig(frames_per_step=2)), WHITE, 0)
        for step in range(3):
            stage.take_step(data.batch(step), optimizer)
        moved.append((model.colors.detach() - before).abs().amax(1))
    assert seen[1] < 0.5 < seen[0]
    assert moved[0][1] > 0.005  # a whole step, of a gradient of next to nothing
    assert moved[1][1] == 0
    assert moved[1][0] > 0.005
    assert optimizer.state[model.colors]["exp_avg_sq"][1].eq(0).all()
