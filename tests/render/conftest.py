"""Every renderer and every instruction set that this machine has, as fixtures."""

from collections.abc import Iterator

import pytest

from kg4d import kernels
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


@pytest.fixture(params=["avx512", "avx2", "generic"])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set that this machine has, in use during the test."""
    fastest = kernels.isa()
    try:
        kernels.use_isa(request.param)
    except ValueError:
        pytest.skip(f"this machine has no {request.param}")
    yield request.param
    kernels.use_isa(fastest)
