import math
from dataclasses import replace

import pytest
import torch

from kg4d.geometry.rotations import quat_rotate
from kg4d.lift.settings import LiftConfig
from kg4d.lift.solve import lift_keypoints
from kg4d.losses.motion_priors import bone_lengths, geman_mcclure
from tests.lift.bodies import (
    BODY,
    CONFIG,
    FRAMES,
    PARENTS,
    SIZE,
    TIMES,
    bending_limb,
    cameras,
    error,
    lift,
    noisy,
    rotating_body,
    rotation_about,
    seen,
)


@pytest.mark.parametrize("radius", [2.0, 40.0])
def test_a_body_that_rotates_is_lifted_as_far_as_its_bones_determine_it(radius: float) -> None:
    """Bones that meet in one joint may rotate apart: the lift fits pixels and lengths, and is near the truth."""
    truth, view = rotating_body(), cameras(radius)
    found = lift(seen(truth, view), view=view)
    assert error(found, truth) < 0.5 * float((BODY - truth).norm(dim=-1).mean())
    assert float((seen(found.tracks, view) - seen(truth, view)).norm(dim=-1).mean()) < 1.0
    torch.testing.assert_close(bone_lengths(found.tracks, PARENTS), bone_lengths(truth, PARENTS), atol=0.03, rtol=0)
    assert torch.equal(found.tracks[0], BODY)


@pytest.mark.parametrize("radius", [2.0, 40.0])
def test_a_limb_that_bends_is_lifted(radius: float) -> None:
    truth, view = bending_limb(), cameras(radius)
    found = lift(seen(truth, view), view=view)
    assert error(found, truth) < 0.015
    ends = (found.tracks[:, 4] - truth[:, 4]).norm(dim=-1)
    assert float(ends.max()) < 0.06  # it has moved 0.3


def test_a_bone_that_unbends_is_lifted_by_the_plane_it_moves_in() -> None:
    """Like a hind leg: the lower bone hides a joint that is not a keypoint, so its length does not give its depth."""
    axis = (0.6, 0.0, 0.8)
    upper, lower = BODY[3] - BODY[0], BODY[4] - BODY[3]
    across = (lower @ torch.tensor(axis)) * torch.tensor(axis)
    reach = 1 + 0.8 * (math.pi * TIMES).sin()[:, None]
    truth = BODY.repeat(FRAMES, 1, 1)
    truth[:, 3] = quat_rotate(rotation_about(axis, -35.0), upper.expand(FRAMES, 3))
    truth[:, 4] = truth[:, 3] + quat_rotate(rotation_about(axis, -50.0), across + reach * (lower - across))
    pixels = seen(truth, cameras())

    def missed(hinges: float) -> float:
        config = replace(CONFIG, hinges=hinges)
        tracks = [lift(pixels, config=config, seed=seed).tracks for seed in (0, 1)]
        return float((torch.stack(tracks) - truth)[:, :, 4].norm(dim=-1).mean())

    assert missed(CONFIG.hinges) < 0.6 * missed(0.0)


def test_wrong_detections_are_ignored_and_get_no_confidence() -> None:
    truth = rotating_body()
    pixels = seen(truth, cameras())
    wrong = torch.zeros(FRAMES, 5, dtype=torch.bool)
    wrong[[2, 4, 5, 7], [1, 4, 2, 0]] = True
    g = torch.Generator().manual_seed(1)
    found = lift(torch.where(wrong[..., None], pixels + 60 * torch.randn(FRAMES, 5, 2, generator=g).sign(), pixels))
    assert float((seen(found.tracks, cameras()) - pixels).norm(dim=-1).mean()) < 3.0
    assert float(found.detection_confidence[wrong].max()) < 0.1
    assert float(found.detection_confidence[~wrong].median()) > 0.8


