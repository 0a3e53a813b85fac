import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kg4d.geometry.rotations import quat_rotate
from kg4d.keypoints.sides import other_sides
from kg4d.lift.gait import find_gait
from kg4d.lift.settings import LiftConfig
from kg4d.lift.solve import lift_keypoints
from kg4d.lift.surface import SurfaceTracks
from tests import make

FRAMES = 16
TIMES = torch.arange(FRAMES) / (FRAMES - 1)
NAMES = ["neck", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"]
PARENTS = torch.tensor([-1, 0, 0, 1, 2, 3, 4])
TRUNK = torch.tensor([[0.0, 0.5, 0.0], [0.2, 0.4, 0.05], [-0.2, 0.4, 0.05]])
EVERYTHING = torch.ones(FRAMES, 7)


def walker(lag: int = 8, period: float = 16.0) -> Tensor:
    """Arms that swing, the left one `lag` frames behind the right one; the bones of one side mirror the other's."""
    frames = torch.arange(FRAMES)

    def arm(side: float, behind: int) -> tuple[Tensor, Tensor]:
        angle = 0.6 * (2 * math.pi * (frames - behind) / period).sin()
        upper = 0.25 * torch.stack([torch.full_like(angle, 0.2 * side), -angle.cos(), angle.sin()], dim=-1)
        bent = angle + 0.3 + 0.3 * (2 * math.pi * (frames - behind) / period).cos()
        return upper, 0.2 * torch.stack([torch.full_like(bent, 0.1 * side), -bent.cos(), bent.sin()], dim=-1)

    (left, left_lower), (right, right_lower) = arm(1.0, lag), arm(-1.0, 0)
    trunk = TRUNK.expand(FRAMES, 3, 3)
    elbows = torch.stack([trunk[:, 1] + left, trunk[:, 2] + right], dim=1)
    return torch.cat([trunk, elbows, elbows + torch.stack([left_lower, right_lower], dim=1)], dim=1)


def tumbling(tracks: Tensor) -> Tensor:
    """The same body while it rotates and moves elsewhere."""
    half = 0.4 * TIMES
    quats = torch.stack([half.cos(), 0.6 * half.sin(), 0.8 * half.sin(), 0 * half], dim=-1)
    return quat_rotate(quats[:, None].expand(-1, tracks.shape[1], -1), tracks) + TIMES[:, None, None]


def hidden_arm() -> Tensor:
    weights = EVERYTHING.clone()
    weights[3:10, [3, 5]] = 0
    return weights


@pytest.mark.parametrize(("lag", "period"), [(8, 16.0), (5, 10.0)])
def test_the_other_side_shows_bones_that_are_hidden(lag: int, period: float) -> None:
    truth, weights = tumbling(walker(lag, period)), hidden_arm()
    wrong = truth.clone()
    wrong[3:10, [3, 5]] += torch.randn(7, 2, 3, generator=torch.Generator().manual_seed(0))
    gait = find_gait(wrong, PARENTS, other_sides(NAMES), weights)
    assert gait is not None
    assert gait.lag == lag
    assert gait.error < 1e-5
    assert not gait.hidden[[*range(3), *range(10, FRAMES)]].any()  # these were seen themselves
    bones = truth[:, gait.children] - truth[:, PARENTS[gait.children]]
    torch.testing.assert_close(gait.bones[gait.hidden], bones[gait.hidden], atol=1e-5, rtol=0)
    hidden = gait.hidden[3:10][:, [gait.children.tolist().index(3), gait.children.tolist().index(5)]]
    assert bool(hidden[: FRAMES - lag - 3].all())


def test_sides_that_move_differently_have_no_gait() -> None:
    truth = walker()
    truth[:, [3, 5]] = walker(period=6.0)[:, [3, 5]]
    assert find_gait(truth, PARENTS, other_sides(NAMES), hidden_arm()) is None
    g = torch.Generator().manual_seed(1)
    still = walker(period=math.inf) + 0.01 * torch.randn(FRAMES, 7, 3, generator=g)  # noise is no gait
    assert find_gait(still, PARENTS, other_sides(NAMES), hidden_arm()) is None


def test_sides_that_move_in_step_have_no_gait() -> None:
    assert find_gait(walker(lag=0), PARENTS, other_sides(NAMES), hidden_arm()) is None
    assert find_gait(walker(lag=1), PARENTS, other_sides(NAMES), hidden_arm()) is None


def test_without_sides_or_where_too_little_was_seen_there_is_no_gait() -> None:
    assert find_gait(walker(), PARENTS, [-1] * 7, EVERYTHING) is None
    assert find_gait(walker(), torch.full((7,), -1), other_sides(NAMES), EVERYTHING) is None
    weights = EVERYTHING.clone()
    weights[2:, [4, 6]] = 0
    assert find_gait(walker(), PARENTS, other_sides(NAMES), weights) is None


@pytest.mark.slow
def test_a_hidden_arm_is_lifted_to_where_it_swings() -> None:
    truth, weights = walker(), hidden_arm()
    view = make.cameras([90.0], [10.0], size=256)[torch.zeros(FRAMES, dtype=torch.int64)]
    pixels = torch.stack([view[t].project(truth[t]).pixels[0] for t in range(FRAMES)])
    beside = torch.tensor([[0.0, 0.02, 0.04], [0.02, 0.0, -0.04], [-0.02, 0.02, 0.03]])
    points = truth[:, :3] + beside
    surface = SurfaceTracks(
        points[0], torch.stack([view[t].project(points[t]).pixels[0] for t in range(FRAMES)]), torch.ones(FRAMES, 3)
    )

    def error_and_confidence(gait: float, names: list[str], steps: int = 150) -> tuple[float, float]:
        config = LiftConfig(steps=steps, hypotheses=3, trial_steps=0)
        found = lift_keypoints(
            replace(config, gait=gait),
            rest=truth[0],
            parents=PARENTS,
            pixels=pixels,
            weights=weights,
            cameras=view,
            times=TIMES,
            generator=torch.Generator().manual_seed(0),
            surface=surface,
            counterparts=other_sides(names),
        )
        error = (found.tracks - truth).norm(dim=-1)
        return float(error[3:10, [3, 5]].mean()), float(found.track_confidence[3:10, [3, 5]].mean())

    with_gait, plain = error_and_confidence(1.0, NAMES), error_and_confidence(0.0, NAMES)
    assert with_gait[0] < 0.5 * plain[0]
    assert with_gait[1] > plain[1]
    without_sides = [str(joint) for joint in range(7)]
    assert error_and_confidence(1.0, without_sides, steps=20) == error_and_confidence(0.0, NAMES, steps=20)


@pytest.mark.slow
def test_frames_that_are_not_evenly_spaced_show_no_gait(caplog: pytest.LogCaptureFixture) -> None:
    """A lag of so many frames is no period there."""
    caplog.set_level("INFO")
    truth, view = walker(), make.cameras([0.0], [10.0], size=128)
    for times in (TIMES, TIMES**1.2):
        lift_keypoints(
            LiftConfig(steps=2, hypotheses=1, gait=1.0),
            rest=truth[0],
            parents=PARENTS,
            pixels=view.project(truth.flatten(0, 1)).pixels[0].unflatten(0, truth.shape[:2]),
            weights=EVERYTHING,
            cameras=view[torch.zeros(FRAMES, dtype=torch.int64)],
            times=times,
            generator=torch.Generator().manual_seed(0),
            surface=SurfaceTracks(truth[0, :2], torch.zeros(FRAMES, 2, 2), torch.zeros(FRAMES, 2)),
            counterparts=other_sides(NAMES),
        )
        assert ("not evenly spaced" in caplog.text) is (times is not TIMES)
