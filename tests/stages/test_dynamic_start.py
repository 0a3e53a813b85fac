"""The dynamic stage that starts at a lift."""

from pathlib import Path
from typing import Any

import torch

from kg4d.data.records import PosedImages, Scene
from kg4d.deform.settings import SkinnedConfig
from kg4d.deform.skinned import SkinnedDeformation
from kg4d.gaussians.model import GaussianModel
from kg4d.geometry.orbits import orbit
from kg4d.lift.record import Lift
from kg4d.lift.seeding import Skeleton
from kg4d.lift.settings import LiftConfig
from kg4d.optim.settings import OptimizerConfig
from kg4d.render.build import build_renderer
from kg4d.representation.canonical import CanonicalGaussians
from kg4d.stages.dynamic import DynamicStage, MotionLosses
from kg4d.stages.dynamic_start import MotionProblem, lift_video
from kg4d.stages.settings import DynamicConfig
from tests import make

FRAMES, SIZE = 5, 16
TIMES = torch.arange(FRAMES) / (FRAMES - 1)
REST = torch.tensor([[0.0, -0.3, 0.0], [0.0, 0.1, 0.0], [0.4, 0.1, 0.0]])  # trunk, shoulder, hand


def problem() -> MotionProblem:
    cameras = orbit([0.0], [0.0], 3.0, 40.0, SIZE, SIZE)[torch.zeros(FRAMES, dtype=torch.int64)]
    frames = torch.arange(FRAMES)
    images = PosedImages(cameras, torch.zeros(FRAMES, SIZE, SIZE, 4), TIMES, frames, torch.zeros_like(frames))
    return MotionProblem(
        Scene("figure", images),
        Skeleton(torch.ones(3, dtype=torch.bool), torch.tensor([-1, 0, 1]), REST),
        build_renderer("reference"),
        torch.ones(3),
        DynamicConfig(steps=3),
        MotionLosses(lift_weight=1.0),
        LiftConfig(),
        OptimizerConfig(),
        gaussian_rates=None,
        seed=0,
    )


def gaussians() -> CanonicalGaussians:
    model = GaussianModel.from_state(make.gaussians(REST, scales=torch.full((3, 3), 0.1), keypoint_logits=torch.eye(3)))
    return CanonicalGaussians(model, SkinnedDeformation(SkinnedConfig(), 3), 0.1)


def raised(height: float) -> Lift:
    """The hand rises steadily."""
    tracks = REST.repeat(FRAMES, 1, 1)
    tracks[:, 2, 1] += height * TIMES
    return Lift(tracks, torch.ones(FRAMES, 3), torch.ones(FRAMES, 3), 1.0)


def test_the_motion_starts_at_the_tracks() -> None:
    start, lift = gaussians(), raised(0.3)
    problem().stage(start, lift)
    with torch.no_grad():
        torch.testing.assert_close(start.keypoints(TIMES), lift.tracks, atol=1e-5, rtol=0)


def test_without_a_lift_it_starts_at_rest() -> None:
    start = gaussians()
    problem().stage(start, None)
    with torch.no_grad():
        torch.testing.assert_close(start.keypoints(TIMES), REST.expand(FRAMES, -1, -1), atol=1e-5, rtol=0)


def test_a_video_without_keypoints_is_not_lifted() -> None:
    assert lift_video(problem(), gaussians()) is None


def test_a_fit_that_goes_on_keeps_the_lift_it_began_with(tmp_path: Path) -> None:
    begun, again = (problem().stage(gaussians(), raised(height)) for height in (0.3, -0.3))
    kept: dict[str, Any] = {}
    begun.on_save_checkpoint(kept)
    torch.save(kept, tmp_path / "part.ckpt")
    again.on_load_checkpoint(torch.load(tmp_path / "part.ckpt", weights_only=True))
    assert isinstance(again, DynamicStage)
    assert again.lift is not None
    assert torch.equal(again.lift.tracks, raised(0.3).tracks)
    assert again.lift.overall_confidence == 1.0
