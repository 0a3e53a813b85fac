"""Metrics with state give the same number in two processes as in one."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed
from torchmetrics import Metric

from kg4d.metrics.depth import AbsRel, WithinRatio
from kg4d.metrics.flow import Flicker, FlowEPE, flicker
from kg4d.metrics.frechet import FrechetDistance
from kg4d.metrics.image import PSNR, SSIM, FullSSIM, MaskedPSNR, MultiScaleSSIM
from kg4d.metrics.keypoints import PCK, KeypointError3D
from kg4d.metrics.orbit import Holes, Specks
from kg4d.metrics.perceptual import CLIPSimilarity, MeanLPIPS
from kg4d.metrics.state import PooledMean, SampleMean, measured
from kg4d.metrics.surface import SurfaceDistances, surface_distance
from kg4d.metrics.video import C4DDistance, PairedDistance
from kg4d.networks.lpips import LPIPS, Backbone

Batches = list[tuple[Metric, list[tuple[Any, ...]]]]


def mean_colour(images: torch.Tensor) -> torch.Tensor:
    """A feature network."""
    return images.mean((2, 3))


def with_batches() -> Batches:
    """Each metric, with three uneven batches."""
    generator = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    counts = (2, 1, 3)
    images = [(rand(n, 3, 16, 16), rand(n, 3, 16, 16)) for n in counts]
    masks = [(*pair, rand(len(pair[0]), 1, 16, 16) > 0.5) for pair in images]
    points = [(rand(n, 5, 2), rand(n, 5, 2), rand(n, 5) > 0.3, 10 * rand(n)) for n in counts]
    flows = [(rand(n, 4, 4, 2), rand(n, 4, 4, 2), rand(n, 4, 4)) for n in counts]
    depths = [(1 + rand(n, 4, 4), 1 + rand(n, 4, 4), rand(n, 4, 4)) for n in counts]
    features = [(rand(n, 4), rand(n, 4)) for n in counts]
    views = [
        (rand(n, 3, 32, 32), torch.ones(n, 1, 32, 32), rand(n, 3, 32, 32), torch.ones(n, 1, 32, 32)) for n in counts
    ]
    torch.manual_seed(0)  # both processes make the same network
    lpips = LPIPS(Backbone.ALEX).requires_grad_(False)
    return [
        (PSNR(), images),
        (SSIM(), images),
        (FullSSIM(), images),
        (MeanLPIPS(lpips), [(rand(n, 3, 32, 32), rand(n, 3, 32, 32)) for n in counts]),
        (CLIPSimilarity(mean_colour), images),
        (MultiScaleSSIM(), [(rand(n, 3, 176, 176), rand(n, 3, 176, 176)) for n in counts]),
        (MaskedPSNR(), masks),
        (PCK(0.1), points),
        (KeypointError3D(), [(rand(n, 5, 3), rand(n, 5, 3)) for n in counts]),
        (FlowEPE(), flows),
        (AbsRel(), depths),
        (WithinRatio(), depths),
        (Flicker(), [(rand(n + 1, 3, 4, 4), rand(n, 4, 4, 2), rand(n, 4, 4)) for n in counts]),
        (Specks(), views),
        (Holes(), [(0.5 + rand(n, 1, 32, 32),) for n in counts]),
        (FrechetDistance(), features),
        (C4DDistance(), features),
        (PairedDistance(), features),
        (SurfaceDistances(), [(list(rand(3, 20 + n, 3)), rand(3, 20, 3)) for n in counts]),
    ]


def measure(rank: int, folder: str) -> None:
    """Worker: every second batch."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    values = []
    for metric, parts in with_batches():
        for part in parts[rank::2]:
            metric.update(*part)
        values.append(metric.compute())
    torch.save(values, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_agree_with_one(tmp_path: Path) -> None:
    mp.spawn(measure, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for (metric, parts), one, other in zip(with_batches(), first, second, strict=True):
        for part in parts:
            metric.update(*part)
        assert one == other
        if isinstance(metric, SurfaceDistances):  # three numbers
            numbers = {name: value.item() for name, value in metric.compute().items()}
            assert {name: value.item() for name, value in one.items()} == pytest.approx(numbers, rel=1e-6)
            continue
        assert one.item() == pytest.approx(metric.compute().item(), rel=1e-6), type(metric).__name__


def test_batches_add_up_to_one_update() -> None:
    for metric, parts in with_batches():
        for part in parts:
            metric.update(*part)
        in_parts = metric.compute()
        metric.reset()
        if isinstance(metric, Flicker):  # its batches are videos: frames of two must not be joined
            means = [flicker(*part) for part in parts]
            assert in_parts.item() == pytest.approx(torch.cat(means).nanmean().item(), rel=1e-6)
            continue
        if isinstance(metric, SurfaceDistances):  # its batches are clips, each with an alignment of its own
            clips = [surface_distance(*part) for part in parts]
            for name, value in in_parts.items():
                means = [getattr(clip, name).mean().item() for clip in clips]
                assert value.item() == pytest.approx(sum(means) / len(means), rel=1e-6), name
            continue
        metric.update(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
        assert in_parts.item() == pytest.approx(metric.compute().item(), rel=1e-5), type(metric).__name__


def test_every_metric_of_the_package_is_here() -> None:
    """A class that nobody lists here would not be tested."""
    kinds = {SampleMean, PooledMean}
    found = {kind for base in (*kinds, Metric) for kind in base.__subclasses__() if kind.__module__.startswith("kg4d.")}
    assert found - kinds == {type(metric) for metric, _ in with_batches()}


class Samples(SampleMean):
    """Values as they are."""

    def update(self, values: torch.Tensor) -> None:
        self.add(values)


class Pooled(PooledMean):
    """Values as they are."""

    def update(self, values: torch.Tensor) -> None:
        self.add(values)


@pytest.mark.parametrize("kind", [Samples, Pooled])
def test_nan_does_not_count(kind: type[Samples] | type[Pooled]) -> None:
    metric, nothing = kind(), kind()
    metric.update(torch.tensor([1.0, torch.nan, 2.0]))
    metric.update(torch.tensor([torch.nan]))
    assert metric.compute() == 1.5
    nothing.update(torch.tensor([torch.nan]))
    assert nothing.compute().isnan()


def test_samples_can_be_looked_at_one_by_one() -> None:
    metric = Samples()
    metric.update(torch.tensor([3.0, 1.0]))
    metric.update(torch.tensor([2.0]))
    assert metric.per_sample().tolist() == [3.0, 1.0, 2.0]
    assert measured(Samples(), torch.tensor([3.0, 1.0])) == 2.0
