"""A configuration as a person reads it: every setting, and where its value was set."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kg4d.config.load import Run, origins
from kg4d.utils.plain import flat, plain


def shown(schema: type, path: str | Path, overrides: Sequence[str], run: Run[Any]) -> Iterator[str]:
    """Lines of `key=value`, which a command line takes, each with where it was set: a file, a variant, nowhere.

    Args:
        schema: Dataclass of the configuration.
        path: YAML file.
        overrides: Of the command line.
        run: One that `kg4d.config.load.expand` gave for them.
    """
    where = origins(schema, path, overrides, run)
    lines = {key: f"{key}={_written(value)}" for key, value in flat(plain(run.config)).items()}
    width = min(max(map(len, lines.values())), 60)
    for key, line in lines.items():
        yield f"{line:{width}}  # {where.get(key, 'default')}"


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
