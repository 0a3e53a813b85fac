"""Errors of depth in closed form, and what counts."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kg4d.metrics.depth import AbsRel, WithinRatio, relative_errors, within_ratio
from kg4d.metrics.state import measured


def test_closed_forms() -> None:
    target = torch.tensor([[[2.0, 4.0], [1.0, 10.0]]])
    pred = torch.tensor([[[2.2, 3.0], [0.0, 99.0]]])
    weights = torch.tensor([[[1.0, 0.5], [1.0, 0.0]]])  # a pixel that nothing covers is an error of 1
    assert float(measured(AbsRel(), pred, target, weights)) == pytest.approx((0.1 + 0.25 + 1) / 3)
    assert float(measured(WithinRatio(), pred, target, weights)) == pytest.approx(1 / 3)


@given(factor=st.floats(0.5, 2.0))
def test_a_wrong_scale_is_not_forgiven(factor: float) -> None:
    target = 1 + torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = torch.ones_like(target)
    assert float(relative_errors(factor * target, target, weights).mean()) == pytest.approx(abs(factor - 1), abs=1e-12)
    inside = 0.8 + 1e-9 < factor < 1.25 - 1e-9
    if inside or not 0.8 - 1e-9 < factor < 1.25 + 1e-9:
        assert float(within_ratio(factor * target, target, weights).mean()) == float(inside)


def test_parts_add_up_and_nothing_known_is_nan() -> None:
    generator = torch.Generator().manual_seed(0)
    target, pred = (1 + torch.rand(3, 4, 5, generator=generator) for _ in range(2))
    weights = (torch.rand(3, 4, 5, generator=generator) > 0.3).float()
    for metric in (AbsRel, WithinRatio):
        parts = metric()
        for image in range(3):
            parts.update(pred[image], target[image], weights[image])
        assert float(parts.compute()) == pytest.approx(float(measured(metric(), pred, target, weights)))
        assert math.isnan(float(measured(metric(), pred, target, 0 * weights)))
