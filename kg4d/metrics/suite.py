"""The evaluator, for any method: a grid of predicted images against the true one, under a named protocol."""

import json
import math
import platform
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

import kg4d
from kg4d.metrics.feature_networks import Networks
from kg4d.metrics.frechet import FrechetDistance, covariance_rank, sample_warning
from kg4d.metrics.image import PSNR, SSIM, FullSSIM, MaskedPSNR, MultiScaleSSIM, object_mask
from kg4d.metrics.perceptual import CLIPSimilarity, MeanLPIPS
from kg4d.metrics.protocols import GLTF4D, VIDEO_KEYS, Protocol, VideoInput
from kg4d.metrics.side_by_side import side_by_side
from kg4d.metrics.state import SampleMean, measured
from kg4d.metrics.video import C4DDistance, ClipFeatures, PairedDistance
from kg4d.networks.lpips import LPIPS, DeepMeans
from kg4d.networks.winograd import transformed
from kg4d.utils.files import replacing

Progress = Callable[[str, int, int], None]  # what is measured, how many of it are done, of how many

FID = "test/fid"
GIVEN_FID = "fid"  # name of a feature network that the caller gives
IMAGE_METRICS: dict[str, Callable[..., SampleMean]] = {  # made of the network that the protocol names, if any
    "test/psnr": PSNR,
    "test/psnr_masked": MaskedPSNR,
    "test/ssim": SSIM,
    "test/ssim_full": FullSSIM,
    "test/ms_ssim": MultiScaleSSIM,
    "test/lpips_vgg": MeanLPIPS,
    "test/lpips_alex": MeanLPIPS,
    "test/clip_s": CLIPSimilarity,
}
FEATURE_METRICS: dict[str, Callable[[], SampleMean | FrechetDistance]] = {
    "test/fvd_f": FrechetDistance,
    "test/fvd_v": FrechetDistance,
    "test/fvd_diag": FrechetDistance,
    "test/fv4d": FrechetDistance,
    "test/fvd_c4d": C4DDistance,
    "test/video_distance": PairedDistance,
    FID: FrechetDistance,
}
IMAGE_BATCH = 2  # pairs of images at a time: the fastest for VGG16 on two cores, and bounds memory


@dataclass
class Evaluation:
    """What was measured, and what was skipped and why.

    Attributes:
        metrics: One finite number per key.
        per_view: One number per view for the keys that have it; None where that view has nothing to measure.
        skipped: Reason for each key that could not be computed.
        provenance: Library versions, image counts and, where networks were used, their weights and sample sizes.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    per_view: dict[str, list[float | None]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def record(self, key: str, value: Tensor | float, per_view: Iterable[float] | None = None) -> None:
        """Keep a value, or skip the key where it is not finite.

        Args:
            key: As in `kg4d.metrics.keys`.
            value: The metric.
            per_view: The same for each view, where it exists; NaN where a view has nothing to measure.
        """
        number = float(value)
        if not math.isfinite(number):
            self.skip(key, "nothing to measure: the value is not finite")
            return
        self.skipped.pop(key, None)
        self.metrics[key] = number
        if per_view is not None:
            self.per_view[key] = [float(v) if math.isfinite(v) else None for v in per_view]

    def skip(self, key: str, reason: str) -> None:
        """Note why `key` is absent."""
        self.metrics.pop(key, None)
        self.per_view.pop(key, None)
        self.skipped[key] = reason


@torch.inference_mode()
def evaluate_grid(
    predicted: Float[Tensor, "V T H W 3"],
    target: Float[Tensor, "V T H W 3"],
    target_alpha: Float[Tensor, "V T H W 1"] | None,
    *,
    protocol: Protocol = GLTF4D,
    networks: Networks | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Compare V videos of T frames with the true ones.

    Both sides are first rounded to 8 bits, as in image files, so that a run and its saved renders get the same scores.

    Args:
        predicted: Rendered images, RGB on the protocol's background; values outside [0, 1] are clipped.
        target: True images on the same background.
        target_alpha: True coverage in [0, 1]; without it the masked metric is skipped.
        protocol: Which metrics to compute, and how.
        networks: From `load_networks`; a metric whose network is not among them is skipped.
        progress: Called while the slow metrics run.

    Returns:
        The protocol's metrics; whatever cannot be computed is in `skipped` with the reason.
    """
    grid = _Grid(
        predicted=_eight_bits(predicted).flatten(0, 1).movedim(-1, 1).contiguous(),
        target=_eight_bits(target).flatten(0, 1).movedim(-1, 1).contiguous(),
        alpha=None if target_alpha is None else target_alpha.flatten(0, 1).movedim(-1, 1),
        views=predicted.shape[0],
        progress=progress,
    )
    networks = networks or Networks()
    evaluation = Evaluation(provenance=_provenance(predicted.shape, protocol, networks))
    vgg = _Vgg(networks.modules.get("lpips-vgg"))
    videos = _clip_features(grid, networks)
    with _OneTransformed() as ready:
        for key in protocol.metrics:
            name = _network_name(key, protocol, networks)
            if name is not None and name not in networks.modules:
                evaluation.skip(key, networks.why_missing(name))
                continue
            module = ready.network(networks.modules[name]) if name is not None else None
            try:
                if key in VIDEO_KEYS:
                    _measure_videos(evaluation, key, videos, protocol.video_input)
                elif key == FID:
                    assert name is not None  # every protocol with this key names a network
                    assert module is not None
                    _measure_fid(evaluation, grid, name, module, vgg)
                    _note(evaluation, key, None if name == GIVEN_FID else protocol.notes.get(key))
                else:
                    _measure_images(evaluation, key, grid, vgg if name == "lpips-vgg" else module)
            except ValueError as error:  # images too small, videos too short, too few samples
                evaluation.skip(key, str(error))
    return evaluation


