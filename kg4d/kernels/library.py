"""The native CPU kernels: loading them, their records, thread count, errors.

The library `kg4d/_native/libkg4d_kernels.so` is built by the install and called through ctypes. Where it is absent
`missing_reason` says why; nothing here fails at import.
"""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

_ABI_VERSION = 7
_FOLDER = Path(__file__).parents[1] / "_native"
_LIBRARY = _FOLDER / "libkg4d_kernels.so"

_MESSAGES = {
    1: "a size or option is out of range",
    2: "the Gaussians, their features, the background or the cameras hold NaN or Inf",
    3: "the work needs more memory than this machine has",
    4: "this render plan does not hold what the backward pass needs",
}


class KernelsMissingError(RuntimeError):
    """The native kernels are not there; the message says why and what to do."""


class NativeScene(ctypes.Structure):
    """`kg4d_scene` of native/include/kg4d_kernels.h, which documents the fields."""

    _fields_ = (
        [(name, ctypes.c_int64) for name in ("gaussians", "cameras", "channels", "width", "height")]
        + [
            (name, ctypes.c_void_p)
            for name in (
                *("means", "quats", "scales", "covariances", "opacities", "features", "harmonics"),
                *("viewmats", "Ks", "background"),
            )
        ]
        + [(name, ctypes.c_float) for name in ("eps2d", "near_plane", "far_plane", "radius_clip")]
        + [(name, ctypes.c_int32) for name in ("features_per_camera", "antialiased", "sh_degree", "threads")]
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
            *("means", "quats", "scales", "covariances", "opacities", "features", "harmonics"),
            *("viewmats", "means2d_total", "absgrad"),
        )
    ]


class Statistics(ctypes.Structure):
    """`kg4d_statistics`: seconds per stage and amounts of work of the last passes of a render plan."""

    _fields_ = [
        *((name, ctypes.c_double) for name in ("projection", "binning", "forward", "backward", "projection_backward")),
        *((name, ctypes.c_int64) for name in ("pairs", "forward_visits", "backward_visits")),
    ]


class Subset(ctypes.Structure):
    """`kg4d_subset`: Gaussians given by index, in several frames."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("frames", "gaussians", "rows", "columns", "width", "height")),
        *((name, ctypes.c_void_p) for name in ("means", "quats", "scales", "covariances", "viewmats", "Ks")),
        *((name, ctypes.c_void_p) for name in ("ids", "row_frames")),
        ("eps2d", ctypes.c_float),
        ("threads", ctypes.c_int32),
    ]


class SubsetGradients(ctypes.Structure):
    """`kg4d_subset_gradients`."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("means", "quats", "scales", "covariances")]


class Spacetime(ctypes.Structure):
    """`kg4d_spacetime`: Gaussians in space and time, and when to slice them."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("gaussians", "times")),
        *((name, ctypes.c_void_p) for name in ("means", "left", "right", "scales", "opacities", "at")),
        ("least_weight", ctypes.c_float),
        ("threads", ctypes.c_int32),
    ]


class Slices(ctypes.Structure):
    """`kg4d_slices`."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("means", "opacities", "covariances", "velocities")]


class SliceGradients(ctypes.Structure):
    """`kg4d_slice_gradients`: four gradients of the slices, then what the backward pass writes."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("means", "opacities", "covariances", "velocities")),
        *((name, ctypes.c_void_p) for name in ("v_means", "v_left", "v_right", "v_scales", "v_opacities")),
    ]


class ImagePair(ctypes.Structure):
    """`kg4d_image_pair`: what the fused image loss compares."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("images", "height", "width", "channels", "pixel_stride")),
        *((name, ctypes.c_void_p) for name in ("prediction", "target", "alpha", "target_alpha")),
        *((name, ctypes.c_float) for name in ("data_range", "l1_weight", "ssim_weight", "alpha_weight")),
        ("threads", ctypes.c_int32),
    ]


_RECORDS = (  # in the order of `kg4d_struct`
    *(NativeScene, Images, Gradients, Statistics, Subset, ImagePair),
    *(SubsetGradients, Spacetime, Slices, SliceGradients),
)


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
    _declare(library)
    for number, record in enumerate(_RECORDS):
        there, here = library.kg4d_struct_size(number), ctypes.sizeof(record)
        if there != here:
            what = f"its {record.__name__} has {there} bytes, this package's {here}"
            return f"{_LIBRARY} does not fit this package ({what}); run `pip install` again"
    return library


def _declare(library: ctypes.CDLL) -> None:
    """Argument and result types of native/include/kg4d_kernels.h; an `int` result needs none."""
    pointer, integer, number = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
    library.kg4d_struct_size.restype = number
    library.kg4d_isa.restype = ctypes.c_char_p
    library.kg4d_use_isa.argtypes = [ctypes.c_char_p]
    library.kg4d_render_plan_new.restype = pointer
    library.kg4d_render_plan_new.argtypes = []
    library.kg4d_render_plan_free.restype = None
    library.kg4d_render_plan_free.argtypes = [pointer]
    library.kg4d_render_plan_statistics.argtypes = [pointer, pointer]
    library.kg4d_forward.argtypes = library.kg4d_backward.argtypes = [pointer, pointer, pointer]
    library.kg4d_contributors.argtypes = [pointer, number, pointer, pointer, number, integer, pointer, pointer]
    library.kg4d_project_subset.argtypes = [pointer] * 3
    library.kg4d_project_subset_backward.argtypes = [pointer] * 4
    library.kg4d_slice.argtypes = library.kg4d_slice_backward.argtypes = [pointer] * 2
    library.kg4d_image_loss.argtypes = [pointer] * 4


def missing_reason() -> str | None:
    """None where the kernels can be used; else one sentence that says why not and what to do."""
    loaded = _load()
    return loaded if isinstance(loaded, str) else None


def native_library() -> ctypes.CDLL:
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
    return str(native_library().kg4d_isa().decode())


def use_isa(name: str) -> None:
    """Use another instruction set that this machine has (for tests and measurements).

    Raises:
        ValueError: This machine or this build does not have it.
    """
    if native_library().kg4d_use_isa(name.encode()) != 0:
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


def check_status(status: int) -> None:
    """Turn the status of a native call into an exception.

    Raises:
        MemoryError: The work does not fit.
        ValueError: Anything else than success.
    """
    if status == 3:
        raise MemoryError(_MESSAGES[status])
    if status != 0:
        raise ValueError(_MESSAGES.get(status, f"native call failed with status {status}"))


class RenderPlan:
    """Owner of a native render plan: what a forward pass leaves for its backward pass and for contributor look-ups."""

    def __init__(self) -> None:
        self._free: Callable[[int], None] = native_library().kg4d_render_plan_free
        self.pointer: int | None = native_library().kg4d_render_plan_new()
        if self.pointer is None:
            raise MemoryError("no memory for a render plan")

    def __del__(self) -> None:
        if getattr(self, "pointer", None) is not None:
            self._free(self.pointer)  # type: ignore[arg-type]  # checked above
            self.pointer = None

    def statistics(self) -> Statistics:
        """Times and amounts of work of the last passes."""
        out = Statistics()
        check_status(native_library().kg4d_render_plan_statistics(self.pointer, ctypes.byref(out)))
        return out
