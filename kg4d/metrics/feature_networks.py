"""The networks that an evaluation uses, by name, and the reasons why some are missing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kg4d.errors import InputError
from kg4d.metrics.feature_cache import FeatureCache
from kg4d.metrics.protocols import VGG16_MEANS
from kg4d.networks.load import load_i3d, load_lpips
from kg4d.networks.lpips import LPIPS, DeepMeans
from kg4d.utils.files import cache_folder, content_hash

LOADERS: dict[str, Callable[[Path | None], nn.Module]] = {
    "lpips-alex": partial(load_lpips, "alex"),
    "lpips-vgg": partial(load_lpips, "vgg"),
    "i3d-kinetics-400": load_i3d,
}


@dataclass(frozen=True)
class Networks:
    """Networks in evaluation mode; they answer on the device of the images, wherever they compute.

    Attributes:
        modules: By name. `lpips-alex` and `lpips-vgg` map two batches of images in [-1, 1] to distances,
            `i3d-kinetics-400` maps videos (B, 3, T, 224, 224) in [-1, 1] to features; `vgg16-relu5_3-mean`, `fid` and
            `clip` map images (B, 3, H, W) in [0, 1] to features. `fid` replaces the network that a protocol names for
            `test/fid`, and is then listed among the deviations from the protocol.
        missing: Reason for each name that could not be loaded.
        feature_cache: Keeps features of the true images; None to compute them each time.
    """

    modules: Mapping[str, nn.Module] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    feature_cache: FeatureCache | None = None

    def why_missing(self, name: str) -> str:
        """One sentence on why the named network cannot be used."""
        return self.missing.get(name, f"no '{name}' network was given to the evaluator")

    def on(self, device: torch.device) -> "Networks":
        """The same networks, which from now on compute on `device`; what they are given goes there and back."""
        for module in {id(module): module for module in self.modules.values()}.values():
            module.to(device)
            module.register_forward_pre_hook(partial(_sent, device))
            module.register_forward_hook(_answered)
        return self

    @cached_property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of the content of each network's weights."""
        return {name: content_hash(module.state_dict()) for name, module in self.modules.items()}


def _sent(device: torch.device, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.to(device) if isinstance(value, Tensor) else value for value in inputs)


def _answered(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    return output.cpu()


def load_networks(
    paths: Mapping[str, str | Path] | None = None,
    fid: nn.Module | None = None,
    clip: nn.Module | None = None,
    keep_features: bool = True,
) -> Networks:
    """All networks whose weights are in the cache folder. Nothing is downloaded; what is missing has its remedy named.

    Args:
        paths: Safetensors files of your own, by network name; one that cannot be read is an error.
        fid: Feature network for FID, images (B, 3, H, W) in [0, 1] to (B, D), in place of the protocol's.
        clip: Image encoder for CLIP-S, images (B, 3, H, W) in [0, 1] to (B, D); it normalises its input itself.
        keep_features: Whether features of true videos are kept in the cache folder, and taken from there.

    Raises:
        InputError: A file of `paths` is missing, unreadable or of another network, or its name is unknown.
    """
    paths = paths or {}
    unknown = set(paths) - set(LOADERS)
    if unknown:
        raise InputError(min(unknown), "names no weights", f"choose one of {', '.join(LOADERS)}")
    modules = {name: net.eval() for name, net in (("fid", fid), ("clip", clip)) if net is not None}
    missing = {}
    for name, load in LOADERS.items():
        if name in paths:
            modules[name] = load(Path(paths[name]))
            continue
        try:
            modules[name] = load(None)
        except InputError as error:
            missing[name] = str(error)
    vgg = modules.get("lpips-vgg")
    if isinstance(vgg, LPIPS):
        modules[VGG16_MEANS] = DeepMeans(vgg)
    else:
        missing[VGG16_MEANS] = missing["lpips-vgg"]
    cache = FeatureCache(cache_folder() / "features") if keep_features else None
    return Networks(modules, missing, cache)
