"""Imports point downward, heavy libraries come in by one door each, and nothing grows past reading size."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "kg4d"
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}

# Room -> what of the package it may import beside itself, `errors` and `files`. A name stands for all below it.
MATHS = ["geometry", "keypoints", "kernels", "ot"]
THINGS = [*MATHS, "gaussians", "render.base", "deform.base"]
ARROWS: dict[str, list[str] | None] = {
    "errors": [],
    "files": [],
    "logs": [],
    "runtime": [],
    "kernels": [],
    "geometry": MATHS,
    "keypoints": MATHS,
    "ot": MATHS,
    "gaussians": [*MATHS, "render.base"],
    "render": [*MATHS, "gaussians.state"],
    "deform": [*MATHS, "gaussians.state"],
    "priors": [*MATHS, "logs", "data", "metrics.perceptual"],  # VGG16 is inside LPIPS
    "data": [*THINGS, "render", "priors.base", "priors.cache"],
    "losses": [*MATHS, "gaussians.state", "render.base", "render.chosen", "deform.base", "priors.base"],
    "metrics": [],
    "export": ["geometry", "gaussians.state", "render.base", "data.images"],
    "fitted": THINGS,
    "stages": [*THINGS, "deform.encoding", "deform.skinned", "deform.control_points", "data", "losses", "metrics"],
    "history": [],
    "report": ["metrics"],
    "tracking": ["history", "report"],
    "config": None,  # `schema` composes the rooms' records; None: anything
    "evaluation": None,
    "preparation": ["data", "priors"],
    "products": None,
    "runs": None,
    "loaded": None,
    "pipeline": None,
    "cli": ["logs", "runtime"],
    **dict.fromkeys(["__init__", "__main__", "fit", "evaluate", "prepare", "sweep", "view"]),
}
CONFIG_READERS = {
    "config",
    "products",
    "runs",
    "loaded",
    "pipeline",
    "fit",
    "evaluate",
    "export",
    "prepare",
    "sweep",
    "view",
}

DOORS = {
    "cv2": ["priors/"],
    "ctypes": ["kernels.py", "render/cpu.py", "render/chosen.py", "runtime.py"],
    "diffusers": ["priors/"],
    "gsplat": ["render/cuda.py", "gaussians/density.py"],
    "gsply": ["export/"],
    "imageio_ffmpeg": ["export/video.py", "data/videos.py"],
    "lightning": ["data/", "stages/", "pipeline.py", "tracking.py"],
    "numpy": ["data/", "export/", "gaussians/points.py", "kernels.py", "metrics/", "priors/"],
    "omegaconf": ["config/"],
    "ot": ["ot/plans.py"],
    "plyfile": ["export/"],
    "ray": ["sweep.py"],
    "tqdm": ["logs.py"],
    "torchmetrics": ["losses/photometric.py", "metrics/"],
    "transformers": ["priors/"],
    "viser": ["export/viewer.py", "view.py"],
    "wandb": ["tracking.py"],
}


class Import(NamedTuple):
    file: str
    module: str  # absolute, dotted
    on_load: bool  # at the top of the file, not inside a function


def imports(file: str) -> Iterator[Import]:
    tree = ast.parse(FILES[file].read_text())
    inside = {node for function in functions(tree) for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(file, alias.name, node not in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: write absolute imports"
            if node.module == "kg4d" or (PACKAGE.parent / node.module.replace(".", "/")).is_dir():
                yield from (Import(file, f"{node.module}.{alias.name}", node not in inside) for alias in node.names)
            else:
                yield Import(file, node.module, node not in inside)


def functions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def room_of(name: str) -> str:
    return name.split("/")[0].removesuffix(".py")


def within(module: str, places: list[str]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


ALL = [found for file in FILES for found in imports(file)]
OURS = [found for found in ALL if found.module.startswith("kg4d.") and found.module != "kg4d.__version__"]
THEIRS = [found for found in ALL if found.module.split(".")[0] not in {"kg4d", *sys.stdlib_module_names}]


@pytest.mark.parametrize("room", sorted({room_of(file) for file in FILES}))
def test_imports_point_downward(room: str):
    assert room in ARROWS, f"{room} is new: give it its row in ARROWS"
    allowed = ARROWS[room]
    mine = [found for found in OURS if room_of(found.file) == room]
    if room == "export":  # the command of the same name is its __main__
        mine = [found for found in mine if found.file != "export/__main__.py"]
    wrong = [
        f"{found.file} imports {found.module}"
        for found in mine
        if allowed is not None and not within(found.module.removeprefix("kg4d."), [room, "errors", "files", *allowed])
    ]
    assert wrong == []


def test_only_those_who_decide_read_the_configuration():
    readers = {found.file for found in OURS if within(found.module, ["kg4d.config"])}
    assert {room_of(file) for file in readers - {"export/__main__.py"}} <= CONFIG_READERS


@pytest.mark.parametrize("library", DOORS)
def test_one_door_per_library(library: str):
    users = {found.file for found in ALL if within(found.module, [library])}
    assert [file for file in sorted(users) if not file.startswith(tuple(DOORS[library]))] == []


def declared(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w-]+", text)[0].lower().replace("_", "-") for text in requirements}


def test_what_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core = declared(project["dependencies"])
    extras = declared(
        [text for name, texts in project["optional-dependencies"].items() if name != "dev" for text in texts]
    )
    owners = packages_distributions()
    for found in THEIRS:
        top = found.module.split(".")[0]
        names = {owner.lower().replace("_", "-") for owner in owners.get(top, [top])}
        typing_only = f"if TYPE_CHECKING:\n    import {top}" in FILES[found.file].read_text()
        needed = found.on_load and not typing_only and loads_with_others(found.file)
        assert names & (core if needed else core | extras), f"{found.file} imports {top}: declare it, or import it late"


def loads_with_others(file: str) -> bool:
    """Whether another module loads this one at its own top, so that the libraries it needs are needed by all."""
    module = f"kg4d.{file.removesuffix('.py').replace('/', '.')}"
    return any(found.on_load and within(found.module, [module]) for found in OURS)


@pytest.mark.parametrize("file", FILES)
def test_files_and_functions_can_be_read_in_one_go(file: str):
    text = FILES[file].read_text()
    assert len(text.splitlines()) <= 300
    for function in functions(ast.parse(text)):
        body = function.body[1:] if ast.get_docstring(function) else function.body
        lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
        assert lines <= 50, f"{function.name} has {lines} lines"


def test_the_rules_can_fail():
    sample = "import gsplat.rendering\nfrom kg4d.stages import static\ndef f():\n    import ray\n"
    FILES["geometry/wrong.py"] = type("Sample", (), {"read_text": lambda _: sample})()
    try:
        found = list(imports("geometry/wrong.py"))
    finally:
        del FILES["geometry/wrong.py"]
    assert [(item.module, item.on_load) for item in found] == [
        ("gsplat.rendering", True),
        ("kg4d.stages.static", True),
        ("ray", False),
    ]
    assert not within("stages.static", ARROWS["geometry"])
