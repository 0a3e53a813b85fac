import pytest
import torch

from kg4d.geometry.alignment import align, fit_similarity
from kg4d.geometry.point_sets import nearest_ids
from kg4d.geometry.rotations import quat_to_matrix


def body(count: int = 400) -> torch.Tensor:
    points = torch.nn.functional.normalize(torch.randn(count, 3), dim=-1) * torch.tensor([1.0, 0.6, 0.3])
    return points + (points[:, :1] > 0) * torch.tensor([0.0, 0.5, 0.1]) * points[:, :1]


def test_known_pairs_give_the_similarity_back():
    source, rotation = body(20), quat_to_matrix(torch.randn(4))
    target = 2.5 * source @ rotation.mT + torch.tensor([1.0, -2.0, 3.0])
    found = fit_similarity(source, target)
    assert torch.allclose(found.rotation, rotation, atol=1e-5)
    assert abs(found.scale - 2.5) < 1e-5
    assert torch.allclose(found.moved(source), target, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_closest_points_find_it_without_pairs(seed: int):
    torch.manual_seed(seed)
    source, rotation = body(), quat_to_matrix(torch.randn(4))
    target = (0.3 * source @ rotation.mT + torch.tensor([4.0, 0.0, -1.0]))[torch.randperm(400)]
    moved = align(source, target).moved(source)
    assert (moved - target[nearest_ids(moved, target)]).norm(dim=-1).max() < 1e-4


def test_nearest_ids_agree_with_all_distances():
    queries, points = torch.randn(2, 30, 3), torch.randn(2, 50, 3)
    assert torch.equal(nearest_ids(queries, points), torch.cdist(queries, points).argmin(-1))
