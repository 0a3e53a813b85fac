"""Tries an installed kg4d: `python try_installed.py` in an empty folder. What is missing in a wheel fails here.

What it fits is the quickstart with fewer steps; the kernels must be the native ones, and no file of a checkout is read.
"""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import kg4d
from kg4d.config.find import asked_for, named_experiments
from kg4d.config.load import expand
from kg4d.config.schema import ExperimentConfig

FEW = ("gaussians.count=400", "static.steps=20", "dynamic.steps=20", "refine.steps=5", "image_size=64")


def main() -> None:
    """Raise or exit with a line at the first thing that is wrong."""
    where = Path(kg4d.__file__).parent
    check("site-packages" in where.parts, f"{where} is no installation")
    said = subprocess.run(
        [sys.executable, "-m", "kg4d", "--version"], check=True, capture_output=True, text=True
    ).stdout
    check(said == f"kg4d {kg4d.__version__}\n" and kg4d.__version__ == version("kg4d"), f"--version says {said!r}")
    for name in named_experiments():  # every experiment and preset, with all that they extend
        if not name.startswith("sweep_"):  # files of other commands
            expand(ExperimentConfig, *asked_for(None, [name, "scene=synthetic:walker"]))
    if "--no-fit" in sys.argv:
        return

    from kg4d import kernels

    check(kernels.missing_reason() is None, f"no native kernels: {kernels.missing_reason()}")
    subprocess.run([sys.executable, "-m", "kg4d", "fit", "quickstart", *FEW], check=True)
    run = Path("runs/quickstart/full/seed0")
    record = json.loads((run / "run.json").read_text())
    check(record["renderer"] == "cpu", f"rendered by {record['renderer']}: {record['renderer_reason']}")
    check((run / "export" / "viewer.html").stat().st_size > 10_000, "no viewer")
    psnr = json.loads((run / "metrics.json").read_text())["metrics"]["test/psnr"]
    found = f"kernels {kernels.isa()}, quickstart {psnr:.1f} dB after a few steps, {where}"
    print(f"installed kg4d {said.split()[1]}: {found}")


def check(good: bool, what: str) -> None:
    """Exit with a line unless it is good."""
    if not good:
        sys.exit(f"try_installed: {what}")


if __name__ == "__main__":
    main()
