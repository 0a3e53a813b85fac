"""What a shell completes: commands, their options, names of experiments, keys of settings and their values.

`kg4d` comes here where argcomplete's shell function asks, and answers without loading torch.
"""

import argparse
import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

from argcomplete.finders import CompletionFinder

from kg4d.config.find import CLIPS, IMAGES, named_experiments
from kg4d.config.reference import described
from kg4d.config.schema import ExperimentConfig
from kg4d.formats.settings import ExportFormat
from kg4d.priors.settings import PriorsConfig

_MOST = 40  # keys shown at once; of more, the blocks that they lie in

_FOLDERS = ("run", "compare", "runs", "pred", "target", "out")


def complete(commands: Mapping[str, str]) -> None:
    """Answer the shell, and end the process.

    Args:
        commands: What each command does, by its name.
    """
    line = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])]
    words = [*line.split(), *([""] if line.endswith(" ") else [])]
    everything = argparse.ArgumentParser(prog="kg4d")
    chosen = everything.add_subparsers()
    for name, does in commands.items():
        own = [_options(name)] if len(words) > 2 and words[1] == name else []
        chosen.add_parser(name, help=does, parents=own, add_help=False)
    finder = _Finder()
    finder.before = words[-2]
    finder(everything, always_complete_options=False)


class _Finder(CompletionFinder):
    """Completes settings behind options too; argparse by itself wants all of them in one row.

    Attributes:
        before: The word before the one that is completed.
    """

    before: str

    def collect_completions(
        self, active_parsers: list[argparse.ArgumentParser], parsed_args: argparse.Namespace, cword_prefix: str
    ) -> list[str]:
        """What argparse's state says; where it says nothing, settings."""
        found: list[str] = super().collect_completions(active_parsers, parsed_args, cword_prefix)
        actions = active_parsers[-1]._actions
        asked = any(self.before in action.option_strings and action.nargs != 0 for action in actions)
        if found or asked or cword_prefix.startswith("-"):
            return found
        settings_of = (getattr(action, "completer", _nothing) for action in actions if action.dest == "overrides")
        more = (completer(prefix=cword_prefix, parsed_args=parsed_args) for completer in settings_of)
        return [word for words in more for word in words if word.startswith(cword_prefix)]


def _options(command: str) -> argparse.ArgumentParser:
    """A command's own parser, whose options say what may follow them."""
    module = importlib.import_module(f"kg4d.{command}" + ".__main__" * (command == "flows"))
    parser: argparse.ArgumentParser = module.parser()
    schema = PriorsConfig if command == "prepare" else ExperimentConfig
    for action in parser._actions:
        if action.dest == "overrides":
            words = _first_words if command == "fit" else _nothing
            action.completer = _Settings(schema, words)  # type: ignore[attr-defined]
        elif action.choices is None:
            action.completer = _completer(action.dest, module)  # type: ignore[attr-defined]
    return parser


Completer = Callable[..., Iterable[str]]


def _completer(option: str, module: Any) -> Completer:
    if option == "format":
        return _formats
    if option == "example":
        return lambda **_: module.EXAMPLES
    if option in _FOLDERS:
        return lambda prefix, **_: paths(prefix, ())
    if option in ("config", "input", "motion"):
        suffixes = {"config": (".yaml", ".yml"), "input": (*IMAGES, *CLIPS), "motion": (".bvh", ".json")}[option]
        return lambda prefix, **_: paths(prefix, suffixes)
    return _nothing


def _nothing(**_: Any) -> list[str]:
    return []


def _formats(prefix: str, **_: Any) -> list[str]:
    """Another format behind the last comma."""
    before = prefix.rpartition(",")[0]
    named = before.split(",") if before else []
    return [",".join([*named, kind]) for kind in ExportFormat if kind not in named]


def _first_words(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """What may stand in place of `--config`: the name of an experiment or preset, or a clip."""
    if parsed_args.config or parsed_args.overrides:
        return []
    return [*named_experiments(), *paths(prefix, (*IMAGES, *CLIPS))]


def paths(prefix: str, suffixes: tuple[str, ...]) -> list[str]:
    """Folders, and the files with one of these endings, that begin like `prefix`."""
    above, slash, begins = prefix.rpartition("/")
    folder = Path(above + slash).expanduser()
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    named = [path for path in inside if path.name.startswith(begins) and (begins or not path.name.startswith("."))]
    words = {path: f"{above}{slash}{path.name}" for path in named}
    return [
        f"{word}/" if path.is_dir() else word
        for path, word in words.items()
        if path.is_dir() or word.endswith(suffixes)
    ]


class _Settings:
    """Completes `key=value`, and other words beside it."""

    def __init__(self, schema: type, others: Completer) -> None:
        self._schema, self._others = schema, others

    def __call__(self, prefix: str, **known: Any) -> dict[str, str]:
        return {**dict.fromkeys(self._others(prefix=prefix, **known), ""), **settings(self._schema, prefix)}


def settings(schema: type, prefix: str) -> dict[str, str]:
    """Words that begin like `prefix`, and what each means: keys with `=`, blocks of many keys, or values of a key.

    >>> settings(ExperimentConfig, "renderer.ki")
    {'renderer.kind=': 'Which renderer to use; auto takes the fastest that works on this machine, and logs which.'}
    >>> list(settings(ExperimentConfig, "tracking.wandb.mode=o"))
    ['tracking.wandb.mode=offline', 'tracking.wandb.mode=online']
    """
    key, equals, _ = prefix.partition("=")
    if equals:
        hints = [hint for name, hint, _ in _leaves(schema) if name == key]
        written = [f"{key}={value}" for hint in hints for value in _values(hint)]
        return {word: "" for word in written if word.startswith(prefix)}
    return _shortened({name: told for name, _, told in _leaves(schema) if name.startswith(prefix)}, prefix)


def _shortened(found: Mapping[str, str], prefix: str) -> dict[str, str]:
    """All keys where they are few; else the blocks one level further, of a single one the blocks in it."""
    if len(found) <= _MOST:
        return {f"{key}=": told for key, told in found.items()}
    blocks = {key: key.find(".", len(prefix)) + 1 for key in found}
    words = {key[:end] if end else f"{key}=": "" if end else found[key] for key, end in blocks.items()}
    only = next(iter(words))
    return _shortened(found, only) if len(words) == 1 else words


def _leaves(schema: type, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Every setting: its dotted key, its type and what its dataclass says of it."""
    hints, told = get_type_hints(schema), described(schema)
    for field in fields(schema):
        key = f"{prefix}.{field.name}".lstrip(".")
        if is_dataclass(hints[field.name]):
            yield from _leaves(hints[field.name], key)
        else:
            yield key, hints[field.name], told.get(field.name, "")


def _values(hint: Any) -> list[str]:
    """The values of a setting that has few."""
    if NoneType in get_args(hint):
        return ["null", *(value for option in get_args(hint) for value in _values(option))]
    if isinstance(hint, type) and issubclass(hint, Enum):
        return [str(member.value) for member in hint]
    return ["true", "false"] if hint is bool else []
