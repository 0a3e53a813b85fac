"""What a run was made with and what it cost: code, libraries, machine, threads, seconds, memory."""

import functools
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import kg4d
from kg4d.render.base import Renderer
from kg4d.stages.runner import StageRecord

_LIBRARIES = ("torch", "lightning", "torchmetrics", "omegaconf", "numpy", "wandb", "gsplat")


def environment(renderer: Renderer) -> dict[str, Any]:
    """What a run was made with: code, libraries, renderer, machine, threads."""
    return {
        "git_commit": git_commit(),
        "versions": {"kg4d": kg4d.__version__, "python": platform.python_version(), **_versions()},
        "renderer": renderer.name,
        "renderer_reason": renderer.reason,
        "device": _device_name(renderer.device),
        "cuda": _cuda(renderer.device),
        "threads": {"torch": torch.get_num_threads()},
        "platform": platform.platform(),
    }


def training_seconds(stages: Iterable[StageRecord]) -> dict[str, float]:
    """Wall seconds of all stages, those in renders and losses with their gradients, and the ratio of the two.

    The rest is the deformation network, the optimiser, density control, data, logs, previews and the Trainer.
    """
    stages = list(stages)
    wall = sum(stage.seconds["total"] for stage in stages)
    core = sum(stage.seconds.get(part, 0.0) for stage in stages for part in ("render", "losses", "backward"))
    return {"wall": round(wall, 3), "renders_and_losses": round(core, 3), "ratio": round(wall / max(core, 1e-9), 3)}


def peak_memory_bytes(renderer: Renderer) -> dict[str, int]:
    """High-water marks of this process so far."""
    marks = {}
    if sys.platform != "win32":  # which has no such module
        import resource

        unit = 1 if sys.platform == "darwin" else 1024  # bytes
        marks["host"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if renderer.device.type == "cuda":
        marks["device"] = torch.cuda.max_memory_allocated(renderer.device)
    return marks


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _cuda(device: torch.device) -> dict[str, Any]:
    """The GPUs of this machine, used or not, and what torch reaches them by; nothing where it finds none."""
    if not torch.cuda.is_available():
        return {}
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return {
        "toolkit": torch.version.cuda,
        "gpus": [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in found],
        "used": str(device) if device.type == "cuda" else None,
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


@functools.cache
def git_commit() -> str | None:
    """Commit of the checkout that the package runs from, marked where it has been edited; None outside one."""
    where = Path(__file__).resolve().parent
    try:
        commit = _git(where, "rev-parse", "HEAD")
        dirty = _git(where, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if dirty else commit


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
