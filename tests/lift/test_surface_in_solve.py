import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kg4d.geometry.rotations import quat_rotate
from kg4d.lift.mirrored_limbs import mirror_limbs, mirror_translations
from kg4d.lift.objective import LiftObjective, Observations, RestBody
from kg4d.lift.record import Lift
from kg4d.lift.solve import lift_keypoints
from kg4d.lift.surface import SurfaceTracks
from tests.lift.bodies import (
    BODY,
    CONFIG,
    FRAMES,
    PARENTS,
    TIMES,
    cameras,
    error,
    lift,
    noisy,
    rotating_body,
    rotation_about,
    seen,
)


def hidden_rotation() -> tuple[Tensor, SurfaceTracks]:
    """The second bone of the limb rotates out of the image plane, away from the camera, and carries points with it.

    Bone lengths and the pixels of a distant camera leave open whether it rotates away from the camera or towards it.
    """
    body = BODY.clone()
    body[4] = body[3] + torch.tensor([0.0, -0.3, 0.0])
    quats = rotation_about((1.0, 0.0, 0.0), 60.0)
    tracks = body.repeat(FRAMES, 1, 1)
    tracks[:, 4] = body[3] + quat_rotate(quats, (body[4] - body[3]).expand(FRAMES, 3))
    around = torch.tensor([[0.04, -0.05, 0.06], [-0.04, -0.12, 0.07], [0.02, -0.2, 0.06], [0.0, -0.27, 0.07]])
    moved = body[3] + quat_rotate(quats[:, None], around.expand(FRAMES, 4, 3))
    others = (BODY[:3] + torch.tensor([0.0, 0.0, 0.05])).expand(FRAMES, 3, 3)
    points = torch.cat([moved, others], 1)
    return tracks, SurfaceTracks(points[0], seen(points, cameras(40.0)), torch.ones(FRAMES, 7))


@pytest.mark.slow
def test_the_surface_shows_which_way_a_bone_rotates() -> None:
    truth, surface = hidden_rotation()
    view, config = cameras(40.0), replace(CONFIG, sigma=0.15)

    def depth_of_the_end(surface: SurfaceTracks | None) -> float:
        found = lift_keypoints(
            config,
            rest=truth[0],
            parents=PARENTS,
            pixels=seen(truth, view),
            weights=torch.ones(FRAMES, 5),
            cameras=view,
            times=TIMES,
            generator=torch.Generator().manual_seed(0),
            surface=surface,
        )
        return float(found.tracks[-1, 4, 2] - found.tracks[-1, 3, 2])

    want = float(truth[-1, 4, 2] - truth[-1, 3, 2])
    mirrored = surface.points * torch.tensor([1.0, 1.0, -1.0]) + 2 * torch.tensor([0.0, 0.0, 1.0]) * truth[0, 3]
    towards = SurfaceTracks(mirrored, surface.pixels, surface.weights)
    assert depth_of_the_end(surface) == pytest.approx(want, abs=0.06)
    assert depth_of_the_end(towards) == pytest.approx(-want, abs=0.06)


@pytest.mark.slow
def test_exact_detections_are_fitted_more_closely_with_more_confidence_and_noisy_ones_are_not() -> None:
    truth, surface = hidden_rotation()
    view, config = cameras(40.0), replace(CONFIG, sigma=0.15)

    def lifted(pixels: Tensor, exact: float) -> Lift:
        return lift_keypoints(
            replace(config, exact=exact),
            rest=truth[0],
            parents=PARENTS,
            pixels=pixels,
            weights=torch.ones(FRAMES, 5),
            cameras=view,
            times=TIMES,
            generator=torch.Generator().manual_seed(0),
            surface=surface,
        )

    pixels = seen(truth, view)
    plain, exact = lifted(pixels, 1.0), lifted(pixels, 10.0)
    missed = [float((seen(found.tracks, view) - pixels).norm(dim=-1).mean()) for found in (plain, exact)]
    assert missed[1] < 0.6 * missed[0]
    assert error(exact, truth) < error(plain, truth)
    assert float(plain.track_confidence.max()) <= 1 < float(exact.track_confidence.max()) <= 10
    assert plain.overall_confidence < exact.overall_confidence  # what the networks miss is not their noise
    rough = noisy(pixels, 3.0)
    plain, exact = lifted(rough, 1.0), lifted(rough, 10.0)
    assert torch.equal(plain.tracks, exact.tracks)
    assert float(exact.track_confidence.max()) <= 1


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


def test_the_limb_on_the_wrong_side_is_mirrored_and_no_other() -> None:
    truth, points = waving_arms()
    parents, view = torch.tensor([-1, 0, 1, -1, 3, 4]), cameras(40.0)
    surface = SurfaceTracks(points[0], seen(points, view), torch.ones(FRAMES, points.shape[1]))
    body = RestBody(truth[0], parents, surface)
    keypoints = Observations(seen(truth, view), torch.ones(FRAMES, 6), view)

    def objective(mirrors: int) -> LiftObjective:
        config = replace(CONFIG, acceleration=0.012, mirrors=mirrors)  # the arms are fast
        return LiftObjective(config, body, keypoints, TIMES, noise=0.0, confidence=1.0)

    candidates = mirror_translations(truth, parents, view)
    assert len(candidates) > 6  # more than are polished for all steps
    wrong = truth + candidates[0]
    found = mirror_limbs(objective(CONFIG.mirrors), wrong, TIMES)
    assert float((found - truth).norm(dim=-1).max()) < 0.25 * float((wrong - truth).norm(dim=-1).max())
    assert torch.equal(mirror_limbs(objective(CONFIG.mirrors), truth, TIMES), truth)
    assert torch.equal(mirror_limbs(objective(0), wrong, TIMES), wrong)


def test_a_surface_without_bones_or_points_changes_nothing() -> None:
    pixels = seen(rotating_body(), cameras())
    nothing = SurfaceTracks(torch.zeros(0, 3), torch.zeros(FRAMES, 0, 2), torch.zeros(FRAMES, 0))
    config = replace(CONFIG, steps=20)
    assert torch.equal(lift(pixels, config=config, surface=nothing).tracks, lift(pixels, config=config).tracks)


def test_hypotheses_that_put_a_keypoint_elsewhere_are_rivals() -> None:
    truth, _ = waving_arms()
    pixels, view = noisy(seen(truth, cameras(40.0)), 3.0), cameras(40.0)

    def lifted(trial_steps: int) -> Lift:
        config = replace(CONFIG, hypotheses=5, acceleration=0.012, trial_steps=trial_steps)
        return lift_keypoints(
            config,
            rest=truth[0],
            parents=torch.tensor([-1, 0, 1, -1, 3, 4]),
            pixels=pixels,
            weights=torch.ones(FRAMES, 6),
            cameras=view,
            times=TIMES,
            generator=torch.Generator().manual_seed(1),
        )

    found = lifted(80)
    assert found.rivals
    for one, other in itertools.combinations((found, *found.rivals), 2):
        assert float((one.tracks - other.tracks).norm(dim=-1).mean(0).max()) > 0.05
    assert all(torch.equal(rival.tracks[0], truth[0]) for rival in found.rivals)
    plain = lifted(0)
    assert torch.equal(plain.tracks, found.tracks)
    assert not plain.rivals


def test_hypotheses_that_agree_have_no_rivals() -> None:
    assert not lift(seen(rotating_body(), cameras())).rivals
