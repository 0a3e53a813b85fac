"""Metrics with state give the same number in two processes as in one."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed
from torchmetrics import Metric

from kg4d.metrics.flow import EndPointError, Flicker
from kg4d.metrics.frechet import FrechetDistance
from kg4d.metrics.image import PSNR, SSIM, MaskedPSNR, MultiScaleSSIM
from kg4d.metrics.keypoints import PCK, KeypointError3D
from kg4d.metrics.perceptual import MeanLPIPS

Batches = list[tuple[Metric, list[tuple[torch.Tensor, ...]]]]


def untrained() -> Batches:
    """Each metric that needs no trained weights, with three uneven batches."""
    generator = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    counts = (2, 1, 3)
    images = [(rand(n, 3, 16, 16), rand(n, 3, 16, 16)) for n in counts]
    masks = [(*pair, rand(len(pair[0]), 1, 16, 16) > 0.5) for pair in images]
    points = [(rand(n, 5, 2), rand(n, 5, 2), rand(n, 5) > 0.3, 10 * rand(n)) for n in counts]
    flows = [(rand(n, 4, 4, 2), rand(n, 4, 4, 2), rand(n, 4, 4)) for n in counts]
    return [
        (PSNR(), images),
        (SSIM(), images),
        (MultiScaleSSIM(), [(rand(n, 3, 176, 176), rand(n, 3, 176, 176)) for n in counts]),
        (MaskedPSNR(), masks),
        (PCK(0.1), points),
        (KeypointError3D(), [(rand(n, 5, 3), rand(n, 5, 3)) for n in counts]),
        (EndPointError(), flows),
        (Flicker(), [(rand(n + 1, 3, 4, 4), rand(n, 4, 4, 2), rand(n, 4, 4)) for n in counts]),
        (FrechetDistance(), [(rand(n, 4), rand(n, 4)) for n in counts]),
    ]


def trained() -> Batches:
    """The metric that holds a trained network, with three uneven batches."""
    generator = torch.Generator().manual_seed(0)
    pairs = [(torch.rand(2, n, 3, 32, 32, generator=generator)).unbind() for n in (2, 1, 3)]
    return [(MeanLPIPS("alex"), pairs)]


def measure(rank: int, folder: str, batches: Callable[[], Batches]) -> None:
    """Worker: every second batch."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    values = []
    for metric, parts in batches():
        for part in parts[rank::2]:
            metric.update(*part)
        values.append(metric.compute())
    torch.save(values, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_agree_with_one(tmp_path: Path) -> None:
    compare(tmp_path, untrained)


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.usefixtures("trained_weights")
def test_two_processes_agree_with_one_on_lpips(tmp_path: Path) -> None:
    compare(tmp_path, trained)


def compare(tmp_path: Path, batches: Callable[[], Batches]) -> None:
    mp.spawn(measure, args=(str(tmp_path), batches), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for (metric, parts), one, other in zip(batches(), first, second, strict=True):
        for part in parts:
            metric.update(*part)
        assert one == other
        assert one.item() == pytest.approx(metric.compute().item(), rel=1e-9), type(metric).__name__
