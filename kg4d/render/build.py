"""From the name of a renderer to a renderer."""

import importlib.util
import logging
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

import torch

from kg4d import kernels
from kg4d.render.base import Renderer

_log = logging.getLogger(__name__)


class RendererKind(StrEnum):
    """The renderers."""

    auto = "auto"  # cuda where a GPU and gsplat are there, else cpu, else reference
    cuda = "cuda"
    cpu = "cpu"
    reference = "reference"


@dataclass
class RendererConfig:
    """Choice of the renderer.

    Attributes:
        kind: Which renderer to use; auto takes the fastest that works on this machine, and logs which.
        threads: Threads of the cpu renderer; as many as torch uses when None.
    """

    kind: RendererKind = RendererKind.auto
    threads: int | None = None


class RendererUnavailableError(ImportError):
    """The renderer that was asked for does not work on this machine; the message names the remedy."""


def build_renderer(kind: str | RendererKind = RendererKind.auto, threads: int | None = None) -> Renderer:
    """Build a renderer.

    Args:
        kind: Its name; "auto" decides now, once, and logs the choice and the reason.
        threads: Threads of the cpu renderer; as many as torch uses when None.

    Raises:
        ValueError: There is no renderer of that name, or `threads` is below 1.
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
    if kind is RendererKind.auto:
        chosen, reason = _choose()
        level = logging.WARNING if chosen is RendererKind.reference else logging.INFO
        _log.log(level, "renderer: %s (%s)", chosen.value, reason)
        return build_renderer(chosen, threads)
    match kind:
        case RendererKind.cuda:
            if missing := _cuda_missing():
                raise RendererUnavailableError(f"the cuda renderer cannot work here: {missing}")
            from kg4d.render.cuda import CudaRenderer

            return CudaRenderer()
        case RendererKind.cpu:
            if missing := kernels.missing_reason():
                raise RendererUnavailableError(f"the cpu renderer cannot work here: {missing}")
            from kg4d.render.cpu import CpuRenderer

            return CpuRenderer(threads)
        case RendererKind.reference:
            from kg4d.render.reference import ReferenceRenderer

            return ReferenceRenderer()
        case _:
            assert_never(kind)


def _cuda_missing() -> str | None:
    """Why gsplat cannot be used, or None."""
    if not torch.cuda.is_available():
        return "torch finds no NVIDIA GPU; use renderer.kind=cpu"
    if importlib.util.find_spec("gsplat") is None:
        return 'gsplat is not installed; run `pip install "kg4d[cuda]"`'
    from kg4d.render import cuda

    return cuda.gsplat_missing_reason()


def _choose() -> tuple[RendererKind, str]:
    no_cuda, no_cpu = _cuda_missing(), kernels.missing_reason()
    if no_cuda is None:
        return RendererKind.cuda, f"{torch.cuda.get_device_name()} with gsplat"
    if no_cpu is None:
        return RendererKind.cpu, f"native kernels, {kernels.isa()}; no cuda: {no_cuda}"
    return RendererKind.reference, f"slow plain torch; no cpu kernels: {no_cpu}; no cuda: {no_cuda}"
