"""Imports point downward and heavy libraries come in by one door each (`tool.importlinter` in pyproject.toml)."""

import ast
import logging
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple

import pytest
from importlinter.cli import EXIT_STATUS_ERROR, EXIT_STATUS_SUCCESS, lint_imports

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "kg4d"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}


@pytest.fixture
def only_this_checkout(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The finder of an editable install takes the folder above `configs` for a part of the package.

    The linter's own set-up of logging switches all other loggers off; they are as before afterwards.
    """
    loggers = [logger for logger in logging.Logger.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    disabled = [logger.disabled for logger in loggers]
    monkeypatch.setattr(sys, "meta_path", [f for f in sys.meta_path if not type(f).__module__.startswith("_editable")])
    monkeypatch.syspath_prepend(str(ROOT))
    yield
    for logger, was in zip(loggers, disabled, strict=True):
        logger.disabled = was


def kept(capsys: pytest.CaptureFixture[str], config: Path, *contracts: str) -> bool:
    status = lint_imports(config_filename=str(config), limit_to_contracts=contracts, no_cache=True)
    assert status in (EXIT_STATUS_SUCCESS, EXIT_STATUS_ERROR)
    if status == EXIT_STATUS_SUCCESS:
        capsys.readouterr()
    return status == EXIT_STATUS_SUCCESS


@pytest.mark.usefixtures("only_this_checkout")
def test_imports_keep_every_contract(capsys: pytest.CaptureFixture[str]):
    assert kept(capsys, ROOT / "pyproject.toml"), capsys.readouterr().out


@pytest.mark.usefixtures("only_this_checkout")
@pytest.mark.parametrize(
    ("contract", "broken"),
    [
        ("layers", ('    "geometry",\n    "utils",\n', '    "utils",\n')),  # a room without a place
        ("layers", ('    "pipeline",\n    "runs",\n', '    "runs",\n    "pipeline",\n')),  # an arrow upward
        ("door-of-cv2", ('    "kg4d.priors.** -> cv2",\n', "")),  # a second door
    ],
)
def test_the_contracts_can_break(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], contract: str, broken: tuple[str, str]
):
    text = (ROOT / "pyproject.toml").read_text()
    assert text.count(broken[0]) == 1
    (tmp_path / "pyproject.toml").write_text(text.replace(*broken))
    assert not kept(capsys, tmp_path / "pyproject.toml", contract)


class Import(NamedTuple):
    file: str
    module: str  # absolute, dotted
    on_load: bool  # at the top of the file, not inside a function or for types alone


def imports(file: str) -> Iterator[Import]:
    tree = ast.parse(FILES[file].read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    typing = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    inside = {node for late in (*functions, *typing) for node in ast.walk(late)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(file, alias.name, node not in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: write absolute imports"
            if node.module == "kg4d" or (PACKAGE.parent / node.module.replace(".", "/")).is_dir():
                yield from (Import(file, f"{node.module}.{alias.name}", node not in inside) for alias in node.names)
            else:
                yield Import(file, node.module, node not in inside)


def within(module: str, place: str) -> bool:
    return module == place or module.startswith(f"{place}.")


def declared(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w-]+", text)[0].lower().replace("_", "-") for text in requirements}


def test_what_is_imported_is_declared():
    everything = [found for file in FILES for found in imports(file)]
    core = declared(PROJECT["project"]["dependencies"])
    extras = PROJECT["project"]["optional-dependencies"]
    optional = declared([text for name, texts in extras.items() if name != "dev" for text in texts])
    owners = packages_distributions()
    for found in everything:
        top = found.module.split(".")[0]
        if top in {"kg4d", *sys.stdlib_module_names}:
            continue
        names = {owner.lower().replace("_", "-") for owner in owners.get(top, [top])}
        module = f"kg4d.{found.file.removesuffix('.py').replace('/', '.')}"
        loads_with_others = any(other.on_load and within(other.module, module) for other in everything)
        needed = found.on_load and loads_with_others
        assert names & (core if needed else core | optional), (
            f"{found.file} imports {top}: declare it, or import it late"
        )
