import os
import subprocess
import sys
from pathlib import Path

import argcomplete
import pytest

from kg4d.config.check import dotted_keys
from kg4d.config.completion import settings
from kg4d.config.schema import ExperimentConfig

ROOT = Path(__file__).parents[2]
CODE = """
import os, sys
from kg4d import __main__
end = os._exit
def after(status):
    print(*sorted({"torch", "numpy", "lightning"} & set(sys.modules)), flush=True)
    end(status)
import argcomplete
call = argcomplete.CompletionFinder.__call__
call.__defaults__ = tuple(after if default is end else default for default in call.__defaults__)
__main__.main()
"""


def completed(line: str, folder: Path) -> list[str]:
    """What a shell is told about an unfinished line; that nothing heavy was loaded for it is checked."""
    told = folder / "told"
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_STDOUT_FILENAME": str(told)}
    asked |= {"COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_SUPPRESS_SPACE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=os.environ | asked, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "\n"
    return told.read_text().splitlines()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("kg4d f", ["fit", "flows"]),
        ("kg4d fit recom", ["recommended"]),
        ("kg4d fit --config experiments/quickstart_k", ["experiments/quickstart_kg4d.yaml"]),
        ("kg4d fit --config experiments/kg4d.yaml dynamic.st", ["dynamic.steps="]),
        ("kg4d fit recommended --resume dynamic.st", ["dynamic.steps="]),
        ("kg4d fit recommended deformation.kind=hex", ["deformation.kind=hexplane"]),
        ("kg4d fit recommended trainer.progress_bar=", ["trainer.progress_bar=true", "trainer.progress_bar=false"]),
        ("kg4d fit --res", ["--resume"]),
        ("kg4d fit --variant ", []),
        ("kg4d prepare --input a.mp4 --out b matting.k", ["matting.kind="]),
        ("kg4d export --run runs --format ply,mp", ["ply,mp4"]),
        ("kg4d export --orbit ", ["auto", "full", "swing"]),
        ("kg4d flows --example ou", ["ou_1d"]),
    ],
)
def test_what_a_shell_is_told(line: str, words: list[str], tmp_path: Path) -> None:
    assert completed(line, tmp_path) == words


def test_every_setting_is_reached_from_the_blocks() -> None:
    reached, open_blocks = set(), [""]
    while open_blocks:
        words = settings(ExperimentConfig, open_blocks.pop())
        reached |= {word.removesuffix("=") for word in words if word.endswith("=")}
        open_blocks += [word for word in words if word.endswith(".")]
    blocks = {key.rpartition(".")[0] for key in dotted_keys(ExperimentConfig)}
    assert reached == set(dotted_keys(ExperimentConfig)) - blocks
    assert len(settings(ExperimentConfig, "")) <= 60
    assert settings(ExperimentConfig, "no_such") == {}


def test_a_shell_completes_with_the_line_of_the_readme(tmp_path: Path) -> None:
    """Bash loads argcomplete's function and calls it as for a pressed tab; COMP_WORDBREAKS has `=` in it."""
    (tmp_path / "kg4d").write_text(f'#!/bin/sh\nexec {sys.executable} -m kg4d "$@"\n')
    (tmp_path / "kg4d").chmod(0o755)
    line = "kg4d fit recommended deformation.kind=ski"
    script = argcomplete.shellcode(["kg4d"], shell="bash")
    script += f"\nCOMP_LINE={line!r} COMP_POINT={len(line)} COMP_TYPE=9\ncompopt() {{ :; }}\n"
    script += "_python_argcomplete kg4d\nprintf '%s|' \"${COMPREPLY[@]}\"\n"
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], env=os.environ | {"PATH": path}, cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.replace(" ", "") == "skinned|", done.stderr
