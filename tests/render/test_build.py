import logging
from pathlib import Path

import pytest
import torch

from kg4d.kernels import library
from kg4d.render.build import RendererUnavailableError, build_renderer, main
from kg4d.render.settings import RendererKind
from tests.pretended_gpu import pretend_gpus
from tests.render.scenes import random_case


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


@pytest.mark.parametrize(
    ("kind", "device", "expected"),
    [
        ("auto", "auto", "cuda:0"),
        ("cuda", "auto", "cuda:0"),
        ("auto", "cuda:1", "cuda:1"),
        ("cuda", "cuda:1", "cuda:1"),
        ("cuda", "cuda", "cuda:0"),
        ("reference", "cuda:1", "cuda:1"),
        ("reference", "auto", "cpu"),
        ("auto", "cpu", "cpu"),
        ("cpu", "cpu", "cpu"),
    ],
)
def test_the_device_is_chosen_once(monkeypatch: pytest.MonkeyPatch, kind: str, device: str, expected: str) -> None:
    pretend_gpus(monkeypatch, 2)
    renderer = build_renderer(kind, device=device)
    assert str(renderer.device) == expected
    if renderer.name == "cuda":
        assert torch.cuda.current_device() == renderer.device.index


@pytest.mark.parametrize(
    ("kind", "device", "what"),
    [
        ("cpu", "cuda:0", "draws on the CPU"),
        ("cuda", "cpu", "draws on a GPU"),
        ("auto", "gpu", "must be auto, cpu, cuda"),
        ("auto", "mps", "must be auto, cpu, cuda"),
    ],
)
def test_devices_that_do_not_fit_are_refused(
    monkeypatch: pytest.MonkeyPatch, kind: str, device: str, what: str
) -> None:
    pretend_gpus(monkeypatch)
    with pytest.raises(ValueError, match=what):
        build_renderer(kind, device=device)


@pytest.mark.parametrize("kind", ["auto", "cuda", "reference"])
def test_a_gpu_that_is_not_there_is_never_replaced(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    pretend_gpus(monkeypatch, 2)
    with pytest.raises(RendererUnavailableError, match="may use 2 GPUs"):
        build_renderer(kind, device="cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RendererUnavailableError, match="no NVIDIA GPU"):
        build_renderer(kind, device="cuda")


def test_tensors_of_another_gpu_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pretend_gpus(monkeypatch, 2):
        renderer = build_renderer(device="cuda:1")
        state = random_case(count=5).gaussians.map(lambda tensor: tensor.float().to("cuda:0"))
        with pytest.raises(ValueError, match="must be on cuda:1, got cuda:0"):
            renderer(state, random_case().cameras.to("cuda:1"))


def test_the_check_names_what_is_missing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["build.py", "--check"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert main() == 2
    written = capsys.readouterr()
    assert f"torch    {torch.__version__}" in written.out
    assert "torch finds no NVIDIA GPU" in written.err


def test_the_check_names_the_gpu_that_a_fit_would_use(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["build.py", "--check", "--device", "cuda:1"])
    pretend_gpus(monkeypatch, 2)
    assert main() == 0
    assert "cuda:1   a pretended GPU, 80 GiB" in capsys.readouterr().out
