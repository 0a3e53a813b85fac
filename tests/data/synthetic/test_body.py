import math

import pytest
import torch

from kg4d.data.synthetic.body import build_body, depth_inside, pose_at, pose_body
from kg4d.data.synthetic.characters import CHARACTERS, Character, Joint, Limb, Swing
from kg4d.geometry.rotations import quat_rotate, quat_to_matrix

CENTER = (0.0, 0.0, 0.0)
RED, BLUE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
HINGE = Character(
    name="hinge",
    yaw=0.0,
    joints=(Joint("root", None, (0.0, 0.0, 0.0)), Joint("elbow", "root", (1.0, 0.0, 0.0), (Swing(2, 90.0),))),
    limbs=(
        Limb("root", (0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.1, 0.1), RED, BLUE, 2, None, "elbow"),
        Limb("elbow", (1.0, 0.0, 0.0), (2.0, 0.0, 0.0), (0.1, 0.1), BLUE, RED, 0, "root", None),
    ),
    keypoints=("root", "elbow"),
    keypoint_parents=(None, "root"),
)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_hinge_rotates_about_its_joint():
    motion = pose_at(HINGE, 0.25)  # the sine is one: 90 degrees about z
    positions = motion.moved(torch.tensor([[0.5, 0.0, 0.0], [2.0, 0.0, 0.0]]))
    assert torch.allclose(positions, torch.tensor([[0.5, 0.0, 0.0], [1.0, 1.0, 0.0]]), atol=1e-6)


@pytest.mark.parametrize("name", CHARACTERS)
def test_bones_are_rigid_and_the_loop_closes(name: str):
    figure = CHARACTERS[name]()
    rest = torch.tensor([joint.rest for joint in figure.joints])
    names = [joint.name for joint in figure.joints]
    parents = [names.index(joint.parent) if joint.parent else 0 for joint in figure.joints]
    bob = figure.joints[0].bob
    lengths = (rest - rest[parents]).norm(dim=-1)
    positions = torch.stack([pose_at(figure, step / 7).moved(rest) for step in range(8)])
    assert bob > 0
    assert torch.allclose((positions - positions[:, parents]).norm(dim=-1), lengths.expand(8, -1), atol=1e-5)
    assert torch.allclose(positions[7], positions[0], atol=1e-5)
    assert (positions[1:7] - positions[0]).norm(dim=-1).amax() > 0.2


@pytest.mark.parametrize("name", CHARACTERS)
def test_a_character_is_well_described(name: str):
    figure = CHARACTERS[name]()
    names = [joint.name for joint in figure.joints]
    assert figure.name == name
    assert len(set(names)) == len(names)
    assert all(joint.parent is None or joint.parent in names[:index] for index, joint in enumerate(figure.joints))
    assert len(figure.keypoints) == len(figure.keypoint_parents) == 14
    assert set(figure.keypoints) <= set(names)
    assert all(
        parent is None or parent in figure.keypoints[:index] for index, parent in enumerate(figure.keypoint_parents)
    )


def test_the_surface_of_a_ball_is_evenly_covered():
    ball = Character("ball", 0.0, HINGE.joints[:1], (Limb("root", CENTER, CENTER, (0.5, 0.5), RED),), (), ())
    body = build_body(ball, 1000, generator())
    means = body.rest.means
    assert len(means) == 1000
    assert torch.allclose(means.norm(dim=-1), torch.tensor(0.5), atol=1e-5)
    # the flat axis of each Gaussian is the normal
    flat = quat_rotate(body.rest.quats, torch.tensor([0.0, 0.0, 1.0]).expand(1000, 3))
    assert torch.allclose(flat, means / 0.5, atol=1e-4)
    assert (body.rest.scales[:, 2] < body.rest.scales[:, 0]).all()
    nearest = torch.cdist(means, means).fill_diagonal_(9.0).amin(1)
    assert nearest.min() > 0.6 * nearest.max()
    assert means.mean(0).norm() < 1e-2


def test_the_surface_points_of_a_capsule_lie_on_it():
    body = build_body(HINGE, 800, generator())
    first = body.rest.means[body.weights[:, 0] > 0.5]
    along = first[:, 0].clamp(0, 1)
    distance = (first - torch.stack([along, torch.zeros_like(along), torch.zeros_like(along)], -1)).norm(dim=-1)
    assert torch.allclose(distance, torch.tensor(0.1), atol=1e-5)
    colors = body.rest.colors[body.weights[:, 0] > 0.5]
    assert (colors[:, 0] > colors[:, 2]).any()
    assert (colors[:, 2] > colors[:, 0]).any()


def test_skinning_is_rigid_away_from_joints_and_smooth_at_them():
    body = build_body(HINGE, 3000, generator())
    assert torch.allclose(body.weights.sum(1), torch.tensor(1.0))
    assert (body.weights >= 0).all()
    state = pose_body(body, pose_at(HINGE, 0.25))
    upper = (body.weights[:, 0] > 0.5) & (body.rest.means[:, 0] < 0.9)
    lower = (body.weights[:, 1] > 0.5) & (body.rest.means[:, 0] > 1.1)
    assert torch.allclose(state.means[upper], body.rest.means[upper], atol=1e-6)
    rotated = torch.stack([1 - body.rest.means[:, 1], body.rest.means[:, 0] - 1, body.rest.means[:, 2]], -1)
    assert torch.allclose(state.means[lower], rotated[lower], atol=1e-5)
    quarter = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    expected = quarter @ quat_to_matrix(body.rest.quats[lower])
    assert torch.allclose(quat_to_matrix(state.quats[lower]), expected, atol=1e-5)
    middle = body.weights[(body.rest.means[:, 0] - 1).abs() < 0.02]
    assert (middle.amax(1) < 0.75).all()


def test_yaw_rotates_the_whole_body():
    rotated = Character("rotated", 90.0, HINGE.joints, HINGE.limbs, (), ())
    body = build_body(rotated, 200, generator())
    state = pose_body(body, pose_at(rotated, 0.0))
    rest = body.rest.means
    assert torch.allclose(state.means, torch.stack([rest[:, 2], rest[:, 1], -rest[:, 0]], -1), atol=1e-5)


def test_the_body_is_deterministic_and_the_seed_changes_its_colours():
    first, again = (build_body(HINGE, 300, generator()).rest for _ in range(2))
    other = build_body(HINGE, 300, torch.Generator().manual_seed(1)).rest
    assert torch.equal(first.means, again.means)
    assert torch.equal(first.colors, again.colors)
    assert torch.equal(first.means, other.means)
    assert not torch.equal(first.colors, other.colors)


def test_depth_inside():
    points = torch.tensor([[0.5, 0.0, 0.0], [0.5, 0.04, 0.03], [-0.05, 0.0, 0.0], [0.5, 3.0, 0.0]])
    assert torch.allclose(depth_inside(HINGE, points), torch.tensor([0.1, 0.05, 0.05, 0.0]), atol=1e-6)
    assert math.isclose(float(depth_inside(HINGE, torch.tensor([[1.0, 0.0, 0.0]]))), 0.1, abs_tol=1e-6)
