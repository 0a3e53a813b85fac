import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kg4d.geometry.cameras import Cameras
from kg4d.geometry.orbits import orbit
from kg4d.geometry.rotations import quat_rotate
from kg4d.losses.regularizers import bone_lengths
from kg4d.stages.lift_objective import Body, LiftConfig, LiftObjective, Sight
from kg4d.stages.lifting import Lift, lift_keypoints, turned_limbs
from kg4d.stages.mirrored_limbs import mirrored_limbs
from kg4d.stages.surface import SurfaceTracks

FRAMES, SIZE = 9, 256
TIMES = torch.arange(FRAMES) / (FRAMES - 1)
CONFIG = LiftConfig(steps=150, hypotheses=3)
# a trunk of three joints, and a limb of two bones that hangs on it; every bone leans towards the camera or away from
# it, so that pixels and lengths tell on which side it moves
BODY = torch.tensor([[0.0, 0.0, 0.0], [0.3, 0.0, 0.25], [0.0, 0.4, -0.2], [-0.3, 0.1, 0.2], [-0.3, -0.15, 0.35]])
PARENTS = torch.tensor([-1, 0, 0, 0, 3])


def cameras(radius: float = 2.0) -> Cameras:
    """One that stands still at +Z; from far away with a narrow field of view it is as good as orthographic."""
    fov = 2 * math.degrees(math.atan(math.tan(math.radians(24.5)) * 2 / radius))
    return orbit([0.0], [0.0], radius, fov, SIZE, SIZE)[torch.zeros(FRAMES, dtype=torch.int64)]


def seen(tracks: Tensor, view: Cameras) -> Tensor:
    return torch.stack([view[t].project(tracks[t]).pixels[0] for t in range(len(tracks))])


def turn(axis: tuple[float, float, float], degrees: float) -> Tensor:
    """Quaternions that turn ever further about an axis."""
    half = torch.deg2rad(degrees * TIMES) / 2
    return torch.cat([half.cos()[:, None], half.sin()[:, None] * torch.tensor(axis)], dim=-1)


def turning_body() -> Tensor:
    """The body turns about the vertical, and goes to the side meanwhile."""
    quats = turn((0.0, 1.0, 0.0), 50.0)[:, None].expand(-1, 5, -1)
    return quat_rotate(quats, BODY.expand(FRAMES, -1, -1)) + TIMES[:, None, None] * torch.tensor([0.2, 0.1, 0.0])


def bending_limb() -> Tensor:
    """The trunk stands; the limb's second bone swings towards the camera."""
    tracks = BODY.repeat(FRAMES, 1, 1)
    bone = (BODY[4] - BODY[3]).expand(FRAMES, 3)
    tracks[:, 4] = BODY[3] + quat_rotate(turn((-1.0, 0.0, 0.0), 60.0), bone)
    return tracks


def lift(
    pixels: Tensor,
    weights: Tensor | None = None,
    view: Cameras | None = None,
    config: LiftConfig = CONFIG,
    seed: int = 0,
    surface: SurfaceTracks | None = None,
) -> Lift:
    return lift_keypoints(
        config,
        BODY,
        PARENTS,
        pixels,
        torch.ones(FRAMES, 5) if weights is None else weights,
        cameras() if view is None else view,
        TIMES,
        torch.Generator().manual_seed(seed),
        surface,
    )


def error(found: Lift, truth: Tensor) -> float:
    return float((found.tracks - truth).norm(dim=-1).mean())


