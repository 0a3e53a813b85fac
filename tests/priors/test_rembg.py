"""Mattes by rembg behind its interface: what is given to the library, and what becomes of its answer."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from kg4d.errors import InputError
from kg4d.priors import matting
from kg4d.priors.matting import RembgMatting


@pytest.fixture
def rembg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A library whose network finds what is red, half of it for sure."""
    module = ModuleType("rembg")

    def new_session(model: str) -> Any:
        return SimpleNamespace(download_models=lambda: str(tmp_path / f"{model}.onnx"))

    def remove(picture: np.ndarray, session: Any, only_mask: bool) -> np.ndarray:
        assert (picture.dtype, only_mask) == (np.uint8, True)
        return np.where(picture[..., 0] == 255, 255, np.where(picture[..., 0] == 204, 102, 0)).astype(np.uint8)

    module.new_session, module.remove = new_session, remove
    monkeypatch.setitem(sys.modules, "rembg", module)
    matting._rembg_session.cache_clear()
    yield module
    matting._rembg_session.cache_clear()


def test_its_mattes_are_soft_and_checked(rembg: ModuleType) -> None:
    pictures = torch.zeros(2, 20, 20, 3)
    pictures[:, 4:12, 4:12, 0] = 1.0
    pictures[:, 12, 4:12, 0] = 0.8
    mattes = RembgMatting("u2net")(pictures)
    assert mattes.shape == (2, 20, 20, 1)
    assert mattes[0, 5, 5] == 1
    assert mattes[1, 12, 5] == pytest.approx(0.4)
    assert mattes[0, 0, 0] == 0
    with pytest.raises(InputError, match="no clear foreground"):
        RembgMatting("u2net")(torch.zeros(1, 20, 20, 3))


def test_its_network_is_known_by_its_content(rembg: ModuleType, tmp_path: Path) -> None:
    identities = []
    for content in (b"old", b"trained again"):
        (tmp_path / "u2net.onnx").write_bytes(content)
        identities.append(RembgMatting("u2net").identity())
    assert identities[0] != identities[1]
