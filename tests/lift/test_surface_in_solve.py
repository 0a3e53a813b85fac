from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kg4d.geometry.rotations import quat_rotate
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


def test_a_surface_without_bones_or_points_changes_nothing() -> None:
    pixels = seen(rotating_body(), cameras())
    nothing = SurfaceTracks(torch.zeros(0, 3), torch.zeros(FRAMES, 0, 2), torch.zeros(FRAMES, 0))
    config = replace(CONFIG, steps=20)
    assert torch.equal(lift(pixels, config=config, surface=nothing).tracks, lift(pixels, config=config).tracks)