@pytest.mark.parametrize("radius", [2.0, 40.0])
def test_a_body_that_turns_is_lifted_as_far_as_its_bones_tell(radius: float) -> None:
    """Bones that meet in one joint may turn apart: what is found fits pixels and lengths, and is near the truth."""
    truth, view = turning_body(), cameras(radius)
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
    """Like a hind leg: the lower bone has a joint that is no keypoint, so its length does not tell its depth."""
    axis = (0.6, 0.0, 0.8)
    upper, lower = BODY[3] - BODY[0], BODY[4] - BODY[3]
    across = (lower @ torch.tensor(axis)) * torch.tensor(axis)
    reach = 1 + 0.8 * (math.pi * TIMES).sin()[:, None]
    truth = BODY.repeat(FRAMES, 1, 1)
    truth[:, 3] = quat_rotate(turn(axis, -35.0), upper.expand(FRAMES, 3))
    truth[:, 4] = truth[:, 3] + quat_rotate(turn(axis, -50.0), across + reach * (lower - across))
    pixels = seen(truth, cameras())

    def missed(hinges: float) -> float:
        config = replace(CONFIG, hinges=hinges)
        tracks = [lift(pixels, config=config, seed=seed).tracks for seed in (0, 1)]
        return float((torch.stack(tracks) - truth)[:, :, 4].norm(dim=-1).mean())

    assert missed(CONFIG.hinges) < 0.6 * missed(0.0)


def test_wrong_detections_are_ignored_and_named() -> None:
    truth = turning_body()
    pixels = seen(truth, cameras())
    wrong = torch.zeros(FRAMES, 5, dtype=torch.bool)
    wrong[[2, 4, 5, 7], [1, 4, 2, 0]] = True
    g = torch.Generator().manual_seed(1)
    found = lift(torch.where(wrong[..., None], pixels + 60 * torch.randn(FRAMES, 5, 2, generator=g).sign(), pixels))
    assert float((seen(found.tracks, cameras()) - pixels).norm(dim=-1).mean()) < 3.0
    assert float(found.trust[wrong].max()) < 0.1
    assert float(found.trust[~wrong].median()) > 0.8


def noisy(pixels: Tensor, deviation: float, seed: int = 3) -> Tensor:
    return pixels + deviation * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(seed))


def test_noisier_detections_are_believed_less() -> None:
    pixels = seen(turning_body(), cameras())
    levels = [lift(noisy(pixels, deviation)).reliability for deviation in (0.0, 2.0, 6.0)]
    assert levels[0] > 0.8
    assert levels[2] < 0.3
    assert levels == sorted(levels, reverse=True)


def test_where_detections_are_noisy_the_body_stays_as_far_away_as_it_was() -> None:
    truth = turning_body()
    pixels = noisy(seen(truth, cameras()), 4.0)

    def drift(body_depth: float) -> float:
        found = lift(pixels, config=replace(CONFIG, body_depth=body_depth))
        return float((found.tracks - truth).mean(1)[:, 2].square().mean().sqrt())

    assert drift(0.05) < 0.6 * drift(math.inf)


def test_what_looks_still_is_held_along_the_view_and_what_moves_is_not() -> None:
    sight = Sight(torch.zeros(FRAMES, 5, 2), torch.zeros(FRAMES, 5), cameras())  # nothing is seen: priors alone
    body = Body(BODY, torch.full((5,), -1))

    def cost(moved: Tensor) -> tuple[float, Tensor]:
        tracks = (BODY + TIMES[:, None, None] * moved)[None].requires_grad_()
        loose, held = (LiftObjective(replace(CONFIG, still=w), body, sight, 0.0, 1.0) for w in (0.0, 10.0))
        loss = (held(tracks, None) - loose(tracks, None)).sum()
        return loss.item(), torch.autograd.grad(loss, tracks)[0]

    middle = torch.zeros(5, 3)
    middle[0, 2] = 0.02  # along its line of sight
    away, push = cost(middle)
    assert away == pytest.approx(10 * float((TIMES * 0.02).square().mean()) / 5, rel=1e-3)
    assert float(push[..., :2].abs().max()) < 1e-8  # it says nothing about the image
    assert cost(middle + torch.tensor([0.2, 0.0, 0.0]))[0] < 0.05 * away
    assert cost(torch.tensor([0.2, 0.1, 0.0]))[0] == 0


