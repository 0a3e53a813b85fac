"""What Consistent4D's script prints, and the paired distance."""

import numpy as np
import pytest
import torch

from kg4d.metrics.video import c4d_distance, paired_distance


def test_c4d_distance_is_frechet_with_the_scalar_variance_of_one_video() -> None:
    """`np.cov` of one row used to give the variance of its entries; the script adds |difference of means|^2."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 3, 400, generator=generator, dtype=torch.float64)
    b = 2 * b + 1
    expected = []
    for one, two in zip(a.numpy(), b.numpy(), strict=True):
        variances = np.cov(one), np.cov(two)
        expected.append(np.square(one - two).sum() + sum(variances) - 2 * np.sqrt(np.prod(variances)))
    assert c4d_distance(a, b).tolist() == pytest.approx(expected)


def test_paired_distance_is_squared_and_keeps_pairs_together() -> None:
    a = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    b = torch.tensor([[3.0, 4.0], [1.0, 1.0]])
    assert paired_distance(a, b).tolist() == [25.0, 0.0]
    assert paired_distance(a, b.flip(0)).tolist() == [2.0, 13.0]
