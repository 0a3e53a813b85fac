"""Read a typed configuration from YAML files and `key=value` overrides.

A file may say `extends: <path>`; its own settings take precedence over those of that file, and the command line over
both. It may also say `notice: <text>`, which is logged when it is read. The schema is any tree of dataclasses that
OmegaConf accepts; an enum is written by its value, or by its name in lower case (`wgf.variant=a` or
`wgf.variant=offset`).
"""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from kg4d.config.check import Checker, CommandLineText, suggestion
from kg4d.config.renamed import with_new_names
from kg4d.errors import InputError
from kg4d.utils.names import is_folder_name, name_of_scene, path_of_scene
from kg4d.utils.plain import flat, plain
from kg4d.utils.reading import MEGABYTE, read_table

T = TypeVar("T")

_log = logging.getLogger(__name__)

_COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Run(Generic[T]):
    """One fit that an experiment file asks for.

    Attributes:
        scene: Short name of its scene; also a folder name where the file names several scenes.
        variant: Name of the variant; also a folder name.
        seed: Seed of the run.
        config: The configuration of this run alone: its scene, its seed, no `seeds`, and only its variant. Loading it
            again gives this run again.
    """

    scene: str
    variant: str
    seed: int
    config: T


def load_config(schema: type[T], path: str | Path | None, overrides: Sequence[str] = ()) -> T:
    """Build the configuration that a file and the command line describe.

    Args:
        schema: Dataclass to build.
        path: YAML file; None for the defaults.
        overrides: `key=value` strings, with dotted keys and YAML values.

    Raises:
        InputError: A file, key or value is wrong.
    """
    layers = [*_file_layers(schema, path), *_override_layers(schema, overrides, _COMMAND_LINE)]
    return _built(schema, _merged(schema, layers), path)


def expand(
    schema: type[T],
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    variant: str | None = None,
    variants: Mapping[str, Sequence[str]] | None = None,
    without: str | None = None,
) -> list[Run[T]]:
    """List the runs of an experiment file: every scene with every variant with every seed.

    The settings of a variant take precedence over those of the file, and the command line over both.

    Args:
        schema: Dataclass to build, with fields `scene`, `seed`, `scenes` and `seeds` (may be empty) and `variants`
            (name to overrides).
        path: YAML file.
        overrides: As for `load_config`. A `seed=` here replaces the file's `seeds`, a `scene=` its `scenes`.
        variant: Only this variant; all when None. A file without variants has one, called `full`.
        variants: Variants in place of the file's own.
        without: A block of the file that is not for this schema.

    Raises:
        InputError: A file, key or value is wrong, or there is no such variant.
    """
    written, given = _file_layers(schema, path, without), _override_layers(schema, overrides, _COMMAND_LINE)
    for one, several in (("seed", "seeds"), ("scene", "scenes")):
        if any(one in layer for layer in given) and not any(several in layer for layer in given):
            given.append({several: []})
    with _named_interpolations(str(path)):
        variants = variants or dict(_merged(schema, [*written, *given]).variants) or {"full": []}
    if variant is not None:
        if variant not in variants:
            raise InputError(f"{path}: variants", f"no variant {variant!r}", suggestion(variant, variants))
        variants = {variant: variants[variant]}
    by_variant = []
    for name, settings in variants.items():
        where = f"{path}: variants.{name}"
        if not is_folder_name(name):
            raise InputError(where, "cannot be a folder name", "use letters, digits, _ and -")
        merged = _merged(schema, [*written, *_override_layers(schema, settings, where), *given])
        by_variant.append((name, merged, _scenes_of(merged, path), _seeds_of(merged, path)))
    listed = dict.fromkeys(scene for _, _, scenes, _ in by_variant for scene in scenes)
    return [
        _one(schema, path, merged, scene, name, seed)
        for scene in listed
        for name, merged, scenes, seeds in by_variant
        if scene in scenes
        for seed in seeds
    ]


def _scenes_of(merged: DictConfig, path: str | Path) -> list[str]:
    """The scenes that are listed, as they are written; one empty text where none is.

    Raises:
        InputError: Two have the same short name, or one has none.
    """
    with _named_interpolations(str(path)):
        scenes = list(dict.fromkeys(merged.scenes))
    named: dict[str, str] = {}
    for scene in scenes:
        name = name_of_scene(scene)
        if not is_folder_name(name):
            raise InputError(f"{path}: scenes", f"{scene!r} gives no folder name", "write NAME=SCENE")
        if name in named:
            what = f"{named[name]} and {scene} have the same name, {name!r}"
            raise InputError(f"{path}: scenes", what, "write NAME=SCENE for one of them")
        named[name] = scene
    return scenes or [""]


def _seeds_of(merged: DictConfig, path: str | Path) -> list[int]:
    with _named_interpolations(str(path)):
        return list(dict.fromkeys(merged.seeds or [merged.seed]))


def _one(schema: type[T], path: str | Path, merged: DictConfig, scene: str, variant: str, seed: int) -> Run[T]:
    """One run; `merged` holds its configuration from then on, since a copy takes as long as all else here."""
    merged.seed, merged.seeds, merged.variants = seed, [], {variant: []}
    if scene:
        merged.scene, merged.scenes = path_of_scene(scene), [scene]
    config = _built(schema, merged, path)
    return Run(name_of_scene(scene or merged.scene), variant, seed, config)