def test_noisier_detections_get_less_confidence() -> None:
    pixels = seen(rotating_body(), cameras())
    levels = [lift(noisy(pixels, deviation)).overall_confidence for deviation in (0.0, 2.0, 6.0)]
    assert levels[0] > 0.8
    assert levels[2] < 0.3
    assert levels == sorted(levels, reverse=True)


def test_the_confidence_in_a_detection_is_its_weight_in_the_gradient_of_the_robust_loss() -> None:
    pixels = noisy(seen(rotating_body(), cameras()), 3.0)
    found = lift(pixels)
    squared = ((seen(found.tracks, cameras()) - pixels) / SIZE).square().sum(-1).requires_grad_()
    (slope,) = torch.autograd.grad(geman_mcclure(squared, CONFIG.last_scale).sum(), squared)
    kept = found.detection_confidence > 0
    assert int(kept.sum()) > 30
    torch.testing.assert_close(found.detection_confidence[kept], slope[kept], rtol=1e-4, atol=1e-5)


def test_where_detections_are_noisy_the_body_stays_as_far_away_as_it_was() -> None:
    truth = rotating_body()
    pixels = noisy(seen(truth, cameras()), 4.0)

    def drift(body_depth: float) -> float:
        found = lift(pixels, config=replace(CONFIG, body_depth=body_depth))
        return float((found.tracks - truth).mean(1)[:, 2].square().mean().sqrt())

    assert drift(0.05) < 0.6 * drift(math.inf)


def test_a_keypoint_that_is_never_seen_follows_its_neighbours() -> None:
    truth = BODY + TIMES[:, None, None] * torch.tensor([0.3, -0.2, 0.0])
    weights = torch.ones(FRAMES, 5)
    weights[:, 2] = 0
    pixels = seen(truth, cameras())
    pixels[:, 2] = torch.nan
    found = lift(pixels, weights)
    assert float((found.tracks[:, 2] - truth[:, 2]).norm(dim=-1).max()) < 0.08  # it has moved 0.36
    assert torch.equal(found.detection_confidence[:, 2], torch.zeros(FRAMES))


def test_gaps_are_filled() -> None:
    truth = rotating_body()
    weights = (torch.rand(FRAMES, 5, generator=torch.Generator().manual_seed(2)) > 0.3).float()
    pixels = seen(truth, cameras())
    found = lift(torch.where(weights[..., None] > 0, pixels, torch.nan), weights)
    off = (seen(found.tracks, cameras()) - pixels).norm(dim=-1)
    assert float(off[weights == 0].mean()) < 5.0
    assert float(off.max()) < 15.0  # the body moves by up to 60 px


def test_what_is_not_seen_at_all_stays_where_it_was() -> None:
    found = lift(torch.full((FRAMES, 5, 2), torch.nan), torch.zeros(FRAMES, 5))
    assert torch.equal(found.detection_confidence, torch.zeros(FRAMES, 5))
    torch.testing.assert_close(found.tracks, BODY.expand(FRAMES, -1, -1), atol=1e-3, rtol=0)


def test_points_without_bones_go_where_the_pixels_say() -> None:
    truth = BODY + TIMES[:, None, None] * torch.tensor([0.2, 0.1, 0.0])
    pixels = seen(truth, cameras())
    found = lift_keypoints(
        CONFIG,
        rest=BODY,
        parents=torch.full((5,), -1),
        pixels=pixels,
        weights=torch.ones(FRAMES, 5),
        cameras=cameras(),
        times=TIMES,
        generator=torch.Generator().manual_seed(0),
    )
    assert float((seen(found.tracks, cameras()) - pixels).norm(dim=-1).max()) < 3.0


def test_it_is_the_same_for_the_same_seed_and_at_any_image_size() -> None:
    truth, config = rotating_body(), replace(CONFIG, steps=30)
    pixels = seen(truth, cameras())
    first = lift(pixels, config=config)
    assert torch.equal(first.tracks, lift(pixels, config=config).tracks)
    assert not torch.equal(first.tracks, lift(pixels, config=config, seed=1).tracks)
    doubled = lift(2 * pixels, view=cameras().resized(2 * SIZE, 2 * SIZE), config=config)
    torch.testing.assert_close(doubled.tracks, first.tracks, atol=1e-3, rtol=0)


