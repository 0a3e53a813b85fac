import pytest
import torch
from torch import nn

from kg4d.flows.energies import Entropy, Potential
from kg4d.flows.laws import OrnsteinUhlenbeck, standard_normal, whitened
from kg4d.flows.maps import Affine
from kg4d.flows.networks import FlatModule, perceptron
from kg4d.flows.pwgf import BilevelConfig, Psi, bilevel_flow
from kg4d.flows.rpwgf import FlowDivergedError, Problem

WHITE = whitened(torch.randn(60, 2, generator=torch.Generator().manual_seed(0)))


class Quadratic(nn.Module):
    """psi(x) = x . S x + c . x: all the gradient fields that are affine."""

    def __init__(self) -> None:
        super().__init__()
        self.S, self.c = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ((x @ self.S * x).sum(-1) + x @ self.c)[:, None]


@pytest.mark.parametrize("network", [Quadratic(), perceptron(2, 24, 1, torch.Generator().manual_seed(1), out=1)])
def test_psi_sees_stretches_and_not_turns(network):
    """A turn leaves a round law alone: no gradient field is near it, and the metric of densities calls it free.

    With many points: a few can be fitted by the gradient of a network whatever their changes are.
    """
    many = whitened(torch.randn(1500, 2, generator=torch.Generator().manual_seed(0)))
    turn, stretch = torch.tensor([[0.0, -1.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.5], [0.5, -0.3]])
    psi = Psi(FlatModule(network), 0.02)
    psi.fit(many, many @ (turn + stretch).mT, 300)
    found = psi.gradient(many).detach()
    wanted = many @ stretch.mT
    assert float((found - wanted).square().sum(-1).mean()) < 0.1 * float(wanted.square().sum(-1).mean())


def test_an_affine_map_follows_the_exact_law():
    """A Gaussian's velocity is the gradient of a quadratic, so both metrics give the true flow: up to h and Adam."""
    truth = OrnsteinUhlenbeck(torch.tensor([1.0, 0.0]), torch.tensor([[2.0, 0.5], [0.5, 1.0]]), standard_normal(2))
    problem = Problem(Potential(truth.potential) + Entropy(), Affine(2), standard_normal(2))
    theta = Affine(2).initial(torch.Generator())
    config = BilevelConfig(outer=80, theta_rate=5e-3)
    steps = list(
        bilevel_flow(problem, theta, lambda _: WHITE, FlatModule(Quadratic()), step=0.05, steps=6, config=config)
    )
    U, b = Affine(2).parts(steps[-1].theta)
    law = truth.at(0.3)
    assert float((b - law.mean).norm()) < 0.05  # the mean has moved by .43
    assert float((U @ U.mT - law.cov).norm()) < 0.08  # the covariance by .41
    assert all(step.energy < step.energy_before for step in steps)
    assert all(0.7 < step.gradient_part <= 1.001 for step in steps[2:])


def test_wrong_settings_and_energies():
    with pytest.raises(ValueError, match="positive rates"):
        BilevelConfig(theta_rate=0.0)
    problem = Problem(Potential(lambda x: x[:, 0] / 0), Affine(2), standard_normal(2))
    theta = Affine(2).initial(torch.Generator())
    with pytest.raises(FlowDivergedError, match="smaller steps"):
        next(bilevel_flow(problem, theta, lambda _: WHITE, FlatModule(Quadratic()), step=0.1, steps=1))
    with pytest.raises(ValueError, match="need step > 0"):
        next(bilevel_flow(problem, theta, lambda _: WHITE, FlatModule(Quadratic()), step=-0.1, steps=1))
