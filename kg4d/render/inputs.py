"""The checks that every renderer makes before it draws."""

import os
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.degrees import harmonics_count, harmonics_degree
from kg4d.render.base import RasterOptions

_SPLAT_BYTES = 64  # what a renderer on the CPU holds at least of one Gaussian in one camera


class Inputs(NamedTuple):
    """Checked features and background of a render call."""

    features: Float[Tensor, "N D"] | Float[Tensor, "C N D"]
    harmonics: Float[Tensor, "N H 3"] | None  # what the features, which are the colours then, are without
    background: Float[Tensor, "C D"] | None


def check_inputs(
    gaussians: GaussianState,
    cameras: Cameras,
    features: Tensor | None,
    background: Tensor | None,
    options: RasterOptions,
    *,
    device: torch.device,
    dtypes: tuple[torch.dtype, ...] = (torch.float32,),
) -> Inputs:
    """Check a render call; fill in the colours where no features are given, and give every camera its background.

    Colours come with their harmonics; features that are given are drawn as they are.

    Args:
        gaussians: N Gaussians.
        cameras: C cameras.
        features: (N, D) for all cameras or (C, N, D) for each; None stands for the colours.
        background: (D,) for all cameras or (C, D) for each, or None.
        options: Rules of the rasteriser.
        device: Where every tensor must be.
        dtypes: What they may be; all must be of the same.

    Raises:
        ValueError: A dtype outside `dtypes` or mixed dtypes, another device than `device`, shapes that do not fit
            together, harmonics that make up no degree, an empty image, no camera or channel, too many Gaussians to
            count, or options out of range.
        MemoryError: On the CPU, the machine's memory cannot hold it.
    """
    harmonics = gaussians.harmonics if features is None else None
    features = gaussians.colors if features is None else features
    n, c = len(gaussians), len(cameras)
    tensors: dict[str, tuple[Tensor, set[tuple[int, ...]]]] = {
        "means": (gaussians.means, {(n, 3)}),
        **_shape(gaussians, n),
        "opacities": (gaussians.opacities, {(n,)}),
        "viewmats": (cameras.viewmats, {(c, 4, 4)}),
        "Ks": (cameras.Ks, {(c, 3, 3)}),
        "features": (features, {(n, features.shape[-1]), (c, n, features.shape[-1])}),
    }
    if harmonics is not None:
        tensors["harmonics"] = (harmonics, {(n, harmonics_count(harmonics_degree(harmonics.shape[1])), 3)})
    if background is not None:
        tensors["background"] = (background, {(features.shape[-1],), (c, features.shape[-1])})
    _check_tensors(tensors, gaussians.means.dtype, device, dtypes)
    if cameras.width < 1 or cameras.height < 1 or c < 1 or features.shape[-1] < 1:
        raise ValueError(
            f"need at least one camera, pixel and channel, got {c} cameras of {cameras.width}x{cameras.height} px "
            f"and {features.shape[-1]} channels"
        )
    if n * c >= 1 << 31:
        raise ValueError(f"Gaussians times cameras must be below 2³¹, got {n} x {c}")
    if device.type == "cpu":
        copied = sum(t.numel() * t.element_size() for t, _ in tensors.values() if not t.is_contiguous())
        _check_memory(copied + _SPLAT_BYTES * n * c + 4 * c * cameras.height * cameras.width * features.shape[-1])
    check_options(options)
    if background is not None:
        background = background.expand(c, -1)
    return Inputs(features, harmonics, background)


def _shape(gaussians: GaussianState, n: int) -> dict[str, tuple[Tensor, set[tuple[int, ...]]]]:
    """The tensors of the shapes, and what theirs must be."""
    named = {"quats": (gaussians.quats, 4), "scales": (gaussians.scales, 3), "covariances": (gaussians.covariances, 6)}
    return {name: (values, {(n, width)}) for name, (values, width) in named.items() if values is not None}


def _check_tensors(
    tensors: dict[str, tuple[Tensor, set[tuple[int, ...]]]],
    own: torch.dtype,
    device: torch.device,
    dtypes: tuple[torch.dtype, ...],
) -> None:
    """Raise ValueError where one has another dtype than `own` or than `dtypes`, another device or another shape."""
    for name, (tensor, shapes) in tensors.items():
        if tensor.dtype not in dtypes or tensor.dtype != own:
            raise ValueError(f"{name} must be {' or '.join(map(str, dtypes))} like the means, got {tensor.dtype}")
        if tensor.device != device:  # another GPU too: its memory is not this one's
            raise ValueError(f"{name} must be on {device}, got {tensor.device}")
        if tuple(tensor.shape) not in shapes:
            raise ValueError(f"{name} must have shape {' or '.join(map(str, shapes))}, got {tuple(tensor.shape)}")


def _check_memory(needed: int) -> None:
    """Raise MemoryError in time: too large an allocation may succeed, and kill the process when it is written to."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise MemoryError(f"the render needs {needed / 1e9:.0f} GB, this machine has {there / 1e9:.0f} GB")


def check_query(camera_ids: Tensor, pixels: Tensor, k: int) -> None:
    """Raise ValueError where the arguments of `Renderer.contributors` make no sense."""
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if pixels.shape != (len(pixels), 2) or camera_ids.shape != pixels.shape[:1]:
        shapes = f"{tuple(camera_ids.shape)} and {tuple(pixels.shape)}"
        raise ValueError(f"camera_ids and pixels must have shapes (P,) and (P, 2), got {shapes}")


def check_options(options: RasterOptions) -> None:
    """Raise ValueError for options that are negative or NaN."""
    values = (options.eps2d, options.near, options.far, options.radius_clip)
    if not all(value >= 0 for value in values):
        raise ValueError(f"eps2d, near, far and radius_clip must be numbers >= 0, got {values}")


def check_inputs_finite(gaussians: GaussianState, cameras: Cameras, inputs: Inputs) -> None:
    """Raise ValueError if any tensor that a render depends on holds NaN or Inf."""
    shape = (gaussians.quats, gaussians.scales, gaussians.covariances)
    tensors = (gaussians.means, gaussians.opacities, cameras.viewmats, cameras.Ks, inputs.features)
    optional = [t for t in (*shape, inputs.background, inputs.harmonics) if t is not None]
    if not all(bool(torch.isfinite(t).all()) for t in (*tensors, *optional)):
        raise ValueError("the Gaussians, their features, the background or the cameras hold NaN or Inf")
