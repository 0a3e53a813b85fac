"""Networks without trained weights: tiny diffusion models, RAFT."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from tests.priors.rafts import Raft
from tests.priors.tiny_models import save_tiny_svd, save_tiny_zero123


@pytest.fixture(scope="session")
def zero123_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a Zero-1-to-3 model; not to be changed."""
    return save_tiny_zero123(tmp_path_factory.mktemp("models") / "zero123")


@pytest.fixture(scope="session")
def svd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a Stable Video Diffusion model; not to be changed."""
    return save_tiny_svd(tmp_path_factory.mktemp("models") / "svd")


@pytest.fixture
def raft(monkeypatch: pytest.MonkeyPatch) -> Raft:
    """torchvision with that network."""
    network, module = Raft(), ModuleType("torchvision.models.optical_flow")

    def raft_large(weights: str) -> Raft:
        if weights == "gone":
            raise OSError("no route to host")
        return network

    module.raft_large = raft_large
    module.Raft_Large_Weights = SimpleNamespace(C_T_SKHT_V2="as published")
    models = ModuleType("torchvision.models")
    models.optical_flow = module
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, models.__name__, models)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    return network


@pytest.fixture(scope="session", params=["small", "large"])
def random_weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with random weights of the real network; skipped where torchvision does not load."""
    try:
        optical_flow = pytest.importorskip("torchvision.models.optical_flow", exc_type=ImportError)
    except (RuntimeError, OSError) as error:  # beside another torch
        pytest.skip(f"torchvision does not load: {error}")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = getattr(optical_flow, f"raft_{request.param}")(weights=None, progress=False)
    file: Path = tmp_path_factory.mktemp("raft") / f"{request.param}.pth"
    torch.save(network.state_dict(), file)
    return file
