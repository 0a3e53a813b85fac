"""Tiny diffusion models, made once."""

from pathlib import Path

import pytest

from tests.priors.tiny_models import save_tiny_svd, save_tiny_zero123


@pytest.fixture(scope="session")
def zero123_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a Zero-1-to-3 model; not to be changed."""
    return save_tiny_zero123(tmp_path_factory.mktemp("models") / "zero123")


@pytest.fixture(scope="session")
def svd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a Stable Video Diffusion model; not to be changed."""
    return save_tiny_svd(tmp_path_factory.mktemp("models") / "svd")
