"""How many multiply-adds of 16 lanes this machine does: what the floors of kernels are computed with."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from kg4d import kernels


def build_rate_program(folder: Path) -> Path:
    """The program that measures the multiply-add rate, built for the instruction set that the kernels use."""
    beside_python = str(Path(sys.executable).parent)
    cmake = shutil.which("cmake", path=os.pathsep.join([beside_python, os.environ.get("PATH", "")]))
    if cmake is None:
        raise SystemExit("needs cmake and a C++ compiler")
    target = f"fma_rate_{kernels.isa()}"
    native = Path(__file__).parent.parent / "native"
    for command in (["-S", native, "-B", folder, "-DKG4D_FMA_RATE=ON"], ["--build", folder, "--target", target]):
        subprocess.run([cmake, *command], check=True, stdout=subprocess.DEVNULL)
    return folder / target


def multiply_adds_per_second(program: Path) -> float:
    """Multiply-adds of 16 lanes that one core does in a second, measured now."""
    return float(subprocess.run([program], check=True, capture_output=True, text=True).stdout)