def test_a_keypoint_that_is_never_seen_follows_its_neighbours() -> None:
    truth = BODY + TIMES[:, None, None] * torch.tensor([0.3, -0.2, 0.0])
    weights = torch.ones(FRAMES, 5)
    weights[:, 2] = 0
    pixels = seen(truth, cameras())
    pixels[:, 2] = torch.nan
    found = lift(pixels, weights)
    assert float((found.tracks[:, 2] - truth[:, 2]).norm(dim=-1).max()) < 0.08  # it has moved 0.36
    assert torch.equal(found.trust[:, 2], torch.zeros(FRAMES))


def test_gaps_are_filled() -> None:
    truth = turning_body()
    weights = (torch.rand(FRAMES, 5, generator=torch.Generator().manual_seed(2)) > 0.3).float()
    pixels = seen(truth, cameras())
    found = lift(torch.where(weights[..., None] > 0, pixels, torch.nan), weights)
    off = (seen(found.tracks, cameras()) - pixels).norm(dim=-1)
    assert float(off[weights == 0].mean()) < 5.0
    assert float(off.max()) < 15.0  # the body moves by up to 60 px


def test_what_is_not_seen_at_all_stays_where_it_was() -> None:
    found = lift(torch.full((FRAMES, 5, 2), torch.nan), torch.zeros(FRAMES, 5))
    assert torch.equal(found.trust, torch.zeros(FRAMES, 5))
    torch.testing.assert_close(found.tracks, BODY.expand(FRAMES, -1, -1), atol=1e-3, rtol=0)


def test_points_without_bones_go_where_the_pixels_say() -> None:
    truth = BODY + TIMES[:, None, None] * torch.tensor([0.2, 0.1, 0.0])
    pixels = seen(truth, cameras())
    found = lift_keypoints(
        CONFIG,
        BODY,
        torch.full((5,), -1),
        pixels,
        torch.ones(FRAMES, 5),
        cameras(),
        TIMES,
        torch.Generator().manual_seed(0),
    )
    assert float((seen(found.tracks, cameras()) - pixels).norm(dim=-1).max()) < 3.0


def test_it_is_the_same_for_the_same_seed_and_at_any_image_size() -> None:
    truth, config = turning_body(), replace(CONFIG, steps=30)
    pixels = seen(truth, cameras())
    first = lift(pixels, config=config)
    assert torch.equal(first.tracks, lift(pixels, config=config).tracks)
    assert not torch.equal(first.tracks, lift(pixels, config=config, seed=1).tracks)
    doubled = lift(2 * pixels, view=cameras().resized(2 * SIZE, 2 * SIZE), config=config)
    torch.testing.assert_close(doubled.tracks, first.tracks, atol=1e-3, rtol=0)


def test_a_single_frame_is_at_rest() -> None:
    found = lift_keypoints(
        CONFIG,
        BODY,
        PARENTS,
        seen(BODY[None], cameras()[:1]),
        torch.ones(1, 5),
        cameras()[:1],
        TIMES[:1],
        torch.Generator(),
    )
    assert torch.equal(found.tracks, BODY[None])


def test_tracks_are_less_certain_where_nothing_is_seen_and_where_detections_are_noisy() -> None:
    pixels, weights = seen(turning_body(), cameras()), torch.ones(FRAMES, 5)
    weights[:, 4] = 0
    clean, rough = lift(pixels, weights), lift(noisy(pixels, 4.0), weights)
    assert torch.equal(clean.certainty[0], torch.full((5,), clean.reliability))  # at rest all hypotheses agree
    assert float(clean.certainty[-1, 4]) < 0.6 * float(clean.certainty[-1, :4].min())
    assert float(rough.certainty.mean()) < 0.7 * float(clean.certainty.mean())


