import torch

from kg4d.deform.skinned import SkinnedConfig, SkinnedDeformation
from kg4d.gaussians.model import GaussianModel
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.orbits import orbit
from kg4d.lift.handles import refit_keypoints, rest_keypoints, skinning_logits, start_handles
from kg4d.lift.record import Lift
from kg4d.lift.seeding import Skeleton

REST = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.5, 0.5, 0.0]])
PARENTS = torch.tensor([-1, 0, 1])
TIMES = torch.tensor([0.0, 0.5, 1.0])


def gaussians() -> GaussianModel:
    """On the two bones, evenly."""
    along = torch.linspace(0, 1, 11)[:, None]
    means = torch.cat([REST[0] + along * (REST[1] - REST[0]), REST[1] + along * (REST[2] - REST[1])])
    count = len(means)
    return GaussianModel.from_state(
        GaussianState(
            means=means,
            quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(count, 1),
            scales=torch.full((count, 3), 0.01),
            opacities=torch.full((count,), 0.9),
            colors=torch.zeros(count, 3),
            keypoint_logits=torch.zeros(count, 3),
        )
    )


def skeleton(known: list[bool] | None = None) -> Skeleton:
    return Skeleton(torch.tensor(known or [True, True, True]), PARENTS, REST)


def test_gaussians_follow_the_bones_they_lie_on() -> None:
    model, deformation = gaussians(), SkinnedDeformation(SkinnedConfig(), 3, None, None)
    tracks = torch.stack([REST, REST, REST])
    tracks[2, 2] = torch.tensor([0.0, 1.0, 0.0])  # the second bone swings up about joint 1
    start_handles(deformation, model, skeleton(), REST, TIMES, Lift(tracks, torch.ones(3, 3), torch.ones(3, 3), 1.0))
    torch.testing.assert_close(deformation.keypoints(TIMES), tracks)
    weights = deformation.shares(model.state().detach())
    assert float(weights[3, 0]) > 0.9
    assert float(weights[-6:, 1:].sum(-1).min()) > 0.99
    moved = deformation(model.state().detach(), TIMES).means
    torch.testing.assert_close(moved[:, :9], model.means[:9].detach().expand(3, -1, -1), atol=0.02, rtol=0)
    rotated = torch.tensor([0.0, 0.8, 0.0])  # three fifths along the second bone
    torch.testing.assert_close(moved[2, 17], rotated, atol=0.05, rtol=0)


def test_without_a_lift_nothing_moves_at_first() -> None:
    model, deformation = gaussians(), SkinnedDeformation(SkinnedConfig(), 3, None, None)
    start_handles(deformation, model, skeleton(), REST, TIMES, None)
    torch.testing.assert_close(deformation(model.state(), TIMES).means, model.means.expand(3, -1, -1))


def test_unknown_keypoints_carry_nothing() -> None:
    logits = skinning_logits(
        gaussians().means.detach(), REST, PARENTS, torch.tensor([True, False, True]), temperature=0.1, sigma=0.06
    )
    assert float((logits / 0.1).softmax(-1)[:, 1].max()) < 1e-6


def test_far_gaussians_still_have_a_gradient() -> None:
    far = torch.full((1, 3), 5.0)
    logits = skinning_logits(far, REST, PARENTS, torch.ones(3, dtype=torch.bool), temperature=0.1, sigma=0.06)
    torch.testing.assert_close((logits / 0.1).softmax(-1), torch.full((1, 3), 1 / 3))


def test_keypoints_at_rest_are_triangulated_or_barycentres() -> None:
    model = gaussians()
    points = REST.clone()
    points[2] = torch.nan
    with torch.no_grad():
        model.keypoint_logits[5, 2] = 100.0
    found = rest_keypoints(model, Skeleton(torch.ones(3, dtype=torch.bool), PARENTS, points), 0.1)
    torch.testing.assert_close(found[:2], REST[:2])
    torch.testing.assert_close(found[2], model.means[5].detach())


def test_refitted_keypoints_move_to_their_line_of_sight_by_their_confidence_and_keep_their_depth() -> None:
    model, deformation = gaussians(), SkinnedDeformation(SkinnedConfig(), 3, None, None)
    cameras = orbit([0.0] * 3, [0.0] * 3, 2.0, 49.0, 64, 64)
    noise = torch.randn(3, 3, 3, generator=torch.Generator().manual_seed(1))
    noise[0] = 0
    tracks, positions = REST + 0.1 * noise, REST + 0.1 * noise.flip(1)
    confidence = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]])
    start_handles(deformation, model, skeleton(), REST, TIMES, Lift(positions, confidence, torch.ones(3, 3), 1.0))
    before = deformation(model.state(), TIMES).means
    refit_keypoints(deformation, Lift(tracks, confidence, torch.ones(3, 3), 0.8), cameras)
    refit_keypoints(
        deformation, Lift(tracks, confidence, torch.ones(3, 3), 0.8), cameras
    )  # the second time nothing changes
    assert torch.equal(deformation(model.state(), TIMES).means, before)
    found = deformation.keypoints(TIMES)
    along = tracks - cameras.centers[:, None]
    moved, missed = found - positions, torch.linalg.cross(positions - cameras.centers[:, None], along)
    torch.testing.assert_close((moved * along).sum(-1), torch.zeros(3, 3), atol=1e-6, rtol=0)  # nearer nor farther
    torch.testing.assert_close(moved.norm(dim=-1), 0.8 * confidence * missed.norm(dim=-1) / along.norm(dim=-1))
    left = torch.linalg.cross(found - cameras.centers[:, None], along)
    torch.testing.assert_close(left, (1 - 0.8 * confidence[..., None]) * missed, atol=1e-6, rtol=1e-4)
    assert torch.equal(found[0], REST)
