"""The threads of the native kernels do every item of every loop once."""

import shutil
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[2] / "native"
COMPILER = shutil.which("c++") or shutil.which("g++")


@pytest.fixture(scope="module")
def loops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if COMPILER is None:
        pytest.skip("needs a C++ compiler")
    program = tmp_path_factory.mktemp("loops") / "loops"
    sources = [NATIVE / "tools" / "loops.cpp", NATIVE / "src" / "thread_pool.cpp"]
    subprocess.run(
        [COMPILER, "-O2", "-std=c++17", "-pthread", f"-I{NATIVE / 'src'}", *sources, "-o", program], check=True
    )
    return program


@pytest.mark.parametrize("threads", [2, 3])
def test_loops_that_follow_closely_are_not_mixed_up(loops: Path, threads: int) -> None:
    found = subprocess.run([loops, "200000", str(threads)], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout.strip()) == (0, "0")
