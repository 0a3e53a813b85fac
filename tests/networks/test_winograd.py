"""Transformed filters give what direct convolutions give, and networks with them what they give without."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kg4d.networks import lpips as lpips_module
from kg4d.networks import winograd
from kg4d.networks.i3d import I3D, _pad_same, _pool
from kg4d.networks.lpips import LPIPS, Backbone, DeepMeans
from kg4d.networks.winograd import Convolution2d, relu_convolution, transform, transformed


@settings(max_examples=25, deadline=None)
@given(
    taps=st.sampled_from([1, 3]),
    length=st.integers(1, 4),
    batch=st.integers(1, 3),
    height=st.integers(1, 13),
    width=st.integers(1, 13),
    chunk=st.sampled_from([1, 5_000, 1 << 21]),
)
def test_it_is_the_direct_convolution(taps: int, length: int, batch: int, height: int, width: int, chunk: int) -> None:
    """Of any size, however it is cut into strips; float64 tells a wrong formula from rounding."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(length, batch, height, width, 5, generator=g, dtype=torch.float64)
    weight = torch.randn(7, 5, taps, 3, 3, generator=g, dtype=torch.float64)
    bias = torch.randn(7, generator=g, dtype=torch.float64)
    expected = F.relu(F.conv3d(x.permute(1, 4, 0, 2, 3), weight, bias, padding=(taps // 2, 1, 1)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "_CHUNK", chunk)
        found = relu_convolution(x, transform(weight), bias)
    assert torch.allclose(found.permute(1, 4, 0, 2, 3), expected, atol=1e-11)


def test_rounding_stays_near_that_of_float32() -> None:
    g = torch.Generator().manual_seed(0)
    x, weight = torch.randn(1, 2, 16, 16, 256, generator=g).relu(), torch.randn(64, 256, 3, 3, generator=g) / 48
    exact = F.relu(F.conv2d(x[0].double().movedim(-1, 1), weight.double(), padding=1)).movedim(1, -1)
    found = relu_convolution(x, transform(weight), torch.zeros(64))[0]
    assert (found - exact).norm() / exact.norm() < 5e-6


def random_network(network: LPIPS | I3D) -> LPIPS | I3D:
    """Weights of the size that keeps the size of the features."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight)
            nn.init.uniform_(module.bias, -0.1, 0.1)
    for head in getattr(network, "heads", ()):
        nn.init.uniform_(head)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("net", Backbone)
@pytest.mark.parametrize("strip", [20_000, 1 << 21])
def test_lpips_is_the_same_with_transformed_filters(net: Backbone, strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_network(LPIPS(net))
    monkeypatch.setattr(lpips_module, "_STRIP", strip)
    a = 2 * torch.rand(2, 3, 70, 51) - 1
    b = (a + 0.2 * torch.randn_like(a)).clamp(-1, 1)
    plain = network.compare(a, b)
    with transformed(network):
        fast, means = network.compare(a, b), DeepMeans(network)((a + 1) / 2)
    for found, expected in zip(fast, plain, strict=True):
        assert (found - expected).norm() / expected.norm() < 2e-5
    assert (means - plain.pred_means).norm() / means.norm() < 2e-5
    assert torch.equal(network.compare(a, b).distances, plain.distances)


def test_i3d_is_the_same_with_transformed_filters() -> None:
    network, video = random_network(I3D()), 2 * torch.rand(1, 3, 9, 224, 224) - 1
    plain = network(video)
    with transformed(network):
        assert sum(getattr(module, "filters", None) is not None for module in network.modules()) == 19
        fast = network(video)
    assert (fast - plain).norm() / plain.norm() < 2e-5
    assert all(getattr(module, "filters", None) is None for module in network.modules())


def test_only_what_gains_is_transformed() -> None:
    layers = nn.Sequential(
        Convolution2d(3, 32, 3, padding=1),  # too few channels
        Convolution2d(32, 32, 3, padding=1),
        Convolution2d(32, 32, 3, stride=2, padding=1),
        Convolution2d(32, 32, 5, padding=2),
        Convolution2d(32, 32, 3, padding=0),
        Convolution2d(32, 32, 3, padding=1).double(),
    )
    with transformed(layers):
        assert [layer.filters is not None for layer in layers] == [False, True, False, False, False, False]


@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 3), (2, 2, 2)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [2, 5, 8])
def test_pooling_is_that_of_torch(kernel: tuple[int, int, int], stride: int, size: int) -> None:
    x = torch.rand(2, 3, size, size + 1, size + 2).contiguous(memory_format=torch.channels_last_3d)
    strides = (1 if kernel[0] == 1 else stride, stride, stride)
    assert torch.equal(_pool(x, kernel, strides), F.max_pool3d(_pad_same(x, kernel, strides), kernel, strides))
    assert torch.equal(_pool(x.clone().requires_grad_(), kernel, strides), _pool(x, kernel, strides))