def training_metrics(predicted: Float[Tensor, "M H W 3"], target: Float[Tensor, "M H W 3"]) -> dict[str, Tensor]:
    """`train/psnr` and `train/ssim`: how well the reference video is reproduced (8 bits, as above)."""
    pair = _eight_bits(predicted).movedim(-1, 1), _eight_bits(target).movedim(-1, 1)
    return {"train/psnr": measured(PSNR(), *pair), "train/ssim": measured(SSIM(), *pair)}


def write_metrics_json(path: str | Path, evaluation: Evaluation, protocol: Protocol) -> None:
    """Write `metrics.json` atomically: a reader sees the old file or the new one, never half of it."""
    record = {
        "metrics": evaluation.metrics,
        "per_view": evaluation.per_view,
        "protocol": asdict(protocol),
        "provenance": {**evaluation.provenance, "skipped": evaluation.skipped},
    }
    with replacing(path) as part:
        part.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class _Grid:
    """Both sides with views and frames in one axis, views first."""

    predicted: Float[Tensor, "VT 3 H W"]
    target: Float[Tensor, "VT 3 H W"]
    alpha: Float[Tensor, "VT 1 H W"] | None
    views: int
    progress: Progress | None


@dataclass
class _Vgg:
    """LPIPS of VGG16, batch by batch; keeps the means of the deepest features, so that FID needs no second pass."""

    network: nn.Module | None
    predicted: list[Tensor] = field(default_factory=list)
    target: list[Tensor] = field(default_factory=list)

    def __call__(self, pred: Tensor, true: Tensor) -> Tensor:
        if not isinstance(self.network, LPIPS):
            assert self.network is not None  # the caller has checked that the network is there
            distances: Tensor = self.network(pred, true)
            return distances
        there = self.network.shift.device
        distances, *means = (values.to(pred.device) for values in self.network.compare(pred.to(there), true.to(there)))
        self.predicted.append(means[0])
        self.target.append(means[1])
        return distances


class _OneTransformed(ExitStack):
    """Transforms the filters of one network at a time, so that those of two are never in memory together."""

    _current: nn.Module | None = None

    def network(self, module: nn.Module) -> nn.Module:
        """The same network, from now on and until another one is asked for with transformed filters."""
        if module is not self._current:
            self.close()
            self.enter_context(transformed(module))
            self._current = module
        return module


def _network_name(key: str, protocol: Protocol, networks: Networks) -> str | None:
    """The network behind a metric: the protocol's, but for FID one that the caller gives goes first."""
    if key == FID and GIVEN_FID in networks.modules:
        return GIVEN_FID
    return protocol.networks.get(key)


