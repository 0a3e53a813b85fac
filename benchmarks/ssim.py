"""The fused image loss against torch and against its multiply-adds: value and gradient, 4 x 256² x 3, one thread.

The floor counts what the windows of 11 taps along y and x need at each float, 22 multiply-adds a plane, for six planes:
three moments (those of the target alone could be kept) and three derivatives. It is their time at the measured rate.
"""

import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

from benchmarks._fma_rate import build_rate_program, multiply_adds_per_second
from benchmarks._harness import Row, arguments, in_turns, report
from kg4d import kernels
from kg4d.kernels.image_loss import ImageWeights, image_loss

_TAPS = torch.exp(-((torch.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
_TAPS /= _TAPS.sum()


def separable_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Mean SSIM of (B, C, H, W) images by two one-dimensional convolutions."""
    planes = torch.cat([a, b, a * a, b * b, a * b]).reshape(-1, 1, *a.shape[2:])
    planes = F.pad(planes, (5, 5, 5, 5), mode="reflect")
    planes = F.conv2d(F.conv2d(planes, _TAPS.view(1, 1, 1, 11)), _TAPS.view(1, 1, 11, 1))
    ma, mb, aa, bb, ab = planes.split(a.shape[0] * a.shape[1])
    aa, bb, ab = aa - ma * ma, bb - mb * mb, ab - ma * mb
    return ((2 * ma * mb + 1e-4) * (2 * ab + 9e-4) / ((ma * ma + mb * mb + 1e-4) * (aa + bb + 9e-4))).mean()


def main() -> None:
    """Compare the three ways, and ours with its floor."""
    args = arguments(__doc__)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    target = torch.rand(4, 256, 256, 3)
    leaf = (target + 0.2 * torch.rand_like(target)).clamp(0, 1).requires_grad_()
    planes = target.permute(0, 3, 1, 2).contiguous()
    gradients = {}

    def step(name: str) -> None:
        leaf.grad = None
        if name == "fused":
            loss = image_loss(leaf, target, weights=ImageWeights(0.8, 0.2), threads=1)
        else:
            image = leaf.permute(0, 3, 1, 2)
            l1 = (image - planes).abs().mean()
            if name == "separable":
                ssim = separable_ssim(image, planes)
            else:
                ssim = structural_similarity_index_measure(image, planes, data_range=1.0)
            loss = 0.8 * l1 + 0.2 * (1 - ssim)
        loss.backward()
        gradients[name] = leaf.grad

    rates: list[float] = []
    floor = leaf.numel() / 16 * 6 * 22
    with tempfile.TemporaryDirectory() as folder:
        program = build_rate_program(Path(folder))
        contestants = {name: lambda name=name: step(name) for name in ("separable", "torchmetrics", "fused")}  # type: ignore[misc]
        seconds = in_turns(contestants | {"rate": lambda: rates.append(multiply_adds_per_second(program))}, args.runs)
    times = {name: statistics.median(values) for name, values in seconds.items()}
    of_floor = statistics.median(t * rate / floor for t, rate in zip(seconds["fused"], rates[1:], strict=True))
    error = float((gradients["fused"] - gradients["torchmetrics"]).norm() / gradients["torchmetrics"].norm())
    claim = "fused L1 + SSIM"
    rows = [
        Row(f"{claim}: times faster", times["separable"] / times["fused"], "x", 100.0, "higher", "torch conv2d"),
        Row(f"{claim}: times faster", times["torchmetrics"] / times["fused"], "x", None, "higher", "torchmetrics"),
        Row(f"{claim}: our time", of_floor, "x", 1.8, "lower", f"multiply-add floor, {kernels.isa()}"),
        Row(f"{claim}: our time", times["fused"] * 1e3, "ms", None, "lower", "itself"),
        Row(f"{claim}: gradient difference", error, "", 1e-5, "lower", "torchmetrics"),
    ]
    report(rows, args.json)


if __name__ == "__main__":
    main()
