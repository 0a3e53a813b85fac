"""Whole fits on pretended GPUs: devices are never mixed, and a step neither waits nor launches more than it is said to."""

from pathlib import Path

import pytest

from kg4d.pipeline import fit
from tests.pretended_gpu import pretend_gpus
from tests.tiny_runs import tiny


def test_a_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(tmp_path)
    with pretend_gpus(monkeypatch):
        folder = fit(config)
    assert (folder / "metrics.json").exists()
