"""The C ABI under AddressSanitizer and UndefinedBehaviorSanitizer, called with random and hostile arguments."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.mark.fuzz
def test_no_call_of_the_c_abi_touches_foreign_memory(tmp_path: Path) -> None:
    cmake = shutil.which("cmake")
    if cmake is None or not (shutil.which("c++") or shutil.which("g++")):
        pytest.skip("needs cmake and a C++ compiler")
    native = Path(__file__).parents[2] / "native"
    subprocess.run([cmake, "-S", native, "-B", tmp_path, "-DKG4D_SANITIZE=ON"], check=True, capture_output=True)
    subprocess.run([cmake, "--build", tmp_path, "--parallel", "2"], check=True, capture_output=True)
    strict = {"UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1", "ASAN_OPTIONS": "detect_leaks=0"}
    result = subprocess.run([tmp_path / "fuzz", "300"], env=os.environ | strict, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
