"""Images decide on which side of the depth ambiguity an arm is."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kg4d.data.batches.dynamic import DynamicDataset
from kg4d.data.batches.settings import DynamicDataConfig
from kg4d.data.records import PosedImages, Scene
from kg4d.deform.settings import SkinnedConfig
from kg4d.deform.skinned import SkinnedDeformation
from kg4d.gaussians.model import GaussianModel
from kg4d.geometry.orbits import orbit
from kg4d.geometry.rotations import quat_rotate
from kg4d.keypoints.motion import KeypointMotion
from kg4d.lift.record import Lift
from kg4d.lift.seeding import Skeleton
from kg4d.lift.settings import LiftConfig
from kg4d.optim.settings import OptimizerConfig
from kg4d.render.build import build_renderer
from kg4d.representation.canonical import CanonicalGaussians
from kg4d.stages.dynamic import DynamicStage, MotionLosses
from kg4d.stages.dynamic_start import MotionProblem, Trial, preferred, seen_about, tried
from kg4d.stages.settings import DynamicConfig
from tests import make

FRAMES, SIZE = 5, 32
TIMES = torch.arange(FRAMES) / (FRAMES - 1)
REST = torch.tensor([[0.0, -0.3, 0.0], [0.0, 0.1, 0.0], [0.4, 0.1, 0.0]])  # trunk, shoulder, hand
PARENTS = torch.tensor([-1, 0, 1])
# from far away, with a narrow field of view, an arm in front of the body and one behind it have the same pixels
CAMERAS = orbit([0.0], [0.0], 40.0, 1.6, SIZE, SIZE)[torch.zeros(FRAMES, dtype=torch.int64)]
WHITE = torch.ones(3)


def figure() -> GaussianModel:
    """A red trunk and a blue arm that points to the side."""
    up = torch.linspace(-0.35, 0.15, 12)
    trunk = torch.stack([torch.zeros(12), up, torch.zeros(12)], dim=-1)
    along = torch.linspace(0.1, 1.0, 12)[:, None]
    arm = REST[1] + along * (REST[2] - REST[1])
    return GaussianModel.from_state(
        make.gaussians(
            torch.cat([trunk, arm]),
            scales=torch.cat([torch.full((12, 3), 0.08), torch.full((12, 3), 0.03)]),
            opacities=0.95,
            colors=torch.tensor([[0.9, 0.1, 0.1]] * 12 + [[0.1, 0.1, 0.9]] * 12),
            keypoint_logits=torch.zeros(24, 3),
        )
    )


def swing(degrees: float) -> Lift:
    """The arm turns about the vertical: towards the camera or, by a negative angle, away from it."""
    half = torch.deg2rad(-degrees * TIMES) / 2
    quats = torch.stack([half.cos(), torch.zeros(FRAMES), half.sin(), torch.zeros(FRAMES)], dim=-1)
    tracks = REST.repeat(FRAMES, 1, 1)
    tracks[:, 2] = REST[1] + quat_rotate(quats, (REST[2] - REST[1]).expand(FRAMES, 3))
    return Lift(tracks, torch.ones(FRAMES, 3), torch.ones(FRAMES, 3), 1.0)


class Trials:
    """Stages from a lift, and the video that they see: the arm comes towards the camera."""

    def __init__(self, steps: int = 12) -> None:
        self.model, self.renderer, self.begun = figure(), build_renderer("reference"), 0
        self.skeleton = Skeleton(torch.ones(3, dtype=torch.bool), PARENTS, REST)
        self.config = DynamicConfig(steps=steps)
        self.scene = self.video(swing(110.0))
        self.batch = DynamicDataset(self.scene, DynamicDataConfig(), WHITE, 0).batch

    def moved(self, lift: Lift) -> CanonicalGaussians:
        model = CanonicalGaussians(copy.deepcopy(self.model), SkinnedDeformation(SkinnedConfig(), 3), 0.1)
        model.start(KeypointMotion(TIMES, REST, lift.tracks, PARENTS, self.skeleton.known))
        return model

    @torch.no_grad()
    def video(self, lift: Lift) -> Scene:
        states = self.moved(lift).states(TIMES).states()
        drawn = [self.renderer(states[t], CAMERAS[t], background=WHITE) for t in range(FRAMES)]
        alphas = torch.cat([output.alpha for output in drawn])
        premultiplied = torch.cat([output.image for output in drawn]) - (1 - alphas)
        images = torch.cat([premultiplied / alphas.clamp_min(1e-6), alphas], dim=-1)
        frames = torch.arange(FRAMES)
        return Scene("figure", PosedImages(CAMERAS, images, TIMES, frames, torch.zeros_like(frames)))

    def stage_from(self, lift: Lift) -> DynamicStage:
        problem = MotionProblem(
            self.scene,
            self.skeleton,
            self.renderer,
            WHITE,
            self.config,
            MotionLosses(lift_weight=1.0),
            LiftConfig(),
            OptimizerConfig(),
            gaussian_rates=None,
            seed=0,
        )
        start = CanonicalGaussians(copy.deepcopy(self.model), SkinnedDeformation(SkinnedConfig(), 3), 0.1)
        return problem.stage(start, lift)

    def trial_of(self, lift: Lift) -> Trial:
        self.begun += 1
        return tried(self.stage_from(lift), self.batch, TIMES)

    def preferred(self, lift: Lift, again: Lift | None = None) -> Lift:
        def lifted_from(positions: Tensor) -> Lift:
            assert again is not None, "nothing should be lifted again"
            assert positions.shape == (FRAMES, 3, 3)
            return again

        return preferred(lift, self.trial_of, lifted_from)


def test_the_image_loss_tells_an_arm_before_the_body_from_one_behind_it() -> None:
    trials = Trials()
    right, wrong = (trials.trial_of(swing(a)).image_loss for a in (110.0, -110.0))
    assert right < 0.5 * wrong


def test_a_trial_moves_the_keypoints_from_the_lift_to_where_the_images_are() -> None:
    trials, truth = Trials(steps=40), swing(110.0).tracks
    near = swing(90.0)
    positions = trials.trial_of(near).positions
    assert torch.equal(positions[0], REST)
    assert float((positions - truth).norm()) < 0.8 * float((near.tracks - truth).norm())


@pytest.mark.parametrize("first", [110.0, -110.0])
def test_the_side_that_the_images_show_is_kept(first: float) -> None:
    trials = Trials()
    kept = trials.preferred(replace(swing(first), rivals=(swing(-first),)))
    assert torch.equal(kept.tracks, swing(110.0).tracks)
    assert trials.begun == 2


def test_a_rival_that_is_hardly_better_does_not_win() -> None:
    trials, lift = Trials(), replace(swing(80.0), rivals=(swing(80.6),))
    ours, its = (trials.trial_of(start).image_loss for start in (lift, lift.rivals[0]))
    assert 0.95 * ours < its < ours
    assert trials.preferred(lift) is lift


def test_a_reliable_lift_without_rivals_is_not_tried() -> None:
    trials, lift = Trials(), swing(-110.0)
    assert trials.preferred(lift) is lift
    assert trials.begun == 0


def test_unreliable_detections_are_lifted_again_and_keep_what_is_known_of_them() -> None:
    rough = replace(swing(-110.0), detection_confidence=torch.full((FRAMES, 3), 0.3), overall_confidence=0.2)
    kept = Trials().preferred(rough, again=swing(110.0))
    assert torch.equal(kept.tracks, swing(110.0).tracks)
    assert torch.equal(kept.detection_confidence, rough.detection_confidence)
    assert kept.overall_confidence == rough.overall_confidence


def test_a_rival_of_what_is_lifted_again_may_win() -> None:
    rough = replace(swing(-110.0), rivals=(swing(-100.0),), overall_confidence=0.2)
    again = replace(swing(-105.0), rivals=(swing(110.0),))
    assert torch.equal(Trials().preferred(rough, again=again).tracks, swing(110.0).tracks)


def test_what_is_lifted_again_and_no_better_or_no_body_is_left() -> None:
    right = replace(swing(110.0), overall_confidence=0.2)
    assert Trials().preferred(right, again=swing(-110.0)) is right
    wrong = replace(swing(-110.0), overall_confidence=0.2)
    assert Trials().preferred(wrong, again=replace(swing(110.0), overall_confidence=0.4)) is wrong


def test_what_a_fit_finds_that_just_goes_on_is_no_merit_of_another_lift() -> None:
    rough = replace(swing(90.0), overall_confidence=0.2)

    def lifted_from(positions: Tensor) -> Lift:
        return replace(rough, tracks=positions, overall_confidence=1.0)

    assert preferred(rough, Trials().trial_of, lifted_from) is rough


def test_a_trial_leaves_no_trace_in_the_stage_that_follows() -> None:
    def loss_of(lift: Lift) -> float:
        trials = Trials(steps=3)
        return trials.trial_of(trials.preferred(lift)).image_loss

    assert loss_of(swing(110.0)) == loss_of(replace(swing(110.0), rivals=(swing(-110.0),)))


def test_a_keypoint_is_taken_to_be_seen_around_its_detections() -> None:
    weights = torch.zeros(8, 2)
    weights[3, 0] = 0.4
    about = seen_about(weights)
    assert about[:, 0].tolist() == [0, 1, 1, 1, 1, 1, 0, 0]
    assert about[:, 1].tolist() == [0] * 8


def test_a_fit_that_goes_on_keeps_the_lift_it_began_with(tmp_path: Path) -> None:
    trials = Trials()
    begun, again = trials.stage_from(swing(110.0)), trials.stage_from(swing(-110.0))
    kept: dict[str, Any] = {}
    begun.on_save_checkpoint(kept)
    torch.save(kept, tmp_path / "part.ckpt")
    again.on_load_checkpoint(torch.load(tmp_path / "part.ckpt", weights_only=True))
    assert again.lift is not None
    assert torch.equal(again.lift.tracks, swing(110.0).tracks)
    assert again.lift.overall_confidence == 1.0
