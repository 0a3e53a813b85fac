"""The rules that `conftest.py` gives to every test."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TESTS = """
import pytest, torch
pytestmark = pytest.mark.realdata

def test_needs_scenes(data_root): ...
def test_skips_itself(): pytest.skip("no reason")
@pytest.mark.xfail(reason="known")
def test_expected_failure(): assert False
@pytest.mark.gpu
def test_gpu_and_scenes(data_root): ...
def test_passes(): ...
"""


@pytest.mark.parametrize(
    ("ci", "status", "outcome"),
    [("true", 1, "1 failed, 1 passed, 1 skipped, 1 xfailed, 1 error"), ("false", 0, "1 passed, 3 skipped, 1 xfailed")],
)
def test_in_ci_real_scenes_must_be_there(tmp_path: Path, ci: str, status: int, outcome: str):
    (tmp_path / "conftest.py").write_text(Path(__file__).with_name("conftest.py").read_text())
    (tmp_path / "test_toy.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  gpu\n  realdata\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", tmp_path],
        env={**os.environ, "CI": ci, "KG4D_DATA": str(tmp_path / "nowhere"), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()[-1].split(" in ")[0]) == (status, outcome), done.stdout
    assert "no real scenes in" in done.stdout
    assert "set KG4D_DATA" in done.stdout


@pytest.mark.parametrize("attempt", [1, 2])
def test_every_test_starts_from_the_same_seed_on_one_thread(attempt: int):
    assert torch.initial_seed() == 0
    assert torch.get_num_threads() == 1
    torch.manual_seed(random.randrange(1, 99))


def test_nothing_may_reach_a_hub():
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert os.environ["WANDB_MODE"] == "disabled"
