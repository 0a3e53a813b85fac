import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from kg4d.geometry.point_sets import nearest_neighbours
from kg4d.geometry.rotations import quat_multiply, quat_rotate
from kg4d.losses.motion_priors import (
    acceleration_loss,
    arap_loss,
    bone_lengths,
    bone_loss,
    carried_bones_loss,
    coherence_loss,
    geman_mcclure,
    hinge_loss,
    neighbour_weights,
    rigidity_loss,
)
from kg4d.losses.settings import HandlesConfig


def cloud(count: int = 40) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    means = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    quats = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    distances, neighbours = nearest_neighbours(means, 5)
    return means, quats, neighbours, neighbour_weights(distances)


def rigidity(means: torch.Tensor, quats: torch.Tensor) -> torch.Tensor:
    rest, rest_quats, neighbours, weights = cloud()
    return rigidity_loss(means[None], quats[None], rest, rest_quats, neighbours, weights, torch.arange(len(rest)))


QUATERNIONS = st.lists(st.floats(-2, 2), min_size=4, max_size=4).filter(lambda q: sum(x * x for x in q) > 0.1)


@given(quat=QUATERNIONS, translation=st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_a_rigid_motion_costs_nothing(quat: list[float], translation: list[float]) -> None:
    means, quats, _, _ = cloud()
    q = torch.tensor(quat, dtype=torch.float64)
    moved = quat_rotate(q.expand(len(means), 4), means) + torch.tensor(translation, dtype=torch.float64)
    rotated = quat_multiply((q / q.norm()).expand(len(means), 4), quats)
    assert rigidity(moved, rotated) < 1.1e-5  # not 0: an offset keeps the root differentiable


def test_positions_that_rotate_without_their_frames_cost() -> None:
    means, quats, _, _ = cloud()
    half_turn = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    assert rigidity(quat_rotate(half_turn.expand(len(means), 4), means), quats) > 0.1


def test_scaling_costs_in_proportion() -> None:
    means, quats, _, _ = cloud()
    assert torch.allclose(rigidity(1.4 * means, quats), 2 * rigidity(1.2 * means, quats), rtol=1e-6)


def test_rigidity_has_the_gradient_it_claims_and_a_finite_one_at_rest() -> None:
    means, quats, neighbours, weights = cloud(8)

    def loss(moved: torch.Tensor, rotated: torch.Tensor) -> torch.Tensor:
        return rigidity_loss(moved, rotated, means, quats, neighbours, weights, torch.arange(8))

    moved = (means + 0.1 * torch.sin(5 * means))[None].requires_grad_()
    assert gradcheck(loss, (moved, (quats + 0.1)[None].requires_grad_()))
    at_rest = means[None].clone().requires_grad_()
    loss(at_rest, quats[None]).backward()
    assert at_rest.grad is not None
    assert at_rest.grad.isfinite().all()


def test_bones_know_only_their_length() -> None:
    parents = torch.tensor([-1, 0, 1])
    rest = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [1.0, 2, 0]])
    bent = torch.tensor([[[5.0, 0, 0], [5.0, 1, 0], [7.0, 1, 0]]])  # the same lengths, elsewhere and bent
    assert torch.allclose(bone_lengths(rest, parents), torch.tensor([1.0, 2.0]))
    assert bone_loss(bent, rest, parents) < 1e-10
    assert torch.allclose(bone_loss(1.5 * bent, rest, parents), torch.tensor((0.5**2 + 1.0**2) / 2))


def test_a_cut_bone_does_not_count() -> None:
    rest = torch.zeros(3, 3)
    far = torch.arange(9.0).reshape(1, 3, 3)
    assert bone_loss(far, rest, torch.tensor([-1, -1, -1])) == 0
    only_first = bone_loss(far, rest, torch.tensor([-1, 0, -1]))
    assert torch.allclose(only_first, torch.tensor(27.0))


LEG = torch.tensor([-1, 0, 1])  # hip, knee, paw
LEG_REST = torch.tensor([[0.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.5, -2.0, 0.0]], dtype=torch.float64)


def leg(thigh: torch.Tensor, shank: torch.Tensor, reach: torch.Tensor) -> torch.Tensor:
    """T x 3 keypoints in the plane z = 0: directions of the two bones and the length of the lower one."""
    directions = [torch.stack([angle.sin(), -angle.cos(), 0 * angle], dim=-1) for angle in (thigh, shank)]
    knee = directions[0]
    return torch.stack([0 * knee, knee, knee + reach[:, None] * directions[1]], dim=1)


