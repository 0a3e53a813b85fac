"""Drawing Gaussians: one protocol, three renderers (CUDA, CPU, plain torch), one door: `build_renderer`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kg4d.render.build import build_renderer

__all__ = ["build_renderer"]


def __getattr__(name: str) -> Any:
    """`build_renderer`, when it is first asked for: `python -m kg4d.render.build` must be able to run that module."""
    if name != "build_renderer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kg4d.render import build

    return build.build_renderer
