"""Degrees of spherical harmonics, and how many harmonics they have."""

import math

MOST_DEGREE = 3


def harmonics_count(degree: int) -> int:
    """How many harmonics there are from degree 1 to `degree`.

    >>> [harmonics_count(degree) for degree in range(4)]
    [0, 3, 8, 15]
    """
    return (degree + 1) ** 2 - 1


def harmonics_degree(count: int) -> int:
    """The highest degree of `count` harmonics above degree 0.

    Raises:
        ValueError: No degree up to 3 has that many.
    """
    degree = math.isqrt(count + 1) - 1
    if degree > MOST_DEGREE or harmonics_count(degree) != count:
        raise ValueError(f"there are 0, 3, 8 or 15 harmonics above degree 0, not {count}")
    return degree
