"""Real weights for the tests that are marked `realdata`, and a cache folder of their own for all others."""

from pathlib import Path

import pytest

from kg4d.errors import InputError
from kg4d.metrics.weights import pull


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder with nothing in it."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("KG4D_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def trained_weights() -> None:
    """The pinned weights in the user's cache folder, fetched once."""
    try:
        pull()
    except InputError as error:
        pytest.skip(str(error))
