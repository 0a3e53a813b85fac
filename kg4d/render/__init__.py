"""Drawing Gaussians: one protocol, three renderers (CUDA, CPU, plain torch), one door: `build_renderer`."""

from kg4d.render.build import build_renderer

__all__ = ["build_renderer"]
