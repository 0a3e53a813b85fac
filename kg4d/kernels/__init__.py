"""The one door to the native CPU kernels: `library` loads and calls them, `l1_ssim` is the fused image loss."""

from kg4d.kernels.l1_ssim import L1SSIM, l1_ssim
from kg4d.kernels.library import (
    Chosen,
    Frame,
    Gradients,
    Images,
    KernelsMissingError,
    Scene,
    Statistics,
    address,
    check,
    isa,
    library,
    missing_reason,
    thread_count,
    use_isa,
)

__all__ = [
    "L1SSIM",
    "Chosen",
    "Frame",
    "Gradients",
    "Images",
    "KernelsMissingError",
    "Scene",
    "Statistics",
    "address",
    "check",
    "isa",
    "l1_ssim",
    "library",
    "missing_reason",
    "thread_count",
    "use_isa",
]
