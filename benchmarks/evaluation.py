"""The metrics of networks on 4 x 16 frames of 256²: the evaluator against torch's own layers, each metric by itself."""

import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))


import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._harness import Row, arguments, in_turns, ratio, report
from kg4d.metrics.clips import repeated
from kg4d.metrics.feature_cache import FeatureCache
from kg4d.metrics.feature_networks import load_networks
from kg4d.metrics.frechet import frechet_distance
from kg4d.metrics.perceptual import i3d_frames
from kg4d.metrics.protocols import GLTF4D, VIDEO_KEYS, VideoInput
from kg4d.metrics.suite import evaluate_grid
from kg4d.metrics.video import CLIPS, c4d_distance, paired_distance
from kg4d.networks.i3d import I3D, MIN_FRAMES, POOLS_BEFORE

_KEYS = ("test/lpips_vgg", "test/lpips_alex", *VIDEO_KEYS, "test/fid")
_MOST_RUNS = 3  # a minute each
_BATCH = 4  # images or clips at a time: the fastest for the straightforward way


def grids(views: int = 4, frames: int = 16, size: int = 256) -> tuple[Tensor, Tensor]:
    """A blob that walks over white, textured and smooth, and the same with some noise: (V, T, H, W, 3) of 8 bits."""
    g = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    time = torch.linspace(0, 1, frames)[None, :, None, None]
    angle = torch.arange(views)[:, None, None, None] * 1.5708
    inside = ((x - 0.3 * torch.cos(6.28 * time + angle)) / 0.4) ** 2 + (y / 0.7) ** 2 < 1
    waves = torch.stack([torch.sin(k * x + 3 * y + 6.28 * time + angle) for k in (5, 9, 14)], -1)
    true = torch.where(inside[..., None], 0.5 + 0.4 * waves, 1.0)
    noise = F.avg_pool2d(torch.randn(views * frames, 3, size + 2, size + 2, generator=g), 3, stride=1)
    noise = noise.movedim(1, -1).reshape(true.shape)
    return tuple((255 * image.clamp(0, 1)).round() / 255 for image in (true + 0.1 * noise * inside[..., None], true))


def plain_i3d(network: I3D, clips: Tensor) -> Tensor:
    """The same network by torch's own convolutions and poolings alone."""

    def padded(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        padding: list[int] = []
        for size, k, s in reversed(list(zip(x.shape[2:], kernel, stride, strict=True))):
            total = max((-(-size // s) - 1) * s + k - size, 0)
            padding += [total // 2, total - total // 2]
        return F.pad(x, padding)

    def pooled(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
        return F.max_pool3d(padded(x, kernel, stride), kernel, stride)

    def convolved(layer: nn.Module, x: Tensor) -> Tensor:
        if isinstance(layer, nn.Sequential):
            return convolved(layer[1], convolved(layer[0], x))
        x = padded(x, layer.kernel_size, layer.stride)
        return F.relu_(F.conv3d(x, layer.weight, layer.bias, layer.stride))

    x = clips
    for name, block in network.blocks.items():
        if name in POOLS_BEFORE:
            x = pooled(x, *POOLS_BEFORE[name])
        if name.startswith("Mixed"):
            parts = [convolved(getattr(block, f"branch_{index}"), x) for index in range(3)]
            x = torch.cat([*parts, convolved(block.branch_3, pooled(x, (3, 3, 3), (1, 1, 1)))], 1)
        else:
            x = convolved(block, x)
    return network.logits(F.avg_pool3d(x, (2, 7, 7), stride=1)).mean((2, 3, 4))


@torch.no_grad()
def straightforward(modules: dict[str, nn.Module], predicted: Tensor, target: Tensor) -> dict[str, float]:
    """Every metric for itself. FID takes the features of LPIPS, and the distances of whole videos share theirs."""
    views, frames = predicted.shape[:2]
    sides = [grid.flatten(0, 1).movedim(-1, 1).contiguous() for grid in (predicted, target)]
    values = {}
    for net in ("vgg", "alex"):
        pairs = zip(*(torch.split(2 * side - 1, _BATCH) for side in sides), strict=True)
        found = [modules[f"lpips-{net}"].compare(*pair) for pair in pairs]
        values[f"test/lpips_{net}"] = float(torch.cat([part.distances for part in found]).mean())
        if net == "vgg":
            means = (torch.cat([part[k] for part in found]) for k in (1, 2))
            values["test/fid"] = float(frechet_distance(*means))
    network, known = modules["i3d-kinetics-400"], {}
    for key in VIDEO_KEYS:
        video_input = VideoInput.BICUBIC if key == "test/fvd_c4d" else GLTF4D.video_input
        name = CLIPS[key], video_input
        if name not in known:
            clips, known[name] = repeated(CLIPS[key](views, frames), MIN_FRAMES), []
            for side in sides:
                images = i3d_frames(side, video_input)
                batches = (images[batch].transpose(1, 2) for batch in torch.split(clips, _BATCH))
                layout = torch.channels_last_3d
                known[name].append(torch.cat([plain_i3d(network, b.contiguous(memory_format=layout)) for b in batches]))
        distance = {"test/fvd_c4d": c4d_distance, "test/video_distance": paired_distance}.get(key, frechet_distance)
        values[key] = float(distance(*known[name]).mean())
    return values


def main() -> None:
    """Compare with the truth's features computed, and kept from an earlier evaluation."""
    args = arguments(__doc__)
    predicted, target = grids()
    networks, protocol = load_networks(keep_features=False), replace(GLTF4D, metrics=_KEYS)
    modules = {name: networks.modules[name] for name in ("lpips-vgg", "lpips-alex", "i3d-kinetics-400")}
    values: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        kept = replace(networks, feature_cache=FeatureCache(Path(folder)))

        def ours(name: str) -> None:
            nets = kept if name == "kept" else networks
            values[name] = evaluate_grid(predicted, target, None, protocol=protocol, networks=nets).metrics

        def plain() -> None:
            values["plain"] = straightforward(modules, predicted, target)

        contestants = {"plain": plain, "computed": lambda: ours("computed"), "kept": lambda: ours("kept")}
        times = in_turns(contestants, min(args.runs, _MOST_RUNS))
    off = max(abs(values["computed"][key] / value - 1) for key, value in values["plain"].items())
    assert values["kept"] == values["computed"]
    ours_s = statistics.median(times["computed"])
    computed, kept = (ratio(times["plain"], times[name]) for name in ("computed", "kept"))
    rows = [
        Row("evaluation: times faster", computed, "x", 2.0, "higher", "torch, each metric by itself"),
        Row("evaluation, truth kept: times faster", kept, "x", 2.0, "higher", "torch, each metric by itself"),
        Row("evaluation: our time", ours_s, "s", None, "lower", "itself"),
        Row("evaluation: largest relative difference", off, "", 1e-5, "lower", "torch, each metric by itself"),
    ]
    report(rows, args.json)


if __name__ == "__main__":
    main()
