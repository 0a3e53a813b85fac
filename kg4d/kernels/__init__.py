"""The one door to the native CPU kernels: `library` loads and calls them, `l1_ssim` is the fused image loss."""

from kg4d.kernels.library import (
    Gradients,
    Images,
    KernelsMissingError,
    NativeScene,
    RenderPlan,
    Statistics,
    Subset,
    address,
    check_status,
    isa,
    missing_reason,
    native_library,
    thread_count,
    use_isa,
)

__all__ = [
    "Gradients",
    "Images",
    "KernelsMissingError",
    "NativeScene",
    "RenderPlan",
    "Statistics",
    "Subset",
    "address",
    "check_status",
    "isa",
    "missing_reason",
    "native_library",
    "thread_count",
    "use_isa",
]
