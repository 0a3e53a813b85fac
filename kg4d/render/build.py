"""From the name of a renderer to a renderer; `python -m kg4d.render.build --check` says what a GPU lacks."""

import argparse
import importlib.util
import logging
from typing import NamedTuple, assert_never

import torch

from kg4d import kernels
from kg4d.render.base import Renderer
from kg4d.render.settings import RendererKind

_log = logging.getLogger(__name__)


class RendererUnavailableError(ImportError):
    """The renderer that was asked for does not work on this machine; the message names the remedy."""


class _Chosen(NamedTuple):
    """A renderer that works here."""

    kind: RendererKind
    device: torch.device
    reason: str
    level: int = logging.INFO  # a GPU that lies idle deserves a warning


def build_renderer(
    kind: str | RendererKind = RendererKind.auto, threads: int | None = None, device: str = "auto"
) -> Renderer:
    """Build a renderer. A GPU that it draws on becomes the current one of torch.

    Args:
        kind: Its name; "auto" decides now, once, and logs the choice and the reason.
        threads: Threads of the cpu renderer; as many as torch uses when None.
        device: As in `RendererConfig`.

    Raises:
        ValueError: There is no renderer or device of that name, the renderer does not draw on that device, or
            `threads` is below 1.
        RendererUnavailableError: It was asked for by name and cannot work on this machine.

    >>> build_renderer("reference").name
    'reference'
    """
    try:
        kind = RendererKind(kind)
    except ValueError:
        names = ", ".join(k.value for k in RendererKind)
        raise ValueError(f"renderer kind must be one of {names}, got {kind!r}") from None
    kernels.thread_count(threads)
    wanted = _parsed(device)
    if kind is RendererKind.auto:
        chosen = _choose(wanted)
        _log.log(chosen.level, "renderer: %s (%s)", chosen.kind.value, chosen.reason)
    else:
        own = torch.device("cuda", 0) if kind is RendererKind.cuda else torch.device("cpu")
        chosen = _Chosen(kind, own if wanted is None else wanted, "asked for")
    renderer = _built(chosen.kind, chosen.device, threads)
    renderer.reason = chosen.reason
    return renderer


def _built(kind: RendererKind, device: torch.device, threads: int | None) -> Renderer:
    match kind:
        case RendererKind.cuda:
            if device.type != "cuda":
                raise ValueError(f"renderer.device: the cuda renderer draws on a GPU, not on {device}")
            if missing := _cuda_missing(device):
                raise RendererUnavailableError(f"the cuda renderer cannot work here: {missing}")
            from kg4d.render.cuda import CudaRenderer

            torch.cuda.set_device(device)
            return CudaRenderer(device)
        case RendererKind.cpu:
            if device.type != "cpu":
                raise ValueError(f"renderer.device: the cpu renderer draws on the CPU, not on {device}")
            if missing := kernels.missing_reason():
                raise RendererUnavailableError(f"the cpu renderer cannot work here: {missing}")
            from kg4d.render.cpu import CpuRenderer

            return CpuRenderer(threads)
        case RendererKind.reference:
            from kg4d.render.reference import ReferenceRenderer

            if device.type == "cuda" and (missing := _gpu_missing(device)):
                raise RendererUnavailableError(f"the reference renderer cannot work there: {missing}")
            return ReferenceRenderer(device)
        case RendererKind.auto:
            raise AssertionError("auto is resolved before")
        case _:
            assert_never(kind)


def _parsed(device: str) -> torch.device | None:
    """The device of that name, a GPU with its number; None for auto.

    Raises:
        ValueError: There is no such name.
    """
    if device == "auto":
        return None
    try:
        found = torch.device(device)
    except RuntimeError:
        found = torch.device("meta")
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"renderer.device: must be auto, cpu, cuda or cuda:<number>, not {device!r}")
    return torch.device("cuda", found.index or 0) if found.type == "cuda" else torch.device("cpu")


def _gpu_missing(device: torch.device) -> str | None:
    """Why torch cannot use that GPU, or None."""
    if not torch.cuda.is_available():
        return "torch finds no NVIDIA GPU; use renderer.kind=cpu"
    count = torch.cuda.device_count()
    if device.index >= count:
        return f"there is no {device}: this process may use {count} GPU{'s' * (count > 1)}, counted from cuda:0"
    return None


def gpu_missing_reason() -> str | None:
    """Why nothing can be drawn on the first GPU, or None."""
    return _cuda_missing(torch.device("cuda", 0))


def _cuda_missing(device: torch.device) -> str | None:
    """Why gsplat cannot be used on that GPU, or None."""
    if missing := _gpu_missing(device):
        return missing
    if importlib.util.find_spec("gsplat") is None:
        return 'gsplat is not installed; run `pip install "kg4d[cuda]"`'
    from kg4d.render import cuda

    return cuda.gsplat_missing_reason()


def _choose(wanted: torch.device | None) -> _Chosen:
    gpu, idle = torch.device("cuda", 0) if wanted is None else wanted, logging.INFO
    if gpu.type == "cuda":
        no_cuda = _cuda_missing(gpu)
        if no_cuda is None:
            return _Chosen(RendererKind.cuda, gpu, f"{torch.cuda.get_device_name(gpu)} with gsplat")
        if wanted is not None:
            raise RendererUnavailableError(f"the cuda renderer cannot work here: {no_cuda}")
        if torch.cuda.is_available():
            idle = logging.WARNING
            no_cuda = f"{torch.cuda.get_device_name(gpu)} is not used: {no_cuda}"
    else:
        no_cuda = "renderer.device=cpu"
    no_cpu = kernels.missing_reason()
    if no_cpu is None:
        reason = f"native kernels, {kernels.isa()}; no cuda: {no_cuda}"
        return _Chosen(RendererKind.cpu, torch.device("cpu"), reason, idle)
    reason = f"slow plain torch; no cpu kernels: {no_cpu}; no cuda: {no_cuda}"
    return _Chosen(RendererKind.reference, torch.device("cpu"), reason, logging.WARNING)


def main() -> int:
    """Say what this machine has and lacks for fits on a GPU; build gsplat's kernels where that was not done yet."""
    from kg4d.utils.cli import Parser, run

    parser = Parser("kg4d.render.build", "Say what this machine has and lacks for fits on a GPU.")
    help_of_check = "build gsplat's kernels where that was not done yet (minutes), and say what is missing"
    parser.add_argument("--check", action="store_true", required=True, help=help_of_check)
    parser.add_argument("--device", default="cuda", help="cuda:1 and so on; the first GPU by default")
    return run(_check, parser)


def _check(arguments: argparse.Namespace) -> None:
    from kg4d.errors import InputError

    print(f"torch    {torch.__version__}, built for CUDA {torch.version.cuda or '- (none: a build for the CPU alone)'}")
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        print(f"cuda:{index}   {torch.cuda.get_device_name(index)}, {memory:.0f} GiB")
    try:
        device = _parsed(arguments.device)
    except ValueError as error:
        raise InputError("--device", str(error), "name a GPU") from error
    if device is None or device.type != "cuda":
        raise InputError("--device", f"{arguments.device} is no GPU", "name one, such as cuda:0")
    if missing := _cuda_missing(device):
        raise InputError("cuda", missing, "see docs/gpu.md")
    print(f"gsplat   its kernels are built; renderer.kind=auto draws on {device}")


if __name__ == "__main__":
    raise SystemExit(main())
