"""Every renderer that this machine has, as a fixture."""

import pytest

from kg4d.render import build_renderer
from kg4d.render.base import Renderer


@pytest.fixture(params=["cpu", "reference", pytest.param("cuda", marks=pytest.mark.gpu)])
def renderer(request: pytest.FixtureRequest) -> Renderer:
    return build_renderer(request.param, threads=1)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def fast(request: pytest.FixtureRequest) -> Renderer:
    """A renderer with its own kernels, to be held against the reference in float64."""
    return build_renderer(request.param, threads=1)


@pytest.fixture
def reference() -> Renderer:
    return build_renderer("reference")
