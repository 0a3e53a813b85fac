import math

import pytest
import torch
from torch import Tensor, nn

from kg4d.deform.base import RestGaussians
from kg4d.deform.build import build_deformation
from kg4d.deform.hexplane import HexPlane
from kg4d.deform.offsets import OffsetMlp, anchored, apply_offsets
from kg4d.deform.settings import Activation, DeformationConfig, DeformationKind, HexPlaneConfig
from kg4d.gaussians.moving import MovingGaussians
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.rotations import quat_to_matrix
from tests import make


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mlp(activation: Activation, depth: int = 3, widths: tuple[int, int, int] = (5, 3, 2)) -> OffsetMlp:
    generator = torch.Generator().manual_seed(3)
    net = OffsetMlp(*widths, width=7, depth=depth, activation=activation, scalings=3, generator=generator).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.4, generator=generator)
    return net


def plain(net: OffsetMlp, features: Tensor) -> Tensor:
    """The same network written down layer by layer on concatenated features."""
    layers = [net.first, *[layer for layer in net.rest if isinstance(layer, nn.Linear)]]
    act = torch.relu if isinstance(net.activation, nn.ReLU) else nn.functional.silu
    for layer in layers[:-1]:
        features = act(features @ layer.weight.mT + layer.bias)
    return features @ layers[-1].weight.mT + layers[-1].bias


@pytest.mark.parametrize("activation", list(Activation))
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("widths", [(5, 3, 2), (5, 3, 0), (0, 0, 2)])
def test_the_network_is_a_plain_mlp_with_its_gradients(
    activation: Activation, depth: int, widths: tuple[int, int, int]
) -> None:
    net, (batch, count) = mlp(activation, depth, widths), (4, 6)
    space, time, joint = normal(count, widths[0]), normal(batch, widths[1], seed=1), normal(batch, count, widths[2])
    whole = torch.cat([space.expand(batch, -1, -1), time[:, None].expand(-1, count, -1), joint], dim=-1)
    ours = net(*(part if part.shape[-1] else None for part in (space, time, joint)))
    theirs = plain(net, whole)
    torch.testing.assert_close(ours, theirs)
    weights = list(net.parameters())
    upstream = normal(*ours.shape, seed=2)
    for mine, reference in zip(
        torch.autograd.grad(ours, weights, upstream), torch.autograd.grad(theirs, weights, upstream), strict=True
    ):
        torch.testing.assert_close(mine, reference)


def canonical(count: int = 4) -> GaussianState:
    return make.random_gaussians(count, dtype=torch.float64)


def test_offsets_shift_turn_and_scale() -> None:
    state, offsets = canonical(), normal(2, 4, 10, seed=5) * 0.3
    moved = apply_offsets(MovingGaussians.still(state, 2), offsets)
    torch.testing.assert_close(moved.means, state.means + offsets[..., :3])
    torch.testing.assert_close(moved.scales.log(), state.scales.log() + offsets[..., 7:])
    unit = state.quats / state.quats.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(quat_to_matrix(moved.quats), quat_to_matrix(unit + offsets[..., 3:7]))


def test_one_scaling_serves_all_axes() -> None:
    moved = apply_offsets(MovingGaussians.still(canonical(), 1), normal(1, 4, 8))
    ratio = moved.scales / canonical().scales
    torch.testing.assert_close(ratio, ratio[..., :1].expand(-1, -1, 3))


def test_anchored_offsets_count_from_time_0_whatever_the_others_in_the_batch() -> None:
    table = normal(4, 10)

    def offsets_at(times: Tensor) -> Tensor:
        return table + times.cos()[:, None, None] * table.square()

    since = anchored(offsets_at, torch.tensor([0.5, 0.0, 1e-9], dtype=torch.float64))
    torch.testing.assert_close(since[0], (math.cos(0.5) - 1) * table.square())
    assert torch.equal(since[1], torch.zeros_like(table))
    torch.testing.assert_close(since[2], torch.zeros_like(table), atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", [DeformationKind.HSE, DeformationKind.HEXPLANE])
def test_gradients_are_those_of_differences(kind: DeformationKind) -> None:
    config = DeformationConfig(
        kind, width=4, depth=2, activation=Activation.SILU, hexplane=HexPlaneConfig(3, 3, channels=2, levels=[1])
    )
    module = build_deformation(config, RestGaussians(torch.zeros(1, 3), 1.5), torch.Generator().manual_seed(0)).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(1))
    names, values = zip(*module.named_parameters(), strict=True)
    state, times = canonical(2), torch.tensor([0.0, 0.4], dtype=torch.float64)

    def run(*weights: Tensor) -> tuple[Tensor, ...]:
        out = torch.func.functional_call(module, dict(zip(names, weights, strict=True)), (state, times))
        return out.means, out.quats, out.scales

    assert torch.autograd.gradcheck(run, values, fast_mode=True)


def planes(levels: list[int], channels: int = 2) -> HexPlane:
    config = HexPlaneConfig(resolution=5, time_resolution=4, channels=channels, levels=levels)
    module = HexPlane(config, 2.0, torch.Generator().manual_seed(0)).double()
    for parameter in module.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5, torch.Generator().manual_seed(1))
    return module


def bilinear(plane: Tensor, u: float, v: float) -> Tensor:
    """Value at (u, v) in [-1, 1]; the corner grid points sit at -1 and 1."""
    _, _, rows, columns = plane.shape
    x, y = (u + 1) / 2 * (columns - 1), (v + 1) / 2 * (rows - 1)
    i, j = min(int(x), columns - 2), min(int(y), rows - 2)
    a, b = x - i, y - j
    cell = plane[0, :, j : j + 2, i : i + 2]
    return (1 - b) * ((1 - a) * cell[:, 0, 0] + a * cell[:, 0, 1]) + b * ((1 - a) * cell[:, 1, 0] + a * cell[:, 1, 1])


def test_planes_are_the_product_of_bilinear_samples() -> None:
    module, means = planes([1, 2]), torch.tensor([[0.3, -1.2, 1.7], [-2.0, 2.0, 0.0]], dtype=torch.float64)
    times = torch.tensor([0.0, 0.35, 1.0], dtype=torch.float64)
    features = module(means, times)
    assert features.shape == (3, 2, module.width)
    for b, t in enumerate(times.tolist()):
        for n, mean in enumerate(means.tolist()):
            p = [*(value / 2 for value in mean), 2 * t - 1]
            pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
            levels = []
            for level in module.levels:
                samples = [bilinear(q, p[i], p[j]) for q, (i, j) in zip(level.parameters(), pairs, strict=True)]
                levels.append(torch.stack(samples).prod(0))
            torch.testing.assert_close(features[b, n], torch.cat(levels))


def test_planes_are_constant_in_time_at_first_and_beyond_their_border() -> None:
    module = HexPlane(HexPlaneConfig(5, 4, 2, [1]), 1.0, torch.Generator().manual_seed(0))
    features = module(torch.rand(3, 3) * 2 - 1, torch.tensor([0.0, 0.4, 1.0]))
    torch.testing.assert_close(features, features[:1].expand(3, -1, -1))
    far = module(torch.tensor([[5.0, 0.2, 0.3], [1.0, 0.2, 0.3]]), torch.tensor([0.5]))
    torch.testing.assert_close(far[0, 0], far[0, 1])