def _measure_images(evaluation: Evaluation, key: str, grid: _Grid, network: nn.Module | _Vgg | None = None) -> None:
    """Average a metric over the grid and over each view, batch by batch."""

    def measure(part: slice) -> tuple[Tensor, _Vgg | None]:
        vgg = _Vgg(network.network) if isinstance(network, _Vgg) else None
        metric = IMAGE_METRICS[key]() if network is None else IMAGE_METRICS[key](vgg or network)
        metric.update(*_inputs(metric, grid, part))
        return metric.per_sample(), vgg

    count, values = len(grid.target), []
    parts = [slice(start, min(start + IMAGE_BATCH, count)) for start in range(0, count, IMAGE_BATCH)]
    for part, (found, vgg) in zip(parts, side_by_side(measure, parts), strict=True):
        values.append(found)
        if isinstance(network, _Vgg) and vgg is not None:
            network.predicted += vgg.predicted
            network.target += vgg.target
        if grid.progress is not None:
            grid.progress(key, part.stop, count)
    table = torch.cat(values).double().reshape(grid.views, -1)
    evaluation.record(key, table.nanmean(), table.nanmean(1).tolist())


def _inputs(metric: SampleMean, grid: _Grid, part: slice) -> tuple[Tensor, ...]:
    """What a metric of images wants to see of some of them."""
    pair = grid.predicted[part], grid.target[part]
    if not isinstance(metric, MaskedPSNR):
        return pair
    if grid.alpha is None:
        raise ValueError("the target images have no alpha channel")
    return (*pair, object_mask(grid.alpha[part]))


def _clip_features(grid: _Grid, networks: Networks) -> ClipFeatures | None:
    name = "i3d-kinetics-400"
    if name not in networks.modules:
        return None
    module, digest = networks.modules[name], networks.hashes[name]
    return ClipFeatures(module, digest, grid.predicted, grid.target, grid.views, networks.feature_cache, grid.progress)


def _measure_videos(evaluation: Evaluation, key: str, videos: ClipFeatures | None, video_input: VideoInput) -> None:
    assert videos is not None  # the caller has checked that the network is there
    if key == "test/fvd_c4d":
        video_input = VideoInput.BICUBIC
    predicted, target = videos.pair(key, video_input)
    evaluation.provenance["samples"][key] = samples = {
        "clips": len(target),
        "images_per_clip": videos.plain_clips(key).shape[1],
        "frames_per_clip": videos.clips(key).shape[1],
        "video_input": str(video_input),
        "warning": None,
    }
    metric = FEATURE_METRICS[key]()
    value = measured(metric, predicted, target)
    evaluation.record(key, value, metric.per_sample().tolist() if isinstance(metric, SampleMean) else None)
    if isinstance(metric, FrechetDistance):
        samples |= {"rank": covariance_rank(target), "warning": sample_warning(*target.shape)}


def _measure_fid(evaluation: Evaluation, grid: _Grid, name: str, module: nn.Module, vgg: _Vgg) -> None:
    if isinstance(module, DeepMeans) and vgg.target:
        predicted, target = torch.cat(vgg.predicted), torch.cat(vgg.target)
    else:
        predicted, target = (
            torch.cat(list(side_by_side(module, torch.split(images, IMAGE_BATCH))))
            for images in (grid.predicted, grid.target)
        )
    evaluation.record(FID, measured(FEATURE_METRICS[FID](), predicted, target))
    evaluation.provenance["samples"][FID] = {
        "images": len(target),
        "network": name,
        "rank": covariance_rank(target),
        "warning": sample_warning(*target.shape),
    }


def _note(evaluation: Evaluation, key: str, note: str | None) -> None:
    """Put what the protocol says about a metric before the warning about its samples."""
    sample = evaluation.provenance["samples"][key]
    sample["warning"] = "; ".join(text for text in (note, sample["warning"]) if text) or None


def _eight_bits(images: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    return (images.clamp(0, 1) * 255).round() / 255


def _provenance(shape: torch.Size, protocol: Protocol, networks: Networks) -> dict[str, Any]:
    views, frames, height, width = shape[:4]
    libraries = ("torch", "torchmetrics", "numpy", "safetensors")
    used = {_network_name(key, protocol, networks) for key in protocol.metrics}
    deviations = protocol.deviations(views, frames, height, width)
    if GIVEN_FID in used and protocol.networks[FID] != GIVEN_FID:
        deviations.append(f"{FID} with a network that the caller gave instead of {protocol.networks[FID]}")
    return {
        "versions": {"kg4d": kg4d.__version__, "python": platform.python_version()}
        | {name: version(name) for name in libraries},
        "counts": {"views": views, "frames": frames, "images": views * frames, "height": height, "width": width},
        "deviations": deviations,
        "networks": {name: digest for name, digest in networks.hashes.items() if name in used},
        "samples": {},
    }