@given(quat=QUATERNIONS, translation=st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_a_leg_that_bends_in_any_plane_costs_nothing(quat: list[float], translation: list[float]) -> None:
    steps = torch.arange(6, dtype=torch.float64)
    tracks = leg(steps.sin(), (2 * steps).cos(), 1 + 0.3 * steps.cos())
    rotated = quat_rotate(torch.tensor(quat, dtype=torch.float64).expand(6, 3, 4), tracks)
    moved = rotated + steps[:, None, None] * torch.tensor(translation, dtype=torch.float64)  # a leg that walks away
    assert abs(float(hinge_loss(moved, LEG_REST, LEG, 0.01))) < 1e-12


def test_leaving_the_plane_costs_the_variance_times_the_weight_of_the_bone() -> None:
    x, y, z = torch.tensor([[1, 1, -1, -1], [1, -1, -1, 1], [1, -1, 1, -1]], dtype=torch.float64)
    tracks = LEG_REST.repeat(4, 1, 1)
    tracks[:, 2] = tracks[:, 1] + torch.stack([x, y, 0.2 * z], dim=-1)  # of length sqrt(2.04), always
    stretch = 2.04**0.5 - 1.25**0.5
    counts_for_half = hinge_loss(tracks, LEG_REST, LEG, stretch)
    assert float(counts_for_half) == pytest.approx(0.2**2 / 2 / 2)  # a mean over two bones
    assert float(hinge_loss(tracks, LEG_REST, LEG, 1e-6)) == pytest.approx(0.2**2 / 2)
    swaying = tracks.clone()
    swaying[:, 1:] += torch.stack([0 * x, 0 * y, 0.1 * z], dim=-1)[:, None]  # the bone above leaves it too
    assert float(hinge_loss(swaying, LEG_REST, LEG, 1e-6)) == pytest.approx((0.2**2 + 0.1**2) / 2, rel=0.05)


def test_bones_that_keep_their_length_may_go_anywhere() -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(8, 2, 3, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([1.0, 1.25**0.5], dtype=torch.float64)[:, None]
    bones = lengths * directions / directions.norm(dim=-1, keepdim=True)
    tracks = torch.cat([torch.zeros(8, 1, 3, dtype=torch.float64), bones.cumsum(1)], dim=1)
    assert float(hinge_loss(tracks, LEG_REST, LEG, 0.01)) < 1e-12
    assert float(hinge_loss(1.2 * tracks, LEG_REST, LEG, 0.01)) > 0.1


def test_without_bones_there_are_no_hinges() -> None:
    assert torch.equal(
        hinge_loss(torch.rand(2, 4, 3, 3), torch.zeros(3, 3), torch.full((3,), -1), 0.01), torch.zeros(2)
    )


def arap(positions: torch.Tensor) -> torch.Tensor:
    rest, _, neighbours, weights = cloud()
    return arap_loss(positions, rest, neighbours, weights)


@given(quat=QUATERNIONS, translation=st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_control_points_that_move_as_one_body_cost_nothing(quat: list[float], translation: list[float]) -> None:
    rest = cloud()[0]
    moved = quat_rotate(torch.tensor(quat, dtype=torch.float64).expand(len(rest), 4), rest)
    assert arap((moved + torch.tensor(translation, dtype=torch.float64))[None]) < 1e-20


def test_scaling_control_points_costs_the_weighted_square_of_the_stretch() -> None:
    """The best rotation of a scaled neighbourhood is none, so the gap of an edge e is 0.2 e."""
    rest, _, neighbours, weights = cloud()
    edges = (rest[neighbours] - rest[:, None]).square().sum(-1)
    expected = 0.04 * (weights * edges).sum() / weights.sum()
    torch.testing.assert_close(arap(torch.stack([1.2 * rest, 1.2 * rest])), expected)


def test_a_reflection_is_no_rotation() -> None:
    rest = cloud()[0]
    assert arap((rest * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))[None]) > 0.01


def test_the_rotations_may_be_detached() -> None:
    """The gradient is that of the minimum over rotations: finite differences see no other."""
    generator = torch.Generator().manual_seed(5)
    noise = 0.05 * torch.randn(2, 40, 3, generator=generator, dtype=torch.float64)
    assert gradcheck(arap, ((cloud()[0] + noise).requires_grad_(),), atol=1e-6)


def test_the_robust_loss_is_a_square_for_small_errors_and_bounded_for_large_ones() -> None:
    squared = torch.tensor([1e-8, 1.0, 1e8])
    torch.testing.assert_close(geman_mcclure(squared, 2.0), torch.tensor([1e-8, 0.8, 4.0]), rtol=1e-5, atol=0)


TREE = torch.tensor([-1, 0, 1, 0])
TREE_REST = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 0.4]], dtype=torch.float64)
SQUARES = {"loose": 1e3, "stretch": 1e3}  # scales so large that the robust losses are plain squares
IDENTITY = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_frames_that_move_as_one_body_cost_nothing() -> None:
    quat = random(4).expand(2, 4, 4)
    translations = quat_rotate(quat, TREE_REST.expand(2, 4, 3)) + random(3) - TREE_REST
    assert float(carried_bones_loss(TREE_REST, translations, 3 * quat, TREE, **SQUARES)) < 1e-12
    assert float(coherence_loss(quat, TREE)) == pytest.approx(0.0, abs=1e-12)


