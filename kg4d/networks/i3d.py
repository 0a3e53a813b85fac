"""I3D, the video network behind every Frechet video distance, trained on Kinetics-400.

Source: Carreira & Zisserman 2017, "Quo vadis, action recognition?", figure 3.
Batch normalisation is folded into the convolutions.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kg4d.networks.winograd import Convolution3d, relu_convolution

MIN_FRAMES = 9  # fewer leave one time step, and the last pooling needs two
INPUT_SIZE = 224
CLASSES = 400

# A convolution is (output channels, kernel, stride); a pooling (kernel, stride); an inception block its six widths.
CONVOLUTIONS = {
    "Conv3d_1a_7x7": (64, 7, 2),
    "Conv3d_2b_1x1": (64, 1, 1),
    "Conv3d_2c_3x3": (192, 3, 1),
}
INCEPTIONS = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
POOLS_BEFORE = {  # kernel and stride over (time, height, width) of the pooling that precedes a layer
    "Conv3d_2b_1x1": ((1, 3, 3), (1, 2, 2)),
    "Mixed_3b": ((1, 3, 3), (1, 2, 2)),
    "Mixed_4b": ((3, 3, 3), (2, 2, 2)),
    "Mixed_5b": ((2, 2, 2), (2, 2, 2)),
}
BATCH_NORM_EPSILON = 1e-3

Triple = tuple[int, int, int]


def _same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after for ceil(size / stride) outputs; the odd one goes to the end, unlike symmetric padding."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _pad_same(x: Tensor, kernel: Triple, stride: Triple) -> Tensor:
    padding: list[int] = []
    for size, k, s in reversed(list(zip(x.shape[2:], kernel, stride, strict=True))):
        padding += _same(size, k, s)
    return F.pad(x, padding)


def _pool(x: Tensor, kernel: Triple, stride: Triple) -> Tensor:
    """Maximum; what the padding adds does not count, as x is never negative."""
    if x.requires_grad or x.device.type != "cpu":
        return F.max_pool3d(_pad_same(x, kernel, stride), kernel, stride)
    for axis, (k, s) in enumerate(zip(kernel, stride, strict=True), start=2):  # ten times as fast as `max_pool3d`
        x = _running_maximum(x.movedim(axis, 0), k, s).movedim(0, axis)
    return x


def _running_maximum(x: Float[Tensor, "n ..."], kernel: int, stride: int) -> Float[Tensor, "m ..."]:
    """Maximum over windows of the first axis, which may leave it."""
    size, before = len(x), _same(len(x), kernel, stride)[0]
    out = x[::stride].clone() if kernel > 1 else x[::stride]
    for offset in range(-before, kernel - before):
        if offset != 0:
            first = math.ceil(max(-offset, 0) / stride)
            seen = x[first * stride + offset : size : stride][: len(out) - first]
            part = out[first : first + len(seen)]
            torch.maximum(part, seen, out=part)
    return out


class _Convolution(Convolution3d):
    """Convolution with TensorFlow's "same" padding, then ReLU."""

    def __init__(self, channels: int, width: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__(channels, width, kernel, stride)
        self.shape = (kernel,) * 3, (stride,) * 3

    def forward(self, x: Tensor) -> Tensor:
        if self.filters is not None and self.bias is not None:
            return relu_convolution(x.permute(2, 0, 3, 4, 1), self.filters, self.bias).permute(1, 4, 0, 2, 3)
        if self.shape[0] == (1, 1, 1):  # a product of matrices, for which the convolution has no fast way
            return F.linear(x.movedim(1, -1), self.weight.flatten(1), self.bias).relu_().movedim(-1, 1)
        return F.relu(super().forward(_pad_same(x, *self.shape)), inplace=True)


class _Inception(nn.Module):
    """Four parallel branches, concatenated."""

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        plain, reduce_1, wide_1, reduce_2, wide_2, pooled = widths
        self.branch_0 = _Convolution(channels, plain)
        self.branch_1 = nn.Sequential(_Convolution(channels, reduce_1), _Convolution(reduce_1, wide_1, 3))
        self.branch_2 = nn.Sequential(_Convolution(channels, reduce_2), _Convolution(reduce_2, wide_2, 3))
        self.branch_3 = _Convolution(channels, pooled)
        self.width = plain + wide_1 + wide_2 + pooled

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.branch_3(_pool(x, (3, 3, 3), (1, 1, 1)))
        return torch.cat((self.branch_0(x), self.branch_1(x), self.branch_2(x), pooled), 1)


class I3D(nn.Module):
    """The network up to its 400 logits; weights come from `load_state_dict`."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks, channels = nn.ModuleDict(), 3
        for name, (width, kernel, stride) in CONVOLUTIONS.items():
            self.blocks[name] = _Convolution(channels, width, kernel, stride)
            channels = width
        for name, widths in INCEPTIONS.items():
            block = _Inception(channels, widths)
            self.blocks[name], channels = block, block.width
        self.logits = nn.Conv3d(channels, CLASSES, 1)

    def forward(self, video: Float[Tensor, "B 3 T 224 224"]) -> Float[Tensor, "B 400"]:
        """Logits, averaged over time; `video` is in [-1, 1] and has at least 9 frames."""
        x = video
        for name, block in self.blocks.items():
            if name in POOLS_BEFORE:
                x = _pool(x, *POOLS_BEFORE[name])
            x = block(x)
        x = F.avg_pool3d(x, (2, 7, 7), stride=1)
        logits: Tensor = self.logits(x)
        return logits.mean((2, 3, 4))


BRANCHES = {
    "Branch_0/Conv3d_0a_1x1": "branch_0",
    "Branch_1/Conv3d_0a_1x1": "branch_1.0",
    "Branch_1/Conv3d_0b_3x3": "branch_1.1",
    "Branch_2/Conv3d_0a_1x1": "branch_2.0",
    "Branch_2/Conv3d_0b_3x3": "branch_2.1",
    "Branch_3/Conv3d_0b_1x1": "branch_3",
}


def i3d_state(tree: Mapping[str, Any]) -> dict[str, Tensor]:
    """State for `I3D` from the variables of the flax implementation (kernels are DHWIO there)."""
    params, statistics = tree["params"], tree["batch_stats"]
    state: dict[str, Tensor] = {}
    for name in CONVOLUTIONS:
        state |= _folded(f"blocks.{name}", params[name], statistics[name])
    for name in INCEPTIONS:
        for theirs, ours in BRANCHES.items():
            state |= _folded(f"blocks.{name}.{ours}", params[name][theirs], statistics[name][theirs])
    logits = params["Logits/Conv3d_0c_1x1"]["Conv_0"]
    state["logits.weight"] = _tensor(logits["kernel"].transpose(4, 3, 0, 1, 2))
    state["logits.bias"] = _tensor(logits["bias"])
    return state


def _folded(name: str, params: Mapping[str, Any], statistics: Mapping[str, Any]) -> dict[str, Tensor]:
    """A convolution and the normalisation after it (no gain) as one convolution with a bias."""
    norm = statistics["BatchNorm_0"]
    gain = 1 / np.sqrt(norm["var"].reshape(-1).astype(np.float64) + BATCH_NORM_EPSILON)
    kernel = params["Conv_0"]["kernel"].transpose(4, 3, 0, 1, 2)
    bias = params["BatchNorm_0"]["bias"] - norm["mean"].reshape(-1) * gain
    return {f"{name}.weight": _tensor(kernel * gain[:, None, None, None, None]), f"{name}.bias": _tensor(bias)}


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
