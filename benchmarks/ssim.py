"""The fused L1 + SSIM against the same loss from torch convolutions: value and gradient, 4 x 256² x 3, one thread."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

from benchmarks._harness import Row, arguments, interleaved, report
from kg4d.kernels.l1_ssim import l1_ssim

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
    """Compare the three ways."""
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
            l1, ssim = l1_ssim(leaf, target, threads=1)
        else:
            image = leaf.permute(0, 3, 1, 2)
            l1 = (image - planes).abs().mean()
            if name == "separable":
                ssim = separable_ssim(image, planes)
            else:
                ssim = structural_similarity_index_measure(image, planes, data_range=1.0)
        (0.8 * l1 + 0.2 * (1 - ssim)).backward()
        gradients[name] = leaf.grad

    names = ("separable", "torchmetrics", "fused")
    times = interleaved({name: lambda name=name: step(name) for name in names}, args.runs)  # type: ignore[misc]
    error = float((gradients["fused"] - gradients["torchmetrics"]).norm() / gradients["torchmetrics"].norm())
    rows = [
        Row("fused L1 + SSIM: times faster", times["separable"] / times["fused"], "x", 100.0, "higher", "torch conv2d"),
        Row(
            "fused L1 + SSIM: times faster", times["torchmetrics"] / times["fused"], "x", None, "higher", "torchmetrics"
        ),
        Row("fused L1 + SSIM: our time", times["fused"] * 1e3, "ms", None, "lower", "itself"),
        Row("fused L1 + SSIM: gradient difference", error, "", 1e-5, "lower", "torchmetrics"),
    ]
    report(rows, args.json)


if __name__ == "__main__":
    main()
