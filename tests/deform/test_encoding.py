import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kg4d.deform.encoding import HSE, HarmonicEncoding
from kg4d.deform.settings import HseConfig


def points(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def ones(count: int) -> HseConfig:
    return HseConfig(space_frequencies=[1.0] * count, time_frequencies=[1.0] * count, include_input=False)


def test_features_are_the_formula() -> None:
    encoding = HSE(HseConfig(space_frequencies=[2.0], time_frequencies=[3.0, 5.0]), scene_radius=4.0)
    x, t = torch.tensor([[1.0, -2.0, 0.5]]), 0.3
    u = (x / 4).flatten().tolist()
    space = [*u, *(math.sin(2 * v) for v in u), *(math.cos(2 * v) for v in u)]
    time = [t, *(math.sin(w * t) for w in (3, 5)), *(math.cos(w * t) for w in (3, 5))]
    torch.testing.assert_close(encoding(x, torch.tensor([t])), torch.tensor([[space + time]]))


def test_widths_are_those_announced() -> None:
    for config in (HseConfig(), ones(3), replace(ones(2), include_input=True)):
        encoding = HSE(config, 1.0)
        features = encoding(torch.zeros(4, 3), torch.zeros(2))
        assert features.shape == (2, 4, encoding.space_width + encoding.time_width)


def test_equal_frequencies_add_nothing() -> None:
    times = torch.linspace(0, 1, 20, dtype=torch.float64)

    def rank(config: HseConfig) -> tuple[int, int]:
        features = HSE(config, 1.0)(points(60), times).flatten(0, 1)
        return int(torch.linalg.matrix_rank(features)), features.shape[1]

    assert rank(ones(6)) == (8, 48)
    assert rank(ones(1)) == (8, 8)
    octaves = HseConfig([2.0**k for k in range(6)], [2.0**k for k in range(6)], include_input=False)
    assert rank(octaves)[0] > 40


@given(st.floats(0.5, 4), st.integers(0, 5))
def test_features_repeat_after_a_period(frequency: float, seed: int) -> None:
    encoding = HarmonicEncoding([frequency, 2 * frequency], include_input=False)
    x = points(5, seed)
    exact = encoding.frequencies[0].double().item()  # kept in float32
    torch.testing.assert_close(encoding(x + 2 * math.pi / exact), encoding(x), rtol=0, atol=1e-12)
    assert not torch.allclose(encoding(x + 1 / exact), encoding(x), atol=1e-2)


def test_derivative_in_time_agrees_with_differences() -> None:
    encoding, means = HSE(HseConfig(), 0.8), points(4)
    times = torch.tensor([0.2, 0.7], dtype=torch.float64)
    _, slope = torch.func.jvp(lambda t: encoding(means, t), (times,), (torch.ones_like(times),))
    step = 1e-6
    differences = (encoding(means, times + step) - encoding(means, times - step)) / (2 * step)
    torch.testing.assert_close(slope, differences, rtol=1e-6, atol=1e-8)
    assert slope[..., : encoding.space_width].abs().max() == 0


def test_banks_are_separate() -> None:
    encoding = HSE(HseConfig(), 1.0)
    assert encoding.time(torch.tensor([0.5])).shape == (1, 5)
    assert encoding.space(points(2)).shape == (2, 27)


def test_what_encodes_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="radius"):
        HSE(HseConfig(), 0.0)
    with pytest.raises(ValueError, match="empty"):
        HSE(HseConfig(space_frequencies=[], include_input=False), 1.0)
