import math

import pytest
import torch
from scipy import stats

from kg4d.flows.laws import Barenblatt, Gaussian, Law, OrnsteinUhlenbeck, standard_normal, whitened

F64 = torch.float64


def some_gaussian() -> Gaussian:
    root = torch.tensor([[1.0, 0.0], [0.7, 0.5]], dtype=F64)
    return Gaussian(torch.tensor([0.3, -1.0], dtype=F64), root @ root.mT)


def test_the_gaussian_density_is_scipys():
    law = some_gaussian()
    x = law.sample(5, torch.Generator().manual_seed(0))
    expected = stats.multivariate_normal(law.mean.numpy(), law.cov.numpy()).logpdf(x.numpy())
    torch.testing.assert_close(law.log_density(x), torch.from_numpy(expected))
    assert isinstance(law, Law)


def test_whitened_points_have_mean_0_and_covariance_1():
    z = whitened(torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=F64) * 5 + 2)
    torch.testing.assert_close(z.mean(0), torch.zeros(3, dtype=F64))
    torch.testing.assert_close(z.mT @ z / 50, torch.eye(3, dtype=F64))
    with pytest.raises(ValueError, match="3 points"):
        whitened(torch.randn(3, 3))


def test_the_ornstein_uhlenbeck_moments_solve_their_equations():
    """m' = -Q (m - mu), C' = -QC - CQ + 2D, by central differences."""
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=F64))[0]
    Q = turn @ torch.diag(torch.tensor([0.5, 1.0, 4.0], dtype=F64)) @ turn.mT
    process = OrnsteinUhlenbeck(torch.tensor([1.0, 2, 3], dtype=F64), Q, standard_normal(3, F64), diffusion=0.7)
    h, at = 1e-5, process.at(0.4)
    before, after = process.at(0.4 - h), process.at(0.4 + h)
    torch.testing.assert_close((after.mean - before.mean) / (2 * h), -Q @ (at.mean - process.centre), atol=1e-8, rtol=0)
    rate = -Q @ at.cov - at.cov @ Q + 2 * 0.7 * torch.eye(3, dtype=F64)
    torch.testing.assert_close((after.cov - before.cov) / (2 * h), rate, atol=1e-8, rtol=0)
    torch.testing.assert_close(process.at(0.0).cov, torch.eye(3, dtype=F64))


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("exponent", [2.0, 3.0])
def test_barenblatts_profile_has_mass_1_and_solves_the_equation(dim, exponent):
    law, n = Barenblatt(dim, exponent, 0.6), 400_001
    r = torch.linspace(0, 1.2 * law.radius, n, dtype=F64)

    def density(time: float) -> torch.Tensor:
        x = torch.zeros(n, dim, dtype=F64)
        x[:, 0] = r
        return Barenblatt(dim, exponent, time).log_density(x).exp()

    shell = 2.0 if dim == 1 else 2 * math.pi * r
    assert float(torch.trapezoid(density(0.6) * shell, r)) == pytest.approx(1, abs=1e-6)
    inside = slice(n // 10, n // 2)
    by_time = (density(0.6 + 1e-5) - density(0.6 - 1e-5)) / 2e-5
    power = density(0.6) ** exponent
    step = float(r[1] - r[0])
    stride = 200  # a difference quotient over more than rounding
    wide = stride * step
    second = (power.roll(-stride) - 2 * power + power.roll(stride)) / wide**2
    first = (power.roll(-stride) - power.roll(stride)) / (2 * wide)
    laplacian = second + (dim - 1) * first / r.clamp_min(step)
    torch.testing.assert_close(by_time[inside], laplacian[inside], atol=1e-5, rtol=1e-4)


def test_barenblatts_samples_follow_its_density():
    law = Barenblatt(2, 2.0, 0.3)
    r = law.sample(20_000, torch.Generator().manual_seed(0)).norm(dim=-1) / law.radius
    assert stats.kstest(r.square().numpy(), stats.beta(1, 2).cdf).pvalue > 0.05
    with pytest.raises(ValueError, match="whole"):
        Barenblatt(2, 2.7, 1.0).sample(3, torch.Generator())