def origins(schema: type, path: str | Path, overrides: Sequence[str], run: Run[Any]) -> dict[str, str]:
    """Where each setting of a run was set: a file, its variant or the command line; those with a default alone are out.

    Args:
        schema: Dataclass of the configuration.
        path: YAML file.
        overrides: Of the command line.
        run: One that `expand` gave for them.

    Raises:
        InputError: A file, key or value is wrong.
    """
    named = [(str(file), layer) for file, layer in _named_layers(schema, path)]
    chosen = _merged(schema, [layer for _, layer in named]).variants.get(run.variant, [])
    variant = [(f"variant {run.variant}", layer) for layer in _override_layers(schema, chosen, str(path))]
    given = [(_COMMAND_LINE, layer) for layer in _override_layers(schema, overrides, _COMMAND_LINE)]
    return {key: name for name, layer in [*named, *variant, *given] for key in flat(plain(layer))}


def to_yaml(config: Any) -> str:
    """Write a configuration as YAML; `load_config` reads an equal configuration from it."""
    return OmegaConf.to_yaml(OmegaConf.create(plain(config)))


def packaged_configs() -> Path:
    """The folder of the presets: inside the installed package, or beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return next((path for path in (package / "configs", package.parent / "configs") if path.is_dir()), package)


def _file_layers(schema: type, path: str | Path | None, without: str | None = None) -> list[dict[str, Any]]:
    """The checked contents of a file and of all files that it extends, the one farthest up first."""
    return [layer for _, layer in _named_layers(schema, path, without)]


def _named_layers(
    schema: type, path: str | Path | None, without: str | None = None
) -> list[tuple[Path, dict[str, Any]]]:
    """The same, each with the file that it stands in."""
    layers: list[tuple[Path, dict[str, Any]]] = []
    chain: list[Path] = []
    current = None if path is None else Path(path)
    while current is not None:
        if os.path.realpath(current) in map(os.path.realpath, chain):  # unlike resolve(), at ease with loops of links
            circle = " -> ".join(str(file) for file in [*chain, current])
            raise InputError(f"{chain[-1]}: extends", f"goes in a circle, {circle}", "remove one `extends`")
        chain.append(current)
        values = _read(current)
        parent = values.pop("extends", None)
        notice = values.pop("notice", None)
        values.pop(without, None)
        if notice is not None:
            _log.warning("%s: %s", current, notice)
        layers.insert(0, (current, _checked(schema, values, str(current))))
        current = None if parent is None else _extended(parent, current)
    return layers


def _read(path: Path) -> dict[Any, Any]:
    try:
        values = OmegaConf.to_container(OmegaConf.create(read_table(path, MEGABYTE)))
    except OSError as error:
        raise InputError(path, (error.strerror or str(error)).lower(), "give the path of a YAML file") from error
    except (YAMLError, OmegaConfBaseException, ValueError) as error:
        raise InputError(path, f"is not valid YAML: {_brief(error)}", "correct it") from error
    except RecursionError as error:
        raise InputError(path, "is not valid YAML: nested too deeply", "correct it") from error
    if not isinstance(values, dict):
        raise InputError(path, "holds no `key: value` lines", "write some")
    return values


def _brief(error: Exception) -> str:
    """What a parser says, without the lines of a file that may be no business of whoever reads it."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"{getattr(error, 'problem', None) or 'a mistake'}, line {mark.line + 1}, column {mark.column + 1}"
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:200]}..."


def _extended(parent: object, child: Path) -> Path:
    """The file that `child` extends: in its own folder, else among the presets."""
    if not isinstance(parent, str):
        raise InputError(f"{child}: extends", f"{parent!r} is not a path", "name one YAML file")
    candidates = [child.parent / parent, packaged_configs() / parent]
    for path in candidates:
        if path.is_file():
            return path
    raise InputError(f"{child}: extends", f"no file {parent}", f"looked for {candidates[0]} and {candidates[1]}")


def _override_layers(schema: type, overrides: Iterable[str], source: str) -> list[dict[str, Any]]:
    """Each `key=value` as a separate, checked layer."""
    layers = []
    for override in overrides:
        key, _, value = (part.strip() for part in override.partition("="))
        if not (key and value):
            raise InputError(f"{source}: {override}", "is not key=value", "write for example seed=1, or key=null")
        tree: Any = CommandLineText(value)
        for name in reversed(key.split(".")):
            tree = {name: tree}
        layers.append(_checked(schema, tree, source))
    return layers


def _checked(schema: type, values: dict[Any, Any], source: str) -> dict[str, Any]:
    """The values of one layer, under today's keys."""
    checked: dict[str, Any] = Checker(schema, source).check(
        with_new_names(values, getattr(schema, "RENAMED", {}), source)
    )
    return checked


def _merged(schema: type, layers: Iterable[dict[str, Any]]) -> DictConfig:
    return cast(DictConfig, OmegaConf.merge(_defaults(schema), *layers))


@cache
def _defaults(schema: type) -> DictConfig:
    """The schema as OmegaConf has it, which takes it 0.1 s to build; merging copies it."""
    return cast(DictConfig, OmegaConf.structured(schema))


def _built(schema: type[T], merged: DictConfig, path: str | Path | None) -> T:
    where = _COMMAND_LINE if path is None else str(path)
    with _named_interpolations(where):
        try:
            return cast(T, OmegaConf.to_object(merged))
        except InputError:
            raise
        except MissingMandatoryValue as error:
            raise InputError(f"{where}: {error.full_key}", "has no value", f"give {error.full_key}=...") from error
        except ValueError as error:  # a record that checks its own values
            if isinstance(error, OmegaConfBaseException):
                raise
            raise InputError(where, " ".join(str(error).split()), "change that value") from error


@contextmanager
def _named_interpolations(where: str) -> Iterator[None]:
    """Turn the error about an interpolation that leads nowhere, or to a value of another type, into one line."""
    try:
        yield
    except OmegaConfBaseException as error:
        what = str(error).splitlines()[0]
        raise InputError(f"{where}: {error.full_key}", what, "correct the ${...}") from error
