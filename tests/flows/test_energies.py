import math

import pytest
import torch

from kg4d.flows.energies import (
    Energy,
    Entropy,
    Interaction,
    Internal,
    Potential,
    Sample,
    kullback_leibler,
    push,
    wasserstein_gradient,
)
from kg4d.flows.laws import Gaussian, standard_normal
from kg4d.flows.maps import Affine, Planar

F64 = torch.float64
LAW = Gaussian(torch.tensor([0.5, -0.2], dtype=F64), torch.tensor([[1.0, 0.3], [0.3, 0.5]], dtype=F64))
TARGET = Gaussian(torch.tensor([0.0, 1.0], dtype=F64), torch.diag(torch.tensor([2.0, 1.0], dtype=F64)))


def sample_of(law: Gaussian, count: int) -> Sample:
    x = law.sample(count, torch.Generator().manual_seed(0))
    return Sample(x, law.log_density(x))


def closed_forms() -> dict[str, tuple[Energy, float]]:
    det, d = float(torch.linalg.det(LAW.cov)), 2
    entropy = -0.5 * math.log((2 * math.pi * math.e) ** d * det)
    second = float(LAW.cov.trace() + LAW.mean.square().sum())
    inverse = torch.linalg.inv(TARGET.cov)
    gap = TARGET.mean - LAW.mean
    ratio = float(torch.linalg.det(TARGET.cov)) / det
    divergence = 0.5 * (float((inverse @ LAW.cov).trace() + gap @ inverse @ gap) - d + math.log(ratio))
    return {
        "potential": (Potential(lambda x: x.square().sum(-1)), second),
        "entropy": (Entropy(0.7), 0.7 * entropy),
        "internal m = 2": (Internal(2.0), 1 / (4 * math.pi * math.sqrt(det))),
        "interaction": (Interaction(lambda x: x.square().sum(-1)), float(LAW.cov.trace())),
        "sum": (Potential(lambda x: x.square().sum(-1)) + Entropy(0.7), second + 0.7 * entropy),
        "kullback leibler": (kullback_leibler(TARGET), divergence),
    }


@pytest.mark.parametrize("name", closed_forms())
def test_values_of_a_gaussian(name):
    energy, expected = closed_forms()[name]
    assert float(energy.value(sample_of(LAW, 4000))) == pytest.approx(expected, abs=0.05, rel=0.03)


@pytest.mark.parametrize("name", closed_forms())
def test_the_variation_is_the_derivative_along_a_transport(name):
    """d/de F((1 + e xi)_# rho) = E[grad of the variation . xi], for a linear field xi."""
    energy, _ = closed_forms()[name]
    A = torch.tensor([[0.4, -0.8], [0.3, 0.2]], dtype=F64)
    identity = Affine(2)
    z = LAW.sample(20_000, torch.Generator().manual_seed(1))[:2000]
    theta = identity.initial(torch.Generator()).double().requires_grad_()
    value = energy.value(push(identity, LAW, theta, z))
    (by_theta,) = torch.autograd.grad(value, theta)
    along = torch.cat([A.flatten(), torch.zeros(2, dtype=F64)])
    velocity = wasserstein_gradient(energy, identity, LAW, theta, z)
    expected = (velocity * (z @ A.mT)).sum(-1).mean()
    assert float(by_theta @ along) == pytest.approx(float(expected), abs=0.06)


def test_the_wasserstein_gradient_of_a_divergence_is_the_difference_of_scores():
    planar = Planar(2, 3)
    g = torch.Generator().manual_seed(2)
    theta = planar.initial(g).double()
    theta = theta + 0.3 * torch.randn(theta.shape, generator=g, dtype=F64)
    base = standard_normal(2, F64)
    z = torch.randn(6, 2, generator=g, dtype=F64)
    found = wasserstein_gradient(kullback_leibler(TARGET), planar, base, theta, z)
    x = planar(theta, z).detach()
    h, differences = 1e-5, []

    def log_ratio(x: torch.Tensor) -> torch.Tensor:
        back = planar.inverse(theta, x)
        return push(planar, base, theta, back).log_density - TARGET.log_density(x)

    for e in torch.eye(2, dtype=F64):
        differences.append((log_ratio(x + h * e) - log_ratio(x - h * e)) / (2 * h))
    torch.testing.assert_close(found, torch.stack(differences, -1), atol=1e-6, rtol=1e-5)


def test_at_the_target_nothing_flows():
    z = TARGET.sample(10, torch.Generator().manual_seed(0))
    theta = Affine(2).initial(torch.Generator()).double()
    still = wasserstein_gradient(kullback_leibler(TARGET), Affine(2), TARGET, theta, z)
    torch.testing.assert_close(still, torch.zeros_like(still))


def test_energies_of_densities_ask_for_them():
    sample = Sample(torch.zeros(3, 2), None)
    for energy in (Entropy(), Internal(2.0), Potential(lambda x: x[:, 0]) + Entropy()):
        assert energy.needs_density
        with pytest.raises(ValueError, match="needs the density"):
            energy.value(sample)
    assert not (Potential(lambda x: x[:, 0]) + Interaction(lambda x: x[..., 0])).needs_density
