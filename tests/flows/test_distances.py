import math

import ot
import pytest
import torch
from scipy import stats

from kg4d.flows.distances import histogram_distance, kuiper, moments, moments_w2, points_w2
from kg4d.flows.laws import Gaussian

F64 = torch.float64


def test_gaussians_are_as_far_as_pot_says():
    g = torch.Generator().manual_seed(0)
    laws = [
        moments(torch.randn(20, 4, generator=g, dtype=F64) @ torch.randn(4, 4, generator=g, dtype=F64)) for _ in "ab"
    ]
    expected = ot.gaussian.bures_wasserstein_distance(laws[0].mean, laws[1].mean, laws[0].cov, laws[1].cov)
    assert moments_w2(*laws) == pytest.approx(float(expected))
    assert moments_w2(laws[0], laws[0]) == pytest.approx(0, abs=1e-6)
    flat = Gaussian(torch.zeros(2), torch.diag(torch.tensor([1.0, 0.0])))
    assert moments_w2(flat, Gaussian(torch.zeros(2), torch.eye(2))) == pytest.approx(1)


def test_sets_of_points():
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    assert points_w2(x, x.flip(0) + torch.tensor([0.0, 2.0])) == pytest.approx(2)


def test_histograms_count_what_lies_outside():
    edges = torch.tensor([0.0, 1.0, 2.0])
    half = torch.tensor([0.5, 0.5], dtype=F64)
    assert histogram_distance(torch.tensor([0.5, 1.5]), edges, half) == pytest.approx(0)
    assert histogram_distance(torch.tensor([0.5, 0.6]), edges, half) == pytest.approx(0.5)
    assert histogram_distance(torch.tensor([5.0, 6.0]), edges, half) == pytest.approx(1)


def test_kuipers_p_is_uniform_for_uniform_angles():
    g = torch.Generator().manual_seed(0)
    found = [kuiper(2 * math.pi * torch.rand(60, generator=g)) for _ in range(400)]
    assert stats.kstest(found, "uniform").pvalue > 0.01


def test_kuiper_rejects_a_bump_wherever_the_circle_is_cut():
    bump = 0.8 * torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=F64)
    found = [kuiper(bump + shift) for shift in (0.0, 1.0, math.pi)]
    assert max(found) < 1e-10
    even = kuiper(torch.arange(50) * 2 * math.pi / 50)
    assert even == 1.0
