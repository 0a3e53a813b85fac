"""What all tests share: one thread, fixed seeds, no network, and where the real scenes are."""

import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch when it loads; processes that tests start inherit it
os.environ |= {"WANDB_MODE": "disabled", "WANDB_SILENT": "true", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "kg4d",
    derandomize=True,
    deadline=None,
    max_examples=25,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("kg4d")
torch.set_num_threads(1)


class EveryTest:
    """Registered by hand because a conftest reaches only its own folder, and the doctests live in `kg4d/`."""

    @pytest.fixture(autouse=True)
    def seed(self) -> None:
        torch.manual_seed(0)
        torch.set_num_threads(1)  # a test before may have changed it, or a library in it


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(EveryTest())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU that torch can use"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """In CI the real scenes must be there: a `realdata` test that skips has failed, unless for want of a GPU."""
    report = yield
    wanted = os.environ.get("CI") == "true" and item.get_closest_marker("realdata")
    no_gpu = item.get_closest_marker("gpu") and not torch.cuda.is_available()
    if wanted and not no_gpu and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} skipped although CI=true: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def data_root(request: pytest.FixtureRequest) -> Path:
    """Folder of the real scenes (`gltf4d/`) and inputs (`inputs/`); the tests that use it are marked `realdata`."""
    beside = request.config.rootpath.parent / "shared" / "data"
    root = Path(os.environ.get("KG4D_DATA", beside))
    if not (root / "gltf4d").is_dir():
        pytest.skip(f"no real scenes in {root}: set KG4D_DATA to the folder that holds gltf4d/")
    return root


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder with nothing in it."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("KG4D_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def trained_weights() -> None:
    """The pinned weights in the user's cache folder, fetched once."""
    from kg4d.errors import InputError  # not at the top: the check of types hooks into the first import of the package
    from kg4d.networks.weights import pull

    try:
        pull()
    except InputError as error:
        pytest.skip(str(error))
