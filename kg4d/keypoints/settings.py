"""Settings of `kg4d.keypoints`: plain data that is checked before torch is loaded."""

from enum import StrEnum


class KeypointReading(StrEnum):
    """How a map becomes one distribution per axis."""

    JOINT = "joint"  # marginals of the softmax over all pixels (DSNT)
    SEPARABLE = "separable"  # sum over the other axis, then softmax: sharp, but the scale grows with the blob
    MAX = "max"  # maximum over the other axis, then softmax: sparse gradient
    MEAN = "mean"  # mean over the other axis, then softmax: needs a temperature near 1 / H to leave the centre
    LITERAL = "literal"  # softmax of every row and column, then mean: empty rows vote for the centre
    MASS = "mass"  # the map itself is the density: no softmax, no temperature, negative values count as 0
