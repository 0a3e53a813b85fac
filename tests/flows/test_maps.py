import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from kg4d.flows.maps import Affine, LinearBasis, Planar, PushForward
from kg4d.flows.metric import PullbackMetric
from kg4d.flows.networks import FlatModule, NeuralODE, ResidualMap, perceptron, runge_kutta

F64 = torch.float64


def bumps(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x.sin().sum(-1), x.square().sum(-1).neg().exp()], -1)


def all_maps() -> dict[str, PushForward]:
    g = torch.Generator().manual_seed(0)
    return {
        "affine": Affine(3),
        "basis": LinearBasis(3, 2, bumps),
        "planar": Planar(3, 4),
        "residual": ResidualMap(3, FlatModule(perceptron(3, 8, 2, g).double())),
        "ode": NeuralODE(3, FlatModule(perceptron(3, 8, 1, g).double())),
    }


@pytest.fixture(params=all_maps())
def push_forward(request: pytest.FixtureRequest) -> PushForward:
    return all_maps()[request.param]


@pytest.fixture
def moved(push_forward: PushForward) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    theta = push_forward.initial(g).double()
    return theta + 0.2 * torch.randn(theta.shape, generator=g, dtype=F64)


Z = torch.randn(7, 3, generator=torch.Generator().manual_seed(2), dtype=F64)


def test_every_map_is_the_identity_at_birth(push_forward):
    theta = push_forward.initial(torch.Generator().manual_seed(3)).double()
    assert theta.shape == (push_forward.size,)
    x, log_det = push_forward.with_log_det(theta, Z)
    torch.testing.assert_close(x, Z)
    torch.testing.assert_close(log_det, torch.zeros(7, dtype=F64))


def test_the_log_determinant_is_that_of_finite_differences(push_forward, moved):
    h, unit = 1e-6, torch.eye(3, dtype=F64)
    columns = [(push_forward(moved, Z + h * e) - push_forward(moved, Z - h * e)) / (2 * h) for e in unit]
    expected = torch.linalg.slogdet(torch.stack(columns, -1))[1]
    x, log_det = push_forward.with_log_det(moved, Z)
    torch.testing.assert_close(x, push_forward(moved, Z))
    torch.testing.assert_close(log_det, expected, atol=1e-8, rtol=0)


def test_gradients_by_the_parameters(push_forward, moved):
    def both(theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return push_forward.with_log_det(theta, Z[:2])

    assert torch.autograd.gradcheck(both, moved.requires_grad_())


@given(st.integers(0, 10_000), st.floats(0.1, 30.0))
def test_planar_layers_are_invertible_for_all_parameters(seed, size):
    """Also for w . u far below -1, where the layer as it is usually written folds."""
    g = torch.Generator().manual_seed(seed)
    planar = Planar(3, 3)
    theta = size * torch.randn(planar.size, generator=g, dtype=F64)
    _, _, _, kept = planar.parts(theta)
    assert (kept > -1).all()
    z = torch.randn(5, 3, generator=g, dtype=F64)
    x, log_det = planar.with_log_det(theta, z)
    assert log_det.isfinite().all()
    if float(log_det.min()) > -12:  # else the inverse is ill-conditioned
        torch.testing.assert_close(planar.inverse(theta, x), z, atol=1e-6, rtol=1e-6)


def test_a_planar_layer_without_a_direction_moves_everything_alike():
    planar = Planar(2, 1)
    theta = torch.tensor([0.0, 0.0, 1.0, 2.0, 0.5], requires_grad=True)
    x, log_det = planar.with_log_det(theta, torch.zeros(3, 2))
    torch.testing.assert_close(x, math.tanh(0.5) * torch.tensor([[1.0, 2.0]]).expand(3, 2))
    assert (log_det == 0).all()
    (gradient,) = torch.autograd.grad(x.sum(), theta)
    assert gradient.isfinite().all()


def test_a_planar_layer_with_a_faint_direction_changes_no_faster_with_it():
    planar, z = Planar(2, 1), Z[:, :2]
    for length in (1e-1, 1e-3, 1e-6):
        theta = torch.tensor([0.6 * length, 0.8 * length, -1.0, 2.0, 0.5], dtype=F64)
        by_w = PullbackMetric(lambda at: planar(at, z), theta).jacobian()[:, :2]
        assert by_w.abs().max() < 10  # with a softplus, 1 / length


def test_an_ode_with_a_linear_field_is_the_matrix_exponential():
    linear = nn.Linear(2, 2, bias=False).double()
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[0.0, -1.0], [1.0, 0.3]]))
    ode = NeuralODE(2, FlatModule(linear), steps=32)
    flow = torch.linalg.matrix_exp(linear.weight.detach())
    x, log_det = ode.with_log_det(ode.initial(torch.Generator()), Z[:, :2])
    torch.testing.assert_close(x, Z[:, :2] @ flow.mT, atol=1e-7, rtol=0)
    torch.testing.assert_close(log_det, torch.full((7,), 0.3, dtype=F64), atol=1e-7, rtol=0)  # the trace


def test_runge_kutta_is_of_fourth_order():
    errors = []
    for steps in (4, 8):
        x = torch.ones(1, 1, dtype=F64)
        for _ in range(steps):
            x = runge_kutta(lambda x: -x, x, 1 / steps)
        errors.append(abs(float(x) - math.exp(-1)))
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.15)


def test_a_flat_module_is_its_module_and_leaves_it_alone():
    module = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    module[0].bias.requires_grad_(False)
    flat, x = FlatModule(module), torch.randn(4, 2)
    assert flat.size == 6 + 3 + 1
    torch.testing.assert_close(flat(flat.initial(), x), module(x))
    before = [p.clone() for p in module.parameters()]
    flat(flat.initial() + 1, x)
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters()))


def test_a_module_of_some_of_its_parameters_keeps_the_others():
    linear, x = nn.Linear(2, 1), torch.randn(4, 2)
    linear.requires_grad_(False)  # what is chosen need not be trainable
    flat = FlatModule(linear, [linear.bias])
    assert flat.size == 1
    assert flat.parameters[0] is linear.bias
    torch.testing.assert_close(flat(torch.tensor([5.0]), x), linear(x) - linear.bias + 5)


def test_networks_come_from_the_generator_alone():
    torch.manual_seed(5)
    first = FlatModule(perceptron(2, 4, 1, torch.Generator().manual_seed(0))).initial()
    state = torch.get_rng_state()
    second = FlatModule(perceptron(2, 4, 1, torch.Generator().manual_seed(0))).initial()
    assert torch.equal(first, second)
    assert torch.equal(state, torch.get_rng_state())