def test_a_bone_that_its_frame_does_not_carry_costs_the_squared_gap() -> None:
    """Joint 2 rotates by 90 degrees about joint 1, whose frame does not: |(-.5, 0, 0) - (0, .5, 0)|², same length."""
    translations = torch.zeros(1, 4, 3, dtype=torch.float64)
    translations[0, 2] = torch.tensor([-0.5, -0.5, 0.0])
    quats = IDENTITY.repeat(1, 4, 1)
    assert float(carried_bones_loss(TREE_REST, translations, quats, TREE, **SQUARES)) == pytest.approx(0.5 / 3)
    quats[0, 1] = torch.tensor([0.5**0.5, 0.0, 0.0, 0.5**0.5])  # now it does carry it
    assert float(carried_bones_loss(TREE_REST, translations, quats, TREE, **SQUARES)) == pytest.approx(0.0, abs=1e-12)


def test_a_stretched_bone_costs_gap_and_length() -> None:
    translations = torch.zeros(1, 4, 3, dtype=torch.float64)
    translations[0, 3, 2] = 0.1
    loss = carried_bones_loss(TREE_REST, translations, IDENTITY.repeat(1, 4, 1), TREE, **SQUARES)
    assert float(loss) == pytest.approx(2 * 0.1**2 / 3)


def test_a_bone_that_is_far_from_rigid_hardly_pulls() -> None:
    """It may hide a joint that is not a keypoint: at five times the scale it pulls 676 times less than a square."""
    translations = torch.zeros(1, 4, 3, dtype=torch.float64)
    translations[0, 3, 2] = 0.5  # gap and change of length are both 0.5, five times both scales
    pulled = translations.clone().requires_grad_()
    loss = carried_bones_loss(TREE_REST, pulled, IDENTITY.repeat(1, 4, 1), TREE, loose=0.1, stretch=0.1)
    assert float(loss) == pytest.approx(2 * 0.1**2 * 25 / 26 / 3)
    (gradient,) = torch.autograd.grad(loss, pulled)
    assert float(gradient[0, 3, 2]) == pytest.approx(4 * 0.5 / 26**2 / 3)


@pytest.mark.parametrize("name", ["loose", "stretch"])
def test_scales_of_the_handles_must_be_positive(name: str) -> None:
    with pytest.raises(ValueError, match=rf"handles\.{name}"):
        HandlesConfig(**{name: 0.0})


EVEN = torch.linspace(0, 1, 16, dtype=torch.float64)
UNEVEN = torch.tensor([0.0, 0.05, 0.4, 0.5, 1.0], dtype=torch.float64)


def test_steady_motion_has_no_acceleration() -> None:
    for times in (EVEN, UNEVEN):
        steady = times[:, None, None] * random(4, 3)
        assert float(acceleration_loss(steady, times)) == pytest.approx(0.0, abs=1e-12)
    assert float(acceleration_loss(random(2, 4, 3), EVEN[:2])) == 0.0


def test_smoothness_of_sixteen_even_frames_is_that_of_second_differences() -> None:
    values = random(2, 16, 4, 3)
    expected = values.diff(n=2, dim=1).square().sum(-1).mean((1, 2))
    torch.testing.assert_close(acceleration_loss(values, EVEN), expected)


@pytest.mark.parametrize("frames", [6, 16, 48])
def test_the_same_motion_is_as_smooth_however_often_and_when_it_is_seen(frames: int) -> None:
    """A parabola exactly, a slow wave nearly. Second differences make both 3,000 times as smooth at 48 frames."""
    even = torch.linspace(0, 1, frames, dtype=torch.float64)
    for times in (even, (even + 0.1 * (2 * torch.pi * even).sin())):
        parabola = times.square()[:, None, None] * torch.ones(4, 1)
        assert float(acceleration_loss(parabola, times)) == pytest.approx(4 / 15**4)
        wave = (math.pi * times).sin()[:, None, None] * torch.ones(4, 1)
        assert float(acceleration_loss(wave, times)) == pytest.approx(math.pi**4 / 2 / 15**4, rel=0.3)


def test_coherence_is_the_squared_sine_of_half_the_angle() -> None:
    quats = IDENTITY.repeat(1, 4, 1)
    quats[0, 3] = torch.tensor([0.5, 0.0, 0.0, -(0.75**0.5)])  # 120 degrees
    assert float(coherence_loss(quats, TREE)) == pytest.approx(0.75 / 3)
    assert float(coherence_loss(-2 * quats, TREE)) == pytest.approx(0.75 / 3)


def test_frames_without_bones_cost_nothing() -> None:
    alone = torch.full((4,), -1)
    assert float(carried_bones_loss(TREE_REST, random(2, 4, 3), random(2, 4, 4), alone, **SQUARES)) == 0.0
    assert float(coherence_loss(random(2, 4, 4), alone)) == 0.0


def test_the_losses_of_the_frames_have_the_gradients_they_claim() -> None:
    translations, quats = random(3, 4, 3).requires_grad_(), random(3, 4, 4).requires_grad_()
    assert gradcheck(
        lambda s, q: carried_bones_loss(TREE_REST, s, q, TREE, loose=0.5, stretch=0.3), [translations, quats]
    )
    assert gradcheck(lambda q: coherence_loss(q, TREE), [quats])
    assert gradcheck(lambda values: acceleration_loss(values, UNEVEN[:3]), [translations])