def test_a_single_frame_is_at_rest() -> None:
    found = lift_keypoints(
        CONFIG,
        rest=BODY,
        parents=PARENTS,
        pixels=seen(BODY[None], cameras()[:1]),
        weights=torch.ones(1, 5),
        cameras=cameras()[:1],
        times=TIMES[:1],
        generator=torch.Generator(),
    )
    assert torch.equal(found.tracks, BODY[None])


def test_tracks_get_less_confidence_where_nothing_is_seen_and_where_detections_are_noisy() -> None:
    pixels, weights = seen(rotating_body(), cameras()), torch.ones(FRAMES, 5)
    weights[:, 4] = 0
    clean, rough = lift(pixels, weights), lift(noisy(pixels, 4.0), weights)
    assert torch.equal(
        clean.track_confidence[0], torch.full((5,), clean.overall_confidence)
    )  # at rest all hypotheses agree
    assert float(clean.track_confidence[-1, 4]) < 0.6 * float(clean.track_confidence[-1, :4].min())
    assert float(rough.track_confidence.mean()) < 0.7 * float(clean.track_confidence.mean())


@pytest.mark.parametrize(
    "name",
    [
        "doubt",
        "body_depth",
        "first_bones",
        "last_bones",
        "first_scale",
        "last_scale",
        "surface_scale",
        "sigma",
        "stretch",
        "bend",
    ],
)
def test_lengths_and_weights_of_bones_are_positive(name: str) -> None:
    with pytest.raises(ValueError, match=rf"lift\.{name}: must be above 0, not 0"):
        LiftConfig(**{name: 0.0})


def test_the_factor_of_exact_detections_is_at_least_one() -> None:
    with pytest.raises(ValueError, match=r"lift\.exact: must be at least 1, not 0\.5"):
        LiftConfig(exact=0.5)


def test_there_is_at_least_one_hypothesis() -> None:
    with pytest.raises(ValueError, match=r"lift\.hypotheses: must be at least 1, not 0"):
        LiftConfig(hypotheses=0)


@pytest.mark.parametrize("name", ["steps", "surface", "mirrors", "trial_steps"])
def test_counts_of_the_lift_are_not_negative(name: str) -> None:
    with pytest.raises(ValueError, match=rf"lift\.{name}: must be at least 0, not -1"):
        LiftConfig(**{name: -1})


def test_a_bone_that_leans_either_way_goes_where_a_detector_says() -> None:
    """Seen from far away the limb, which starts in the image plane, swings towards the camera or away from it."""
    rest = torch.tensor([[0.0, 0.4, 0.0], [0.0, 0.0, 0.0], [0.0, -0.4, 0.0]])
    parents, view, sides = torch.tensor([-1, 0, 1]), cameras(radius=200.0), []
    swung = rest.repeat(FRAMES, 1, 1)
    swung[:, 2] = rest[1] + quat_rotate(rotation_about((1.0, 0.0, 0.0), 60.0), rest[2] - rest[1])
    for side in (1.0, -1.0):
        leans = torch.zeros(FRAMES, 3)
        leans[1:, 2] = 0.8 * side
        found = lift_keypoints(
            CONFIG,
            rest=rest,
            parents=parents,
            pixels=seen(swung, view),
            weights=torch.ones(FRAMES, 3),
            cameras=view,
            times=TIMES,
            generator=torch.Generator().manual_seed(0),
            leans=leans,
        )
        sides.append(float((found.tracks[-1, 2] - found.tracks[-1, 1]) @ view.viewmats[-1, 2, :3]))
    assert sides[0] > 0.25
    assert sides[1] < -0.25
