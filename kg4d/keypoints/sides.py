"""Left and right: which keypoint is the counterpart of another on the other side of the body, by their names."""

import re
from collections.abc import Sequence

_SIDE = re.compile(r"(?<![a-z])(left|right|l|r)(?![a-z])")
_OTHER = {"left": "right", "right": "left", "l": "r", "r": "l"}


def other_sides(names: Sequence[str]) -> list[int]:
    """Index of each keypoint's counterpart on the other side of the body; -1 where there is none.

    The side must be a word of the name: `left`, `right`, `l` or `r`. Words are separated by anything that is not a
    letter, or begin with a capital.

    >>> other_sides(["neck", "left_knee", "right_knee", "hand.L", "hand.R", "r_ear", "tail"])
    [-1, 2, 1, 4, 3, -1, -1]
    >>> other_sides(["Rig:LeftUpLeg", "Rig:RightUpLeg", "handL", "handR", "upright"])
    [1, 0, 3, 2, -1]
    """
    plain = [re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower() for name in names]
    mirrored = [_SIDE.sub(lambda side: _OTHER[side.group()], name, count=1) for name in plain]
    return [
        plain.index(other) if other != own and other in plain else -1
        for own, other in zip(plain, mirrored, strict=True)
    ]
