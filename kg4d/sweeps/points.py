"""The points of a sweep: what each of them sets, and the name by which its folder is found again."""

import hashlib
import itertools
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from kg4d.sweeps.settings import Method, Parameter, SweepSettings
from kg4d.utils.names import is_folder_name, slug

_LONGEST = 80  # characters of a name

Points = dict[str, list[str]]
"""Settings by name of the point, as variants of an experiment are written."""


def points_of(settings: SweepSettings) -> Points:
    """The points that are known from the start; those of a search are not."""
    match settings.method:
        case Method.LIST:
            listed = settings.points
        case Method.GRID:
            keys = list(settings.parameters)
            choices = itertools.product(*(parameter.values for parameter in settings.parameters.values()))
            listed = [settings_of(dict(zip(keys, chosen, strict=True))) for chosen in choices]
        case Method.RANDOM:
            generator = random.Random(settings.seed)
            drawn = (
                {key: _drawn(one, generator) for key, one in settings.parameters.items()} for _ in itertools.count()
            )
            listed = [settings_of(point) for point in itertools.islice(drawn, settings.trials)]
        case Method.OPTUNA:
            listed = []
    return {point_name(words): words for words in listed}


def settings_of(values: Mapping[str, Any]) -> list[str]:
    """Values as they are written on a command line.

    >>> settings_of({"wgf.weight": 0.5, "wgf.variant": "a+d", "refine.steps": 0, "kfc.on": True})
    ['wgf.weight=0.5', 'wgf.variant=a+d', 'refine.steps=0', 'kfc.on=true']
    """
    return [f"{key}={_text(value)}" for key, value in values.items()]


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)


def point_name(words: Sequence[str]) -> str:
    """A folder name that tells points apart and does not depend on which others there are.

    What the name leaves out of the settings is in the digits of a hash behind it.

    >>> point_name(["wgf.weight=10", "wgf.variant=a"])
    'wgf-weight-10_wgf-variant-a'
    >>> point_name(["wgf.weight=0.5"])
    'wgf-weight-0-5_ac0730'
    """
    name = "_".join(slug(word) for word in words) or "point"
    whole = all(is_folder_name(word.partition("=")[2]) for word in words)
    if words and whole and len(name) <= _LONGEST:
        return name
    return f"{name[:_LONGEST]}_{hashlib.sha256(repr(list(words)).encode()).hexdigest()[:6]}"


def _drawn(parameter: Parameter, generator: random.Random) -> Any:
    if parameter.values:
        return generator.choice(parameter.values)
    low, high = parameter.low or 0.0, parameter.high or 0.0
    if parameter.log:
        value = math.exp(generator.uniform(math.log(low), math.log(high)))
    else:
        value = generator.uniform(low, high)
    return rounded(min(max(value, low), high), parameter)


def rounded(value: float, parameter: Parameter) -> float | int:
    """A number in a range, with as many digits as anybody would write.

    >>> rounded(0.123456, Parameter(low=0.0, high=1.0)), rounded(12.7, Parameter(low=1.0, high=20.0, whole=True))
    (0.123, 13)
    """
    return round(value) if parameter.whole else float(f"{value:.3g}")