def hidden_turn() -> tuple[Tensor, SurfaceTracks]:
    """The limb's second bone, in the image plane at rest, turns away from the camera, and what it carries with it.

    Bone lengths and far pixels leave open whether it turns away or towards the camera.
    """
    body = BODY.clone()
    body[4] = body[3] + torch.tensor([0.0, -0.3, 0.0])
    quats = turn((1.0, 0.0, 0.0), 60.0)
    tracks = body.repeat(FRAMES, 1, 1)
    tracks[:, 4] = body[3] + quat_rotate(quats, (body[4] - body[3]).expand(FRAMES, 3))
    around = torch.tensor([[0.04, -0.05, 0.06], [-0.04, -0.12, 0.07], [0.02, -0.2, 0.06], [0.0, -0.27, 0.07]])
    moved = body[3] + quat_rotate(quats[:, None], around.expand(FRAMES, 4, 3))
    others = (BODY[:3] + torch.tensor([0.0, 0.0, 0.05])).expand(FRAMES, 3, 3)
    points = torch.cat([moved, others], 1)
    return tracks, SurfaceTracks(points[0], seen(points, cameras(40.0)), torch.ones(FRAMES, 7))


def test_the_surface_tells_which_way_a_bone_turns() -> None:
    truth, surface = hidden_turn()
    view, config = cameras(40.0), replace(CONFIG, sigma=0.15)

    def depth_of_the_end(surface: SurfaceTracks | None) -> float:
        found = lift_keypoints(
            config,
            truth[0],
            PARENTS,
            seen(truth, view),
            torch.ones(FRAMES, 5),
            view,
            TIMES,
            torch.Generator().manual_seed(0),
            surface,
        )
        return float(found.tracks[-1, 4, 2] - found.tracks[-1, 3, 2])

    want = float(truth[-1, 4, 2] - truth[-1, 3, 2])
    mirrored = surface.points * torch.tensor([1.0, 1.0, -1.0]) + 2 * torch.tensor([0.0, 0.0, 1.0]) * truth[0, 3]
    towards = SurfaceTracks(mirrored, surface.pixels, surface.weights)
    assert depth_of_the_end(surface) == pytest.approx(want, abs=0.06)
    assert depth_of_the_end(towards) == pytest.approx(-want, abs=0.06)


def test_exact_detections_are_fitted_and_believed_the_more_and_noisy_ones_are_not() -> None:
    truth, surface = hidden_turn()
    view, config = cameras(40.0), replace(CONFIG, sigma=0.15)

    def lifted(pixels: Tensor, exact: float) -> Lift:
        return lift_keypoints(
            replace(config, exact=exact),
            truth[0],
            PARENTS,
            pixels,
            torch.ones(FRAMES, 5),
            view,
            TIMES,
            torch.Generator().manual_seed(0),
            surface,
        )

    pixels = seen(truth, view)
    plain, exact = lifted(pixels, 1.0), lifted(pixels, 10.0)
    missed = [float((seen(found.tracks, view) - pixels).norm(dim=-1).mean()) for found in (plain, exact)]
    assert missed[1] < 0.6 * missed[0]
    assert error(exact, truth) < error(plain, truth)
    assert float(plain.certainty.max()) <= 1 < float(exact.certainty.max()) <= 10
    assert plain.reliability < exact.reliability  # what the networks miss is no noise of theirs
    rough = noisy(pixels, 3.0)
    assert torch.equal(lifted(rough, 1.0).tracks, lifted(rough, 10.0).tracks)
    assert float(lifted(rough, 10.0).certainty.max()) <= 1


def waving_arms() -> tuple[Tensor, Tensor]:
    """Two arms of two bones, each flat in the image twice: T x 6 keypoints, and T x 8 points beside the bones."""
    degrees = torch.tensor([40.0, 25.0, 5.0, -15.0, -30.0, -35.0, -30.0, -15.0, 5.0])
    angle = torch.deg2rad(torch.stack([degrees, -degrees.roll(1)], dim=1))  # arms that never look alike
    bone = 0.3 * torch.stack([torch.zeros_like(angle), -angle.cos(), angle.sin()], dim=-1)
    beside = torch.stack([torch.zeros_like(angle), angle.sin(), angle.cos()], dim=-1)
    shoulders = torch.tensor([[0.3, 0.0, 0.0], [-0.3, 0.0, 0.0]])
    keypoints = torch.stack([shoulders + along * bone for along in (0, 1, 2)], dim=2).flatten(1, 2)
    points = [shoulders + along * bone + 0.06 * beside for along in (0.3, 0.8, 1.3, 1.8)]
    return keypoints, torch.cat(points, dim=1)


