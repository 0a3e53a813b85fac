import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kg4d.geometry.rotations import quat_rotate, quat_to_matrix
from kg4d.keypoints.skeleton import ancestors_first, bone_distances, bone_rotations

PARENTS = torch.tensor([1, -1, 1, 2, -1])  # 1 carries 0 and 2, 2 carries 3; 4 is alone
REST = torch.tensor([[0.0, 0.5, 0.0], [0.0, 0.0, 0.0], [0.4, 0.0, 0.1], [0.4, -0.5, 0.0], [1.0, 1.0, 1.0]])


def test_parents_come_first_and_cycles_are_refused() -> None:
    order = ancestors_first(PARENTS)
    assert sorted(order) == [0, 1, 2, 3, 4]
    assert all(order.index(int(p)) < order.index(j) for j, p in enumerate(PARENTS) if p >= 0)
    with pytest.raises(ValueError, match="cycle"):
        ancestors_first(torch.tensor([1, 0, -1]))


@given(quat=st.lists(st.floats(-2, 2), min_size=4, max_size=4).filter(lambda q: sum(x * x for x in q) > 0.1))
def test_a_skeleton_that_rotates_as_one_body_has_that_rotation(quat: list[float]) -> None:
    q = torch.tensor(quat)
    tracks = torch.stack([REST, quat_rotate(q.expand(5, 4), REST) + 0.3])
    rotations = quat_to_matrix(bone_rotations(REST, tracks, PARENTS, inertia=1e-3))
    torch.testing.assert_close(rotations[0], torch.eye(3).expand(5, 3, 3), atol=1e-5, rtol=0)
    # joint 1 has two bones and knows its rotation; what hangs on it inherits the twist that its own bones leave open
    expected = quat_to_matrix(q).expand(4, 3, 3)
    torch.testing.assert_close(rotations[1, :4], expected, atol=2e-2, rtol=0)
    torch.testing.assert_close(rotations[1, 4], torch.eye(3))


def test_a_bent_limb_rotates_its_own_frame_without_twist() -> None:
    tracks = REST[None].clone()
    tracks[0, 3] = REST[2] + torch.tensor([0.5, 0.0, 0.0]) * 0.5**0.5 / 0.5  # the bone of joint 2 now points along x
    rotations = quat_to_matrix(bone_rotations(REST, tracks, PARENTS, inertia=1e-4))
    along = torch.nn.functional.normalize(REST[3] - REST[2], dim=0)
    torch.testing.assert_close(rotations[0, 2] @ along, torch.tensor([1.0, 0.0, 0.0]), atol=1e-2, rtol=0)
    torch.testing.assert_close(rotations[0, 3], rotations[0, 2])  # a leaf follows its parent
    torch.testing.assert_close(rotations[0, 1], torch.eye(3), atol=1e-5, rtol=0)
    assert torch.linalg.det(rotations).allclose(torch.ones(1, 5))


def test_the_distance_is_that_of_the_nearest_bone_that_the_frame_carries() -> None:
    points = torch.tensor([[0.0, 0.25, 0.1], [0.0, 2.0, 0.0], [0.4, -0.25, 0.05]])
    distances = bone_distances(points, REST, PARENTS)
    assert distances[0, 1] == pytest.approx(0.1)  # beside the middle of the bone from 1 to 0
    assert distances[1, 1] == pytest.approx(1.5)  # beyond its end
    assert distances[2, 2] == pytest.approx(0.0, abs=1e-6)  # on the bone from 2 to 3
    torch.testing.assert_close(distances[:, 3], (points - REST[3]).norm(dim=-1))  # a leaf has no bone
    rigid = quat_rotate(torch.tensor([0.3, 0.5, -0.2, 0.7]).expand(3, 4), points)
    rotated = bone_distances(rigid, quat_rotate(torch.tensor([0.3, 0.5, -0.2, 0.7]).expand(5, 4), REST), PARENTS)
    torch.testing.assert_close(rotated, distances, atol=1e-5, rtol=1e-5)
