"""The one door to the native CPU kernels: loading, thread count, and the fused L1 + SSIM.

The library `kg4d/_native/libkg4d_kernels.so` is built by the install and called through ctypes. Where it is absent
`missing_reason` says why; nothing here fails at import.
"""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

_ABI_VERSION = 3
_FOLDER = Path(__file__).parent / "_native"
_LIBRARY = _FOLDER / "libkg4d_kernels.so"

_MESSAGES = {
    1: "a size or option is out of range",
    2: "the Gaussians, their features, the background or the cameras hold NaN or Inf",
    3: "the work needs more memory than this machine has",
    4: "this output does not hold what the backward pass needs",
}


class KernelsMissingError(RuntimeError):
    """The native kernels are not there; the message says why and what to do."""


class Scene(ctypes.Structure):
    """`kg4d_scene` of native/include/kg4d_kernels.h, which documents the fields."""

    _fields_ = (
        [(name, ctypes.c_int64) for name in ("gaussians", "cameras", "channels", "width", "height")]
        + [
            (name, ctypes.c_void_p)
            for name in ("means", "quats", "scales", "opacities", "features", "viewmats", "Ks", "background")
        ]
        + [(name, ctypes.c_float) for name in ("eps2d", "near_plane", "far_plane", "radius_clip")]
        + [(name, ctypes.c_int32) for name in ("features_per_camera", "antialiased", "threads")]
    )


class Images(ctypes.Structure):
    """`kg4d_images`."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("image", "alpha", "depth", "means2d", "radii")]


class Gradients(ctypes.Structure):
    """`kg4d_gradients`: four gradients of outputs, then what the backward pass writes."""

    _fields_ = [
        (name, ctypes.c_void_p)
        for name in (
            *("image", "alpha", "depth", "means2d"),
            *("means", "quats", "scales", "opacities", "features", "viewmats", "means2d_total", "absgrad"),
        )
    ]


class Statistics(ctypes.Structure):
    """`kg4d_statistics`: seconds per stage and amounts of work of the last passes of a frame."""

    _fields_ = [
        *((name, ctypes.c_double) for name in ("projection", "binning", "forward", "backward", "projection_backward")),
        *((name, ctypes.c_int64) for name in ("pairs", "forward_visits", "backward_visits")),
    ]


class Chosen(ctypes.Structure):
    """`kg4d_chosen`: Gaussians named one by one."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("count_frames", "gaussians", "rows", "columns", "width", "height")),
        *((name, ctypes.c_void_p) for name in ("means", "quats", "scales", "viewmats", "Ks", "ids", "frames")),
        ("eps2d", ctypes.c_float),
        ("threads", ctypes.c_int32),
    ]


class _ImagePair(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("images", "height", "width", "channels", "pixel_stride")),
        *((name, ctypes.c_void_p) for name in ("prediction", "target")),
        ("data_range", ctypes.c_float),
        ("threads", ctypes.c_int32),
    ]


@functools.cache
def _load() -> ctypes.CDLL | str:
    """The library, or why there is none."""
    remedy = "install a C++ compiler (g++ or clang++) and run `pip install` again"
    if not _LIBRARY.exists():
        note = _FOLDER / "not_built.txt"
        reason = (
            note.read_text().strip()
            if note.exists()
            else "they were not built: the package was not installed from its source, or the C++ compiler failed"
        )
        return f"{reason}; {remedy}"
    try:
        library = ctypes.CDLL(str(_LIBRARY))
        version = library.kg4d_abi_version()
    except (OSError, AttributeError) as error:
        return f"{_LIBRARY} cannot be loaded ({error}); {remedy}"
    if version != _ABI_VERSION:
        return f"{_LIBRARY} has version {version}, this package needs {_ABI_VERSION}; run `pip install` again"
    pointer, integer, number = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
    library.kg4d_isa.restype = ctypes.c_char_p
    library.kg4d_use_isa.argtypes = [ctypes.c_char_p]
    library.kg4d_fma_rate.restype = ctypes.c_double
    library.kg4d_frame_new.restype = pointer
    library.kg4d_frame_new.argtypes = []
    library.kg4d_frame_free.restype = None
    library.kg4d_frame_free.argtypes = [pointer]
    library.kg4d_frame_statistics.argtypes = [pointer, pointer]
    library.kg4d_forward.argtypes = library.kg4d_backward.argtypes = [pointer, pointer, pointer]
    library.kg4d_contributors.argtypes = [pointer, number, pointer, pointer, number, integer, pointer, pointer]
    library.kg4d_project_chosen.argtypes = [pointer] * 3
    library.kg4d_project_chosen_backward.argtypes = [pointer] * 6
    library.kg4d_l1_ssim.argtypes = [pointer] * 4
    library.kg4d_l1_ssim_backward.argtypes = [pointer, pointer, ctypes.c_float, ctypes.c_float, pointer]
    return library


def missing_reason() -> str | None:
    """None where the kernels can be used; else one sentence that says why not and what to do."""
    loaded = _load()
    return loaded if isinstance(loaded, str) else None


def library() -> ctypes.CDLL:
    """The loaded library.

    Raises:
        KernelsMissingError: There is none.
    """
    loaded = _load()
    if isinstance(loaded, str):
        raise KernelsMissingError(f"the native CPU kernels are missing: {loaded}")
    return loaded


def isa() -> str:
    """Instruction set that the kernels use: "avx512", "avx2" or "generic"."""
    return str(library().kg4d_isa().decode())


