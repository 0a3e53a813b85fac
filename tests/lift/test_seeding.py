import pytest
import torch

from kg4d.gaussians.model import GaussianModel
from kg4d.keypoints.barycentre import assignment, barycentre
from kg4d.lift.seeding import seed_keypoints
from kg4d.losses.settings import KeypointSeeding, KfcConfig
from tests import make

SCENE = make.tiny_scene()


def model() -> GaussianModel:
    """A slab of Gaussians: two sheets that face the reference camera, 0.4 apart."""
    side = torch.linspace(-0.5, 0.5, 15)
    grid = torch.cartesian_prod(side, side, torch.tensor([-0.2, 0.2]))
    return GaussianModel.from_state(make.gaussians(grid, opacities=0.5, keypoint_logits=torch.rand(len(grid), 3)))


def seeded(seeding: KeypointSeeding) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weights of the Gaussians in the keypoints, their centres, and which keypoints are known."""
    gaussians, kfc = model(), KfcConfig(seeding=seeding, seed_sigma=0.05)
    skeleton = seed_keypoints(gaussians, SCENE.ring, SCENE.keypoints, kfc, SCENE.reference.cameras[0])
    return assignment(gaussians.keypoint_logits, kfc.temperature), gaussians.means.detach(), skeleton.known


def test_triangulated_seeds_lie_where_the_keypoints_are() -> None:
    weights, means, known = seeded(KeypointSeeding.TRIANGULATED)
    assert known.all()
    assert (barycentre(weights, means) - SCENE.keypoints.truth[0]).norm(dim=-1).max() < 0.12  # the sheets are off


def test_seeds_of_a_view_lie_on_its_keypoints_and_in_front() -> None:
    weights, means, known = seeded(KeypointSeeding.VIEW)
    assert known.all()
    points = barycentre(weights, means)
    pixels = SCENE.reference.cameras[0].project(points).pixels[0]
    assert (pixels - SCENE.keypoints.uv[0]).norm(dim=-1).max() < 0.5
    assert (points[:, 2] > 0.19).all()  # the camera stands on +Z; the sheet behind gets nothing


def test_no_seeds_are_uniform() -> None:
    weights, means, _ = seeded(KeypointSeeding.NONE)
    assert torch.allclose(weights, torch.full_like(weights, 1 / len(means)))


@pytest.mark.parametrize("seeding", KeypointSeeding)
def test_which_keypoints_are_used_does_not_depend_on_the_seeds(seeding: KeypointSeeding) -> None:
    assert seeded(seeding)[2].all()