def test_the_limb_that_is_on_the_wrong_side_is_turned_and_no_other() -> None:
    truth, points = waving_arms()
    parents, view = torch.tensor([-1, 0, 1, -1, 3, 4]), cameras(40.0)
    surface = SurfaceTracks(points[0], seen(points, view), torch.ones(FRAMES, points.shape[1]))
    body = Body(truth[0], parents, surface)
    sight = Sight(seen(truth, view), torch.ones(FRAMES, 6), view)
    config = replace(CONFIG, acceleration=1e-3)  # the arms are fast
    objective = LiftObjective(config, body, sight, 0.0, 1.0)
    candidates = mirrored_limbs(truth, parents, view)
    assert len(candidates) > 6  # more than are looked at for long
    wrong = truth + candidates[0]
    found = turned_limbs(config, wrong, body, objective, view, TIMES)
    assert float((found - truth).norm(dim=-1).max()) < 0.25 * float((wrong - truth).norm(dim=-1).max())
    assert torch.equal(turned_limbs(config, truth, body, objective, view, TIMES), truth)
    assert torch.equal(turned_limbs(replace(config, mirrors=0), wrong, body, objective, view, TIMES), wrong)


def test_hypotheses_that_put_a_keypoint_elsewhere_are_rivals() -> None:
    truth, _ = waving_arms()
    pixels, view = noisy(seen(truth, cameras(40.0)), 3.0), cameras(40.0)

    def lifted(trial_steps: int) -> Lift:
        config = replace(CONFIG, hypotheses=5, acceleration=1e-3, trial_steps=trial_steps)
        parents, g = torch.tensor([-1, 0, 1, -1, 3, 4]), torch.Generator().manual_seed(1)
        return lift_keypoints(config, truth[0], parents, pixels, torch.ones(FRAMES, 6), view, TIMES, g)

    found = lifted(80)
    assert found.rivals
    for one, other in itertools.combinations((found, *found.rivals), 2):
        assert float((one.tracks - other.tracks).norm(dim=-1).mean(0).max()) > 0.05
    assert all(torch.equal(rival.tracks[0], truth[0]) for rival in found.rivals)
    plain = lifted(0)
    assert torch.equal(plain.tracks, found.tracks)
    assert not plain.rivals


def test_hypotheses_that_agree_have_no_rivals() -> None:
    assert not lift(seen(turning_body(), cameras())).rivals


def test_a_surface_without_bones_or_points_changes_nothing() -> None:
    pixels = seen(turning_body(), cameras())
    nothing = SurfaceTracks(torch.zeros(0, 3), torch.zeros(FRAMES, 0, 2), torch.zeros(FRAMES, 0))
    config = replace(CONFIG, steps=20)
    assert torch.equal(lift(pixels, config=config, surface=nothing).tracks, lift(pixels, config=config).tracks)


@pytest.mark.parametrize(
    "name",
    ["doubt", "body_depth", "still_scale", "first_scale", "last_scale", "surface_scale", "sigma", "stretch", "bend"],
)
def test_lengths_of_the_lift_are_positive(name: str) -> None:
    with pytest.raises(ValueError, match=rf"lift\.{name}: must be above 0, not 0"):
        LiftConfig(**{name: 0.0})


def test_exact_detections_never_count_less() -> None:
    with pytest.raises(ValueError, match=r"lift\.exact: must not be below 1, as 0\.5 is"):
        LiftConfig(exact=0.5)


@pytest.mark.parametrize("name", ["steps", "surface", "mirrors", "trial_steps"])
def test_counts_of_the_lift_are_not_negative(name: str) -> None:
    with pytest.raises(ValueError, match=rf"lift\.{name}: must not be below 0"):
        LiftConfig(**{name: -1})
