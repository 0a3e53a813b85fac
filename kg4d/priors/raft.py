"""torchvision's RAFT: where its weights come from, and how a video is shown to it.

Source: Teed and Deng 2020, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow".
"""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from kg4d.data.images import on_white
from kg4d.errors import InputError
from kg4d.priors.base import Identity
from kg4d.priors.progress import counted
from kg4d.priors.weights import hash_of_weights
from kg4d.utils.reading import regular

STRIDE = 8  # px of the images it sees for one of the maps inside
_SIDE = 128  # px that images need: it pools maps of an eighth three times more
_EXTRA = 'pip install "kg4d[raft]"'


def require_torchvision(key: str) -> None:
    """See that the library is installed, without loading it.

    Args:
        key: Dotted key of the settings, above `kind` and `path`, for errors.

    Raises:
        InputError: It is not.
    """
    if importlib.util.find_spec("torchvision") is None:
        remedy = f"{_EXTRA}, or set {key}.kind=dis"
        raise InputError(f"{key}.kind", "RAFT needs torchvision, which is not installed", remedy)


def raft_identity(path: str | None) -> Identity:
    """What decides its results: the name of the published weights, or the hash of a file of others."""
    return {"weights": "Raft_Large_Weights.C_T_SKHT_V2" if path is None else hash_of_weights(Path(path))}


def load_raft(key: str, path: str | None) -> nn.Module:
    """The network, frozen, on the CPU.

    Args:
        key: As for `require_torchvision`.
        path: A state of torchvision's `raft_large` or `raft_small`, as .safetensors or as torch saves it, of which no
            code is run; the published large one when None, from torchvision's cache or else fetched by it.

    Raises:
        InputError: The library does not load, or the weights cannot be had or are not RAFT's.
    """
    require_torchvision(key)
    otherwise = f"set {key}.kind=dis"
    try:
        from torchvision.models import optical_flow
    except (ImportError, RuntimeError, OSError) as error:  # beside another torch its operators are missing
        what = f"torchvision does not load: {_line(error)}"
        remedy = f"install the version that belongs to this torch ({_EXTRA}), or {otherwise}"
        raise InputError(f"{key}.kind", what, remedy) from error
    if path is None:
        try:
            network = optical_flow.raft_large(weights=optical_flow.Raft_Large_Weights.C_T_SKHT_V2)
        except (OSError, RuntimeError) as error:  # no way to it, or not the bytes that its name tells
            remedy = f"run once where there is a network, give their file with {key}.path, or {otherwise}"
            raise InputError(f"{key}.kind", f"RAFT's weights cannot be fetched: {_line(error)}", remedy) from error
    else:
        state = _state(Path(path))
        large = any(name.startswith("mask_predictor.") for name in state)
        network = (optical_flow.raft_large if large else optical_flow.raft_small)(weights=None, progress=False)
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            remedy = f"give a state of torchvision's raft_large or raft_small, or {otherwise}"
            raise InputError(path, "does not hold RAFT's weights", remedy) from error
    frozen: nn.Module = network.eval().requires_grad_(False)
    return frozen


def _state(path: Path) -> dict[str, Tensor]:
    """The tensors in a file, by name."""
    try:
        if path.suffix == ".safetensors":
            return load_file(regular(path))
        state = torch.load(regular(path), map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise TypeError("no tensors by name")
    except Exception as error:  # the libraries raise many kinds for files
        remedy = "save the network's state_dict() with torch.save or safetensors"
        raise InputError(path, "is no readable file of weights", remedy) from error
    return {str(name): value for name, value in state.items()}


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")


@torch.no_grad()
def raft_pairs(
    network: nn.Module, video: Float[Tensor, "T H W 4"]
) -> Iterator[tuple[Float[Tensor, "H W 2"], Float[Tensor, "H W 2"]]]:
    """Flow from each frame to the next and from that one back, px, one pair of frames after the other.

    Images whose shorter side is below what the network can see are enlarged for it, and all are continued at their
    right and lower border to whole cells.

    Raises:
        InputError: It gives NaN or infinity.
    """
    height, width = video.shape[1:3]
    rows, columns = shown_size(height, width)
    frames = on_white(video).movedim(-1, 1).float() / 127.5 - 1
    if (rows, columns) != (height, width):
        frames = F.interpolate(frames, (rows, columns), mode="bilinear", align_corners=False)
    padded = F.pad(frames, (0, -columns % STRIDE, 0, -rows % STRIDE), mode="replicate")
    pixels = torch.tensor([width / columns, height / rows])
    for pair in counted(range(len(video) - 1), len(video) - 1, "pairs"):
        both = network(padded[[pair, pair + 1]], padded[[pair + 1, pair]])[-1][..., :rows, :columns]
        if not bool(both.isfinite().all()):
            raise InputError("RAFT", "gives NaN or infinity", "give other weights, or set kind=dis")
        if (rows, columns) != (height, width):
            both = F.interpolate(both, (height, width), mode="bilinear", align_corners=False, antialias=True)
        there, back = both.movedim(1, -1) * pixels
        yield there, back


def shown_size(height: int, width: int) -> tuple[int, int]:
    """Height and width, px, at which RAFT sees images, before they are continued to whole cells.

    >>> shown_size(180, 240), shown_size(64, 96)
    ((180, 240), (128, 192))
    """
    factor = max(1.0, _SIDE / min(height, width))
    return round(height * factor), round(width * factor)


@contextmanager
def listening_to(module: nn.Module) -> Iterator[list[Any]]:
    """What a part of a network said last, as the only item of a list."""
    said: list[Any] = []

    def hear(_module: nn.Module, _inputs: object, output: object) -> None:
        said[:] = [output]

    handle = module.register_forward_hook(hear)
    try:
        yield said
    finally:
        handle.remove()
