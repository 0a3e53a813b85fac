import pytest
import torch
from torch.autograd import gradcheck

from kg4d.geometry.rotations import quat_rotate
from kg4d.losses.motion_priors import HandlesConfig, acceleration_loss, carried_bones_loss, coherence_loss

PARENTS = torch.tensor([-1, 0, 1, 0])
REST = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 0.4]], dtype=torch.float64)
FIRM = {"loose": 1e3, "stretch": 1e3}  # squares throughout
STILL = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)


def wild(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_a_body_that_moves_as_one_costs_nothing() -> None:
    quat = wild(4).expand(2, 4, 4)
    shifts = quat_rotate(quat, REST.expand(2, 4, 3)) + wild(3) - REST
    assert float(carried_bones_loss(REST, shifts, 3 * quat, PARENTS, **FIRM)) < 1e-12
    assert float(coherence_loss(quat, PARENTS)) == pytest.approx(0.0, abs=1e-12)


def test_a_bone_that_its_frame_does_not_carry_costs_the_squared_gap() -> None:
    """Joint 2 turns by a right angle about joint 1, whose frame stays: |(-.5, 0, 0) - (0, .5, 0)|², no new length."""
    shifts = torch.zeros(1, 4, 3, dtype=torch.float64)
    shifts[0, 2] = torch.tensor([-0.5, -0.5, 0.0])
    quats = STILL.repeat(1, 4, 1)
    assert float(carried_bones_loss(REST, shifts, quats, PARENTS, **FIRM)) == pytest.approx(0.5 / 3)
    quats[0, 1] = torch.tensor([0.5**0.5, 0.0, 0.0, 0.5**0.5])  # now it does carry it
    assert float(carried_bones_loss(REST, shifts, quats, PARENTS, **FIRM)) == pytest.approx(0.0, abs=1e-12)


def test_a_stretched_bone_costs_gap_and_length() -> None:
    shifts = torch.zeros(1, 4, 3, dtype=torch.float64)
    shifts[0, 3, 2] = 0.1
    loss = carried_bones_loss(REST, shifts, STILL.repeat(1, 4, 1), PARENTS, **FIRM)
    assert float(loss) == pytest.approx(2 * 0.1**2 / 3)


def test_a_bone_that_is_far_from_rigid_hardly_pulls() -> None:
    """As where a joint that is no keypoint lies inside it: at five scales the pull is a 676th of a square's."""
    shifts = torch.zeros(1, 4, 3, dtype=torch.float64)
    shifts[0, 3, 2] = 0.5  # gap and change of length are both 0.5, five times both scales
    pulled = shifts.clone().requires_grad_()
    loss = carried_bones_loss(REST, pulled, STILL.repeat(1, 4, 1), PARENTS, loose=0.1, stretch=0.1)
    assert float(loss) == pytest.approx(2 * 0.1**2 * 25 / 26 / 3)
    (gradient,) = torch.autograd.grad(loss, pulled)
    assert float(gradient[0, 3, 2]) == pytest.approx(4 * 0.5 / 26**2 / 3)


@pytest.mark.parametrize("name", ["loose", "stretch"])
def test_scales_must_be_positive(name: str) -> None:
    with pytest.raises(ValueError, match=rf"handles\.{name}"):
        HandlesConfig(**{name: 0.0})


def test_steady_motion_has_no_acceleration() -> None:
    times = torch.arange(5, dtype=torch.float64)[:, None, None]
    assert float(acceleration_loss(times * wild(4, 3))) == pytest.approx(0.0, abs=1e-12)
    assert float(acceleration_loss(times.square() * torch.ones(4, 1))) == pytest.approx(4.0)
    assert float(acceleration_loss(wild(2, 4, 3))) == 0.0


def test_coherence_is_the_squared_sine_of_half_the_angle() -> None:
    quats = STILL.repeat(1, 4, 1)
    quats[0, 3] = torch.tensor([0.5, 0.0, 0.0, -(0.75**0.5)])  # 120 degrees
    assert float(coherence_loss(quats, PARENTS)) == pytest.approx(0.75 / 3)
    assert float(coherence_loss(-2 * quats, PARENTS)) == pytest.approx(0.75 / 3)


def test_no_bones_cost_nothing() -> None:
    alone = torch.full((4,), -1)
    assert float(carried_bones_loss(REST, wild(2, 4, 3), wild(2, 4, 4), alone, **FIRM)) == 0.0
    assert float(coherence_loss(wild(2, 4, 4), alone)) == 0.0


def test_the_gradients_are_those_of_the_functions() -> None:
    shifts, quats = wild(3, 4, 3).requires_grad_(), wild(3, 4, 4).requires_grad_()
    assert gradcheck(lambda s, q: carried_bones_loss(REST, s, q, PARENTS, loose=0.5, stretch=0.3), [shifts, quats])
    assert gradcheck(lambda q: coherence_loss(q, PARENTS), [quats])
    assert gradcheck(acceleration_loss, [shifts])
