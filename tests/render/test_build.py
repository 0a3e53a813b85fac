import logging
from pathlib import Path

import pytest
import torch

from kg4d.kernels import library
from kg4d.render.build import RendererKind, RendererUnavailableError, build_renderer


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """As if the library had not been built."""
    monkeypatch.setattr(library, "_FOLDER", tmp_path)
    monkeypatch.setattr(library, "_LIBRARY", tmp_path / "libkg4d_kernels.so")
    monkeypatch.setattr(library, "_load", library._load.__wrapped__)
    return tmp_path


@pytest.mark.parametrize("kind", ["cpu", "reference", RendererKind.cpu])
def test_a_name_gives_that_renderer(kind: str) -> None:
    assert build_renderer(kind).name == RendererKind(kind).value


def test_auto_takes_the_fastest_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        renderer = build_renderer()
    assert renderer.name == ("cuda" if torch.cuda.is_available() else "cpu")
    assert f"renderer: {renderer.name}" in caplog.text


def test_without_kernels_auto_takes_the_reference_and_says_why(
    no_kernels: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (no_kernels / "not_built.txt").write_text("no C++ compiler was found\n")
    assert build_renderer("auto").name == "reference"
    assert "no C++ compiler was found" in caplog.text


def test_what_is_not_there_is_an_error_with_a_remedy(no_kernels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RendererUnavailableError, match="compiler"):
        build_renderer("cpu")
    with pytest.raises(RendererUnavailableError, match="renderer.kind=cpu"):
        build_renderer("cuda")
    (no_kernels / "libkg4d_kernels.so").write_bytes(b"not a library")
    with pytest.raises(RendererUnavailableError, match="cannot be loaded"):
        build_renderer("cpu")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="one of auto, cuda, cpu, reference"):
        build_renderer("vulkan")
    with pytest.raises(ValueError, match="thread"):
        build_renderer("reference", threads=0)
