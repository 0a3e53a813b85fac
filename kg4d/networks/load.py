"""LPIPS and I3D with their trained weights."""

from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from kg4d.errors import InputError
from kg4d.networks.i3d import I3D
from kg4d.networks.lpips import LPIPS, Backbone
from kg4d.networks.weights import load_weights

Net = TypeVar("Net", bound=nn.Module)


def load_lpips(net: Literal["alex", "vgg"], path: str | Path | None = None) -> LPIPS:
    """LPIPS with trained weights, from the cache folder or from a safetensors file of your own; evaluation mode.

    Raises:
        ValueError: `net` is neither "alex" nor "vgg".
        InputError: The weights are missing, changed, or those of another network.
    """
    state = load_weights(f"lpips-{Backbone(net)}", path)
    return _filled(LPIPS(Backbone(net)), state, path)


def load_i3d(path: str | Path | None = None) -> I3D:
    """I3D with trained weights, from the cache folder or from a safetensors file of your own; evaluation mode.

    Raises:
        InputError: The weights are missing, changed, or those of another network.
    """
    return _filled(I3D(), load_weights("i3d-kinetics-400", path), path)


def _filled(network: Net, state: dict[str, Tensor], path: str | Path | None) -> Net:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(path, f"does not fit {type(network).__name__}", "give the weights of this network") from error
    for weight in network.parameters():
        if weight.ndim > 3:  # channels last: twice as fast on a CPU
            layout = torch.channels_last if weight.ndim == 4 else torch.channels_last_3d
            weight.data = weight.data.contiguous(memory_format=layout)
    return network.eval().requires_grad_(False)
