"""LPIPS v0.1: the distance of deep features, weighted by heads that were fitted to human judgement.

Source: Zhang et al. 2018, "The unreasonable effectiveness of deep features as a perceptual metric", eq. 1.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kg4d.networks.winograd import Convolution2d, relu_convolution


class Backbone(StrEnum):
    """The network whose features are compared."""

    ALEX = "alex"
    VGG = "vgg"


# (output channels, kernel, stride, padding) of each convolution; an int is a max-pool of that size with stride 2.
ALEX_LAYERS = ((64, 11, 4, 2), 3, (192, 5, 1, 2), 3, (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1))
VGG_WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_STRIP = 1 << 21  # numbers in the features of some rows: 8 MB
TAPS = {Backbone.ALEX: (0, 1, 2, 3, 4), Backbone.VGG: (1, 3, 6, 9, 12)}  # convolutions whose ReLU is compared


def _layers(net: Backbone) -> tuple[int | tuple[int, int, int, int], ...]:
    if net is Backbone.ALEX:
        return ALEX_LAYERS
    blocks = [[(width, 3, 1, 1) for width in widths] for widths in VGG_WIDTHS]
    return tuple(layer for i, block in enumerate(blocks) for layer in ([2] if i else []) + block)


class Comparison(NamedTuple):
    """Results of one pass over pairs of images."""

    distances: Float[Tensor, " B"]  # LPIPS of each pair
    pred_means: Float[Tensor, "B C"]  # deepest features, averaged over the image
    target_means: Float[Tensor, "B C"]


class LPIPS(nn.Module):
    """The network with its five heads; weights come from `load_state_dict`.

    Args:
        net: The backbone whose features are compared.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, net: Backbone) -> None:
        super().__init__()
        self.layers = _layers(net)
        self.taps: tuple[int, ...] = TAPS[net]
        self.convs, channels = nn.ModuleList(), 3
        for layer in self.layers:
            if isinstance(layer, tuple):
                width, kernel, stride, padding = layer
                self.convs.append(Convolution2d(channels, width, kernel, stride, padding))
                channels = width
        widths = [layer[0] for layer in self.layers if isinstance(layer, tuple)]
        self.heads = nn.ParameterList(nn.Parameter(torch.zeros(widths[tap])) for tap in self.taps)
        # ImageNet mean and standard deviation, expressed for inputs in [-1, 1]
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[:, None, None], persistent=False)

    def activations(self, images: Float[Tensor, "B 3 H W"]) -> Iterator[Float[Tensor, "B C h w"]]:
        """Features after the ReLU of each of the five taps, one at a time; `images` are in [-1, 1]."""
        x, index = (images - self.shift) / self.scale, 0
        for layer in self.layers:
            if isinstance(layer, int):
                x = F.max_pool2d(x, layer, stride=2)
                continue
            x = _rectified(self.convs[index], x)
            if index in self.taps:
                yield x
            index += 1

    def forward(self, pred: Float[Tensor, "B 3 H W"], target: Float[Tensor, "B 3 H W"]) -> Float[Tensor, " B"]:
        """Distance >= 0 of each pair; images are in [-1, 1]."""
        return self.compare(pred, target).distances

    def compare(self, pred: Float[Tensor, "B 3 H W"], target: Float[Tensor, "B 3 H W"]) -> Comparison:
        """Distances, and the spatial means of the deepest features, which come for free; images are in [-1, 1]."""
        if self.layers != ALEX_LAYERS and self._transformed:
            return self._compare_by_rows(torch.cat((pred, target)))
        count = pred.shape[0]
        total, means = pred.new_zeros(count), pred.new_zeros(2 * count, 0)
        for x, head in zip(self.activations(torch.cat((pred, target))), self.heads, strict=True):
            length: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)  # its gradient at 0 is 0, not NaN
            features = x / (length + 1e-10)
            difference = (features[:count] - features[count:]).square().mean((2, 3))
            total, means = total + difference @ head, x.mean((2, 3))
        return Comparison(total, means[:count], means[count:])

    @property
    def _transformed(self) -> bool:
        return any(isinstance(conv, Convolution2d) and conv.filters is not None for conv in self.convs)

    def _compare_by_rows(self, images: Float[Tensor, "B2 3 H W"]) -> Comparison:
        """`compare` for VGG16 without gradients: a block of layers at a time, some rows at a time.

        So the features stay in the cache, and no picture's features are ever there as a whole at the first layers.
        """
        x = ((images - self.shift) / self.scale).movedim(1, -1)
        count, total, begin = len(images) // 2, images.new_zeros(len(images) // 2), 0
        for widths, head in zip(VGG_WIDTHS, self.heads, strict=True):
            convs = self.convs[begin : begin + len(widths)]
            begin += len(widths)
            (_, height, width, _), channels = x.shape, widths[-1]
            sums, means = x.new_zeros(count, channels), x.new_zeros(len(x), channels)
            pooled = x.new_empty(len(x), height // 2, width // 2, channels)
            step = _rows(len(x) * width * channels, len(convs), height)
            for top in range(0, height, step):
                bottom = min(top + step, height)
                # the last rows of a convolution of a part are wrong, one more for each convolution
                first, last = max(top - len(convs), 0), min(bottom + len(convs), height)
                y = x[:, first:last].movedim(-1, 1)
                for conv in convs:
                    y = _rectified(conv, y)
                y = y[:, :, top - first : bottom - first].movedim(1, -1)
                features = y / (torch.linalg.vector_norm(y, dim=-1, keepdim=True) + 1e-10)
                sums += features[:count].sub_(features[count:]).square_().sum((1, 2))
                means += y.sum((1, 2))
                _halved(y, pooled[:, top // 2 : bottom // 2])
            x, total, means = pooled, total + sums / (height * width) @ head, means / (height * width)
        return Comparison(total, means[:count], means[count:])


def _rows(line: int, halo: int, height: int) -> int:
    """How many rows are compared at a time: with the `halo` above and below about `_STRIP` numbers.

    An even number, for the pooling, and with the halo a multiple of what `relu_convolution` takes at once.
    """
    if line * height <= _STRIP:
        return height
    return max(_STRIP // line // 4 * 4 - 2 * halo, 4) // 2 * 2


def _halved(x: Float[Tensor, "B H W C"], out: Float[Tensor, "B h w C"]) -> None:
    """Write the maximum of every 2 x 2 px; an odd last row or column does not count."""
    x = x[:, : 2 * out.shape[1], : 2 * out.shape[2]]
    rows = torch.maximum(x[:, ::2], x[:, 1::2])
    torch.maximum(rows[:, :, ::2], rows[:, :, 1::2], out=out)


def _rectified(convolution: nn.Module, x: Float[Tensor, "B I H W"]) -> Float[Tensor, "B O h w"]:
    """Convolution and ReLU."""
    assert isinstance(convolution, Convolution2d)
    assert convolution.bias is not None
    if convolution.filters is None:
        return F.relu(convolution(x), inplace=True)
    return relu_convolution(x.movedim(1, -1)[None], convolution.filters, convolution.bias)[0].movedim(-1, 1)


class DeepMeans(nn.Module):
    """The deepest features of an LPIPS network, averaged over the image: with VGG16 512 numbers, of relu5_3.

    Args:
        network: Its modules are shared, so the state dict (and its hash) is the same.
    """

    def __init__(self, network: LPIPS) -> None:
        super().__init__()
        self.convs, self.heads = network.convs, network.heads
        self.activations = network.activations

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C"]:
        """Features >= 0 of images in [0, 1]."""
        *_, deepest = self.activations(2 * images - 1)
        means: Tensor = deepest.mean((2, 3))
        return means


def lpips_state(tree: Mapping[str, Any]) -> dict[str, Tensor]:
    """State for `LPIPS` from the parameter tree of the flax implementation (kernels are HWIO there)."""
    backbone = next(value for name, value in tree.items() if not name.startswith("NetLinLayer"))
    state = {}
    for index in range(len(backbone)):
        layer = backbone[f"Conv_{index}"]
        state[f"convs.{index}.weight"] = _tensor(layer["kernel"].transpose(3, 2, 0, 1))
        state[f"convs.{index}.bias"] = _tensor(layer["bias"])
    for index in range(len(tree) - 1):
        state[f"heads.{index}"] = _tensor(tree[f"NetLinLayer_{index}"]["Conv_0"]["kernel"].reshape(-1))
    return state


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
