"""One evaluator for every method: a grid of predicted images against the true one, under a named protocol."""

import json
import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import kg4d
from kg4d.metrics.image import masked_psnr, ms_ssim, object_mask, psnr, ssim
from kg4d.metrics.protocols import GLTF4D, Protocol

Progress = Callable[[str, int, int], None]  # what is measured, how many of it are done, of how many
ImageMetric = Callable[[Tensor, Tensor, Tensor], Tensor]  # predicted, target, alpha -> one value an image

CHUNK = 16  # images at a time: bounds memory, large enough for speed


@dataclass
class Evaluation:
    """What was measured, and what was not and why.

    Attributes:
        metrics: One finite number a key.
        per_view: One number a view for the keys that have it; None where that view has nothing to measure.
        skipped: Reason for each key that could not be computed.
        provenance: Library versions, image counts and, where networks were used, their weights and sample sizes.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    per_view: dict[str, list[float | None]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def record(self, key: str, value: Tensor | float, per_view: Iterable[float] | None = None) -> None:
        """Keep a value, or note that it is not finite."""
        number = float(value)
        if not _finite(number):
            self.skip(key, "nothing to measure: the value is not finite")
            return
        self.skipped.pop(key, None)
        self.metrics[key] = number
        if per_view is not None:
            self.per_view[key] = [float(v) if _finite(float(v)) else None for v in per_view]

    def skip(self, key: str, reason: str) -> None:
        """Note why `key` is absent."""
        self.metrics.pop(key, None)
        self.per_view.pop(key, None)
        self.skipped[key] = reason


def _finite(number: float) -> bool:
    return abs(number) < float("inf")


@torch.no_grad()
def evaluate_grid(
    predicted: Float[Tensor, "V T H W 3"],
    target: Float[Tensor, "V T H W 3"],
    target_alpha: Float[Tensor, "V T H W 1"] | None,
    *,
    protocol: Protocol = GLTF4D,
    progress: Progress | None = None,
) -> Evaluation:
    """Compare V videos of T frames with the true ones.

    Both sides are first rounded to 8 bits, as image files hold them, so that a run and its saved renders score alike.

    Args:
        predicted: Rendered images, RGB on the protocol's background; values outside [0, 1] are clipped.
        target: True images on the same background.
        target_alpha: True coverage in [0, 1]; without it the masked metric is skipped.
        protocol: Which metrics to compute, and how.
        progress: Called while the slow metrics run.

    Returns:
        The protocol's metrics; whatever cannot be computed is in `skipped` with the reason.
    """
    views, frames, height, width = predicted.shape[:4]
    evaluation = Evaluation(provenance=_provenance(predicted.shape, protocol))
    images = _eight_bits(predicted), _eight_bits(target)
    alpha = target.new_full((views, frames, height, width, 1), torch.nan) if target_alpha is None else target_alpha
    for key, metric in _image_metrics(protocol).items():
        if key == "test/psnr_masked" and target_alpha is None:
            evaluation.skip(key, "the target images have no alpha channel")
            continue
        _measure(evaluation, key, metric, (*images, alpha), progress)
    return evaluation


def training_metrics(predicted: Float[Tensor, "M H W 3"], target: Float[Tensor, "M H W 3"]) -> dict[str, Tensor]:
    """`train/psnr` and `train/ssim`: how well the reference video is reproduced (8 bits, as above)."""
    pair = _channels_first(_eight_bits(predicted)), _channels_first(_eight_bits(target))
    return {"train/psnr": psnr(*pair).mean(), "train/ssim": ssim(*pair).mean()}


def write_metrics_json(path: str | Path, evaluation: Evaluation, protocol: Protocol) -> None:
    """Write `metrics.json` in one step: a reader sees the old file or the new one, never half of it."""
    path = Path(path)
    record = {
        "metrics": evaluation.metrics,
        "per_view": evaluation.per_view,
        "protocol": asdict(protocol),
        "provenance": {**evaluation.provenance, "skipped": evaluation.skipped},
    }
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _image_metrics(protocol: Protocol) -> dict[str, ImageMetric]:
    known: dict[str, ImageMetric] = {
        "test/psnr": lambda pred, true, _: psnr(pred, true),
        "test/psnr_masked": lambda pred, true, alpha: masked_psnr(pred, true, object_mask(alpha)),
        "test/ssim": lambda pred, true, _: ssim(pred, true),
        "test/ms_ssim": lambda pred, true, _: ms_ssim(pred, true),
    }
    return {key: metric for key, metric in known.items() if key in protocol.metrics}


def _measure(
    evaluation: Evaluation,
    key: str,
    metric: ImageMetric,
    grids: tuple[Tensor, Tensor, Tensor],
    progress: Progress | None,
) -> None:
    """Average a per-image metric over the grid and over each view, chunk by chunk."""
    views, frames = grids[0].shape[:2]
    flat = [_channels_first(grid.flatten(0, 1)) for grid in grids]
    values = []
    for start in range(0, views * frames, CHUNK):
        try:
            values.append(metric(*(images[start : start + CHUNK] for images in flat)))
        except ValueError as error:
            evaluation.skip(key, str(error))
            return
        if progress is not None:
            progress(key, min(start + CHUNK, views * frames), views * frames)
    table = torch.cat(values).double().reshape(views, frames)
    evaluation.record(key, table.nanmean(), table.nanmean(1).tolist())


def _channels_first(images: Float[Tensor, "B H W C"]) -> Float[Tensor, "B C H W"]:
    return images.permute(0, 3, 1, 2).contiguous()


def _eight_bits(images: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    return (images.clamp(0, 1) * 255).round() / 255


def _provenance(shape: torch.Size, protocol: Protocol) -> dict[str, Any]:
    views, frames, height, width = shape[:4]
    libraries = ("torch", "torchmetrics", "numpy")
    return {
        "versions": {"kg4d": kg4d.__version__, "python": platform.python_version()}
        | {name: version(name) for name in libraries},
        "counts": {"views": views, "frames": frames, "images": views * frames, "height": height, "width": width},
        "deviations": protocol.deviations(views, frames, height, width),
    }
