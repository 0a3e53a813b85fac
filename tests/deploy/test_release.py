"""A release: one version everywhere, files of the wheel, processors that it runs on. `make wheel` tries all of it."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

import kg4d
from kg4d import kernels
from kg4d.kernels import library

ROOT = Path(__file__).parents[2]

# Of AVX and later, BMI and POPCNT; `tzcnt` is what objdump calls the `rep bsf` that every processor runs.
BITS = "andn|bextr|bls[ir]|blsmsk|bzhi|lzcnt|mulx|pdep|pext|popcnt|rorx|sarx|shlx|shrx"
AVX = re.compile(rf"%[yz]mm|%k[0-7]|:\t(v[a-z]|({BITS})\b)")


def test_the_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## \[(\d[^]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert citation["version"] == newest[1] == kg4d.__version__


def test_what_workflows_call_is_there() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        jobs = yaml.safe_load(path.read_text())["jobs"]
        for job in jobs.values():
            assert job["timeout-minutes"] > 0
            assert {job["needs"]} if isinstance(job.get("needs"), str) else set(job.get("needs", ())) <= set(jobs)
            called = re.findall(r"\bmake (\S+)", " ".join(step.get("run", "") for step in job["steps"]))
            assert set(called) - {"${{"} <= targets
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["cibuildwheel"]
    assert settings["test-requires"] == re.findall(r"^torch==.*$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


@pytest.mark.skipif(kernels.missing_reason() is not None, reason="needs the native kernels")
@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump, which comes with g++")
def test_only_kernels_for_a_processor_hold_its_instructions() -> None:
    """Else the linker may give an inline function compiled for AVX-512 to all, and old machines stop at it."""
    if "elf64-x86-64" not in subprocess.check_output(["objdump", "-f", library._LIBRARY], text=True):
        pytest.skip("another architecture")
    listing = subprocess.check_output(["objdump", "-dC", "--no-show-raw-insn", library._LIBRARY], text=True)
    offending, special, function = set(), 0, ""
    for line in listing.splitlines():
        if line.endswith(">:"):
            function = line
        elif AVX.search(line):
            allowed = "avx2::" in function or "avx512::" in function
            special += allowed
            offending |= set() if allowed else {function}
    assert not offending
    assert special > 1000  # so the pattern does find them


@pytest.mark.slow
def test_a_wheel_has_all_that_a_command_reads(tmp_path: Path) -> None:
    """Without its kernels, which take minutes to build, and with the libraries of these tests."""
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"),
            *("--config-settings=wheel.cmake=false", "--wheel-dir", tmp_path, ROOT),
        ],
        check=True,
        env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    (wheel,) = tmp_path.glob("kg4d-*.whl")
    assert f"-{kg4d.__version__}-py3-none-" in wheel.name
    inside = set(zipfile.ZipFile(wheel).namelist())
    for folder, place in {"kg4d": "kg4d", "configs": "kg4d/configs", "experiments": "kg4d/experiments"}.items():
        known = subprocess.check_output(["git", "ls-files", folder], cwd=ROOT, text=True).split()
        assert {place + path.removeprefix(folder) for path in known} <= inside
    env = tmp_path / "env"
    venv.create(env)
    (site,) = env.glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)
    libraries = {path for path in sys.path if path.endswith("site-packages")}
    (site / "libraries.pth").write_text("\n".join(sorted(libraries)))  # whose own .pth files are not read
    empty = tmp_path / "empty"
    empty.mkdir()
    subprocess.run([env / "bin" / "python", ROOT / "deploy" / "try_installed.py", "--no-fit"], cwd=empty, check=True)
