"""Convolutions by 3 x 3 on the CPU with a quarter of the multiplications, for evaluation.

Source: Lavin & Gray 2016, "Fast algorithms for convolutional neural networks", section 4: F(4 x 4, 3 x 3).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

_TILE = 4  # px of a side of the output that come from one patch of the input
_PATCH = _TILE + 2
_LEAST_CHANNELS = 16  # below, most of the time would go into the transforms
_CHUNK = 1 << 21  # numbers in the patches of one step: they stay in the cache

_FILTER = ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24))  # over 24: G of the source


class Convolution2d(nn.Conv2d):
    """A convolution that keeps its transformed filters inside of `transformed`."""

    filters: Tensor | None = None


class Convolution3d(nn.Conv3d):
    """The same over frames."""

    filters: Tensor | None = None


@contextmanager
def transformed(*networks: nn.Module) -> Iterator[None]:
    """Inside, the networks' convolutions by 3 x 3 (x 3) with a stride of 1 have `filters`; then the memory is free.

    They take four times the memory of the weights. Where weights are not float32 on the CPU, nothing is done.
    """
    found = [
        module
        for network in networks
        for module in network.modules()
        if isinstance(module, Convolution2d | Convolution3d) and module.filters is None and _suits(module)
    ]
    try:
        for module in found:
            module.filters = transform(module.weight.detach())
        yield
    finally:
        for module in found:
            module.filters = None


def _suits(convolution: Convolution2d | Convolution3d) -> bool:
    weight, ones = convolution.weight, set(convolution.stride) | set(convolution.dilation) | {convolution.groups}
    shape = set(weight.shape[2:]) == {3} and ones == {1} and weight.shape[1] >= _LEAST_CHANNELS
    padded = isinstance(convolution, Convolution3d) or convolution.padding == (1, 1)  # I3D pads for itself
    return shape and padded and weight.dtype == torch.float32 and weight.device.type == "cpu"


def transform(weight: Float[Tensor, "O I *time 3 3"]) -> Float[Tensor, "K 36 I O"]:
    """The filters that `relu_convolution` wants; K is 3 with a time axis, else 1."""
    matrix = weight.new_tensor(_FILTER, dtype=torch.float64) / 24
    planes = weight.reshape(*weight.shape[:2], -1, 9).permute(2, 3, 1, 0)  # (K, 9, I, O)
    both: Tensor = torch.kron(matrix, matrix).to(weight.dtype) @ planes.flatten(2)
    return both.reshape(len(planes), _PATCH**2, *planes.shape[2:])


def relu_convolution(
    x: Float[Tensor, "T B H W I"], filters: Float[Tensor, "K 36 I O"], bias: Float[Tensor, " O"]
) -> Float[Tensor, "T B H W O"]:
    """Convolution with zeros around, then ReLU; over T too where K is 3.

    Against a direct convolution in float32 the error is two to five times as large: about 2e-6 of the norm.
    """
    length, batch, height, width, channels = x.shape
    rows, columns = -(-height // _TILE), -(-width // _TILE)
    most = max(1, _CHUNK // (length * columns * _PATCH**2 * max(channels, filters.shape[-1])))  # rows of patches
    images = min(batch, max(1, most // rows))
    out = x.new_empty(length, batch, rows * _TILE, columns * _TILE, filters.shape[-1])
    for first in range(0, batch, images):
        some = slice(first, min(first + images, batch))
        for top in range(0, rows, most):
            bottom = min(rows, top + most)
            low, high = max(_TILE * top - 1, 0), min(_TILE * bottom + 1, height)
            shape = (length, some.stop - first, _TILE * (bottom - top) + 2, _TILE * columns + 2, channels)
            padded, begin = x.new_zeros(shape), low - (_TILE * top - 1)
            padded[:, :, begin : begin + high - low, 1 : width + 1] = x[:, some, low:high]
            strip = out[:, some, _TILE * top : _TILE * bottom]
            _convolve(padded, filters, strip)
            strip.add_(bias).relu_()
    return out[:, :, :height, :width]


def _convolve(
    padded: Float[Tensor, "T B h w I"], filters: Float[Tensor, "K 36 I O"], out: Float[Tensor, "T B H W O"]
) -> None:
    """Write into `out` the convolution of what is 2 px higher and wider."""
    length, batch, height, width, channels = out.shape
    rows, columns = height // _TILE, width // _TILE
    half = padded.new_empty(_PATCH, length, batch, rows, padded.shape[3], padded.shape[4])
    _transform_input([padded[:, :, k : k + height : _TILE][:, :, :rows] for k in range(_PATCH)], half.unbind())
    tiles = half.new_empty(_PATCH, _PATCH, length, batch, rows, columns, padded.shape[4])
    _transform_input([half[..., k : k + width : _TILE, :][..., :columns, :] for k in range(_PATCH)], tiles.unbind(1))
    products = _over_time(tiles.view(_PATCH**2, -1, padded.shape[4]), filters, length)
    products = products.view(*tiles.shape[:-1], channels)
    lines = half.new_empty(_TILE, *products.shape[1:])
    _transform_output(products.unbind(), lines.unbind())
    pixels = out.view(length, batch, rows, _TILE, columns, _TILE, channels).permute(5, 3, 0, 1, 2, 4, 6)
    _transform_output(lines.unbind(1), pixels.unbind())


def _transform_input(d: Sequence[Tensor], out: Sequence[Tensor]) -> None:
    """Six slices times B^T of the source: (4 0 -5 0 1 0), (0 -4 -4 1 1 0), (0 4 -4 -1 1 0), ..., (0 4 0 -5 0 1)."""
    torch.sub(d[4], d[2], alpha=4, out=out[1])
    torch.sub(d[3], d[1], alpha=4, out=out[3])
    torch.sub(out[1], out[3], out=out[2])
    out[1].add_(out[3])
    torch.sub(d[4], d[2], out=out[3])
    torch.sub(d[3], d[1], out=out[5])
    torch.sub(out[3], out[5], alpha=2, out=out[4])
    out[3].add_(out[5], alpha=2)
    torch.sub(d[4], d[2], alpha=5, out=out[0]).add_(d[0], alpha=4)
    torch.sub(d[5], d[3], alpha=5, out=out[5]).add_(d[1], alpha=4)


def _transform_output(m: Sequence[Tensor], out: Sequence[Tensor]) -> None:
    """Six products times A^T of the source: (1 1 1 1 1 0), (0 1 -1 2 -2 0), (0 1 1 4 4 0), (0 1 -1 8 -8 1)."""
    total, difference = m[3] + m[4], m[3] - m[4]
    torch.add(m[1], m[2], out=out[0])
    torch.sub(m[1], m[2], out=out[1])
    torch.add(out[0], total, alpha=4, out=out[2])
    torch.add(out[1], difference, alpha=8, out=out[3]).add_(m[5])
    out[0].add_(total).add_(m[0])
    out[1].add_(difference, alpha=2)


def _over_time(
    tiles: Float[Tensor, "36 N I"], filters: Float[Tensor, "K 36 I O"], length: int
) -> Float[Tensor, "36 N O"]:
    """The products of tiles, frame by frame, and filters; those of three frames added up where K is 3."""
    middle = len(filters) // 2
    products, each = torch.bmm(tiles, filters[middle]), tiles.shape[1] // length
    if middle and length > 1:
        products[:, each:].baddbmm_(tiles[:, :-each], filters[0])
        products[:, :-each].baddbmm_(tiles[:, each:], filters[2])
    return products
