import torch

from kg4d.gaussians.model import GaussianModel
from kg4d.lift.handles import refitted_keypoints, rest_keypoints
from kg4d.lift.record import Lift
from kg4d.lift.seeding import Skeleton
from tests import make

REST = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.5, 0.5, 0.0]])
PARENTS = torch.tensor([-1, 0, 1])


def gaussians() -> GaussianModel:
    """On the two bones, evenly."""
    along = torch.linspace(0, 1, 11)[:, None]
    means = torch.cat([REST[0] + along * (REST[1] - REST[0]), REST[1] + along * (REST[2] - REST[1])])
    return GaussianModel.from_state(make.gaussians(means, scales=0.01, keypoint_logits=torch.zeros(len(means), 3)))


def test_keypoints_at_rest_are_triangulated_or_barycentres() -> None:
    model = gaussians()
    points = REST.clone()
    points[2] = torch.nan
    with torch.no_grad():
        model.keypoint_logits[5, 2] = 100.0
    found = rest_keypoints(model.state().detach(), Skeleton(torch.ones(3, dtype=torch.bool), PARENTS, points), 0.1)
    torch.testing.assert_close(found[:2], REST[:2])
    torch.testing.assert_close(found[2], model.means[5].detach())


def test_refitted_keypoints_move_to_their_line_of_sight_by_their_confidence_and_keep_their_depth() -> None:
    cameras = make.cameras([0.0] * 3, size=64)
    noise = torch.randn(3, 3, 3, generator=torch.Generator().manual_seed(1))
    noise[0] = 0
    tracks, positions = REST + 0.1 * noise, REST + 0.1 * noise.flip(1)
    confidence = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]])
    found = refitted_keypoints(positions, Lift(tracks, confidence, torch.ones(3, 3), 0.8), cameras)
    along = tracks - cameras.centers[:, None]
    moved, missed = found - positions, torch.linalg.cross(positions - cameras.centers[:, None], along)
    torch.testing.assert_close((moved * along).sum(-1), torch.zeros(3, 3), atol=1e-6, rtol=0)  # nearer nor farther
    torch.testing.assert_close(moved.norm(dim=-1), 0.8 * confidence * missed.norm(dim=-1) / along.norm(dim=-1))
    left = torch.linalg.cross(found - cameras.centers[:, None], along)
    torch.testing.assert_close(left, (1 - 0.8 * confidence[..., None]) * missed, atol=1e-6, rtol=1e-4)
    assert torch.equal(found[0], REST)