def use_isa(name: str) -> None:
    """Use another instruction set that this machine has (for tests and measurements).

    Raises:
        ValueError: This machine or this build does not have it.
    """
    if library().kg4d_use_isa(name.encode()) != 0:
        raise ValueError(f"the instruction set {name!r} is not available here")


def thread_count(threads: int | None = None) -> int:
    """How many threads a call uses: `threads`, or as many as torch when None.

    Raises:
        ValueError: `threads` is below 1.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"need at least one thread, got {threads}")
    return threads if threads is not None else torch.get_num_threads()


def address(tensor: Tensor | None) -> int | None:
    """Where the data of a dense tensor starts, for a pointer argument."""
    return None if tensor is None else tensor.data_ptr()


def check(status: int) -> None:
    """Turn the status of a native call into an exception.

    Raises:
        MemoryError: The work does not fit.
        ValueError: Anything else than success.
    """
    if status == 3:
        raise MemoryError(_MESSAGES[status])
    if status != 0:
        raise ValueError(_MESSAGES.get(status, f"native call failed with status {status}"))


class Frame:
    """Owner of a native frame: what a forward pass leaves for its backward pass and for contributor look-ups."""

    def __init__(self) -> None:
        self._free: Callable[[int], None] = library().kg4d_frame_free
        self.pointer: int | None = library().kg4d_frame_new()
        if self.pointer is None:
            raise MemoryError("no memory for a frame")

    def __del__(self) -> None:
        if getattr(self, "pointer", None) is not None:
            self._free(self.pointer)  # type: ignore[arg-type]  # checked above
            self.pointer = None

    def statistics(self) -> Statistics:
        """Times and amounts of work of the last passes."""
        out = Statistics()
        check(library().kg4d_frame_statistics(self.pointer, ctypes.byref(out)))
        return out


class L1SSIM(NamedTuple):
    """Two similarity measures of the same images."""

    l1: Float[Tensor, ""]  # mean absolute difference
    ssim: Float[Tensor, ""]  # mean structural similarity, 1 for equal images


class _L1SSIM(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, prediction: Tensor, target: Tensor, data_range: float, threads: int) -> tuple[Tensor, Tensor]:
        stride = _pixel_stride(prediction)
        if stride is None:
            prediction = prediction.contiguous()
            stride = prediction.shape[-1]
        target = target.contiguous()
        shape = [ctypes.c_int64(n) for n in (*prediction.shape, stride)]
        pair = _ImagePair(*shape, prediction.data_ptr(), target.data_ptr(), data_range, threads)
        gradient = torch.empty(prediction.shape) if ctx.needs_input_grad[0] else None
        l1, ssim = ctypes.c_double(), ctypes.c_double()
        check(library().kg4d_l1_ssim(ctypes.byref(pair), ctypes.byref(l1), ctypes.byref(ssim), address(gradient)))
        ctx.pair = pair
        ctx.save_for_backward(prediction, target, gradient)
        return torch.tensor(l1.value), torch.tensor(ssim.value)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, v_l1: Tensor, v_ssim: Tensor) -> tuple[Tensor, None, None, None]:
        _, _, ssim_gradient = ctx.saved_tensors
        gradient = torch.empty_like(ssim_gradient)
        weights = float(v_l1), float(v_ssim)
        pair = ctypes.byref(ctx.pair)
        check(library().kg4d_l1_ssim_backward(pair, ssim_gradient.data_ptr(), *weights, gradient.data_ptr()))
        return gradient, None, None, None


def _pixel_stride(images: Tensor) -> int | None:
    """Floats between neighbouring pixels when all pixels are evenly spaced with dense channels, else None."""
    _, height, width, channels = images.shape
    step = images.stride(2) if width > 1 else channels
    even = step >= channels and images.stride() == (height * width * step, width * step, step, 1)
    return step if even else None


def l1_ssim(
    prediction: Float[Tensor, "B H W C"],
    target: Float[Tensor, "B H W C"],
    *,
    data_range: float = 1.0,
    threads: int | None = None,
) -> L1SSIM:
    """Mean L1 and mean SSIM of images on the CPU, from one pass, differentiable by `prediction`.

    SSIM (Wang et al. 2004) with an 11-tap Gaussian window of sigma 1.5 and mirrored borders, as
    `torchmetrics.functional.structural_similarity_index_measure` has it. A slice of channels is read in place.

    Args:
        prediction: Images, channels last, float32.
        target: What they should be; no gradient flows to it.
        data_range: Difference between the largest and the smallest possible value, > 0.
        threads: Threads to use; as many as torch when None.

    Raises:
        ValueError: Not float32 on the CPU, different or empty shapes, or a data range that is not positive.
        KernelsMissingError: The native kernels are not installed.
    """
    for name, images in (("prediction", prediction), ("target", target)):
        if images.dtype != torch.float32 or images.device.type != "cpu":
            raise ValueError(f"{name} must be float32 on the CPU, got {images.dtype} on {images.device}")
    if prediction.dim() != 4 or prediction.shape != target.shape or prediction.numel() == 0:
        raise ValueError(f"need two (B, H, W, C) tensors of one shape, got {prediction.shape} and {target.shape}")
    if not data_range > 0:
        raise ValueError(f"data_range must be positive, got {data_range}")
    l1, ssim = _L1SSIM.apply(prediction, target.detach(), data_range, thread_count(threads))  # type: ignore[no-untyped-call]
    return L1SSIM(l1, ssim)
