"""Settings of `kg4d.ot`: plain data that is checked before torch is loaded."""

from dataclasses import dataclass
from enum import StrEnum


class ContributorWeights(StrEnum):
    """Which quantity weights the contributors of a pixel."""

    CONTRIBUTION = "contribution"  # blending weight T_i alpha_i: what the pixel shows
    OPACITY = "opacity"  # opacities, normalised: the same wherever in a Gaussian the pixel lies
    SOFTMAX_OPACITY = "softmax_opacity"  # softmax of the opacities, as in KG4D: nearly uniform on (0, 1)


class PlanSolver(StrEnum):
    """How a transport plan is found."""

    SINKHORN = "sinkhorn"  # entropic, rounded to the exact marginals (KG4D Alg. 1, in the log domain)
    EXACT = "exact"  # linear program, by POT's network simplex on the CPU; needs the extra `exact`
    UNBALANCED = "unbalanced"  # entropic, mass may appear and disappear (occlusion), scaled to a total of 1


@dataclass
class PlanConfig:
    """Transport plans. Strengths are relative to the mean cost of each problem.

    Attributes:
        solver: How they are found.
        epsilon: Strength of the entropy, in mean costs.
        iterations: Most row-and-column updates.
        relaxation: Price rho of mass that appears or disappears, in mean costs (`unbalanced`).
    """

    solver: PlanSolver = PlanSolver.SINKHORN
    epsilon: float = 0.05
    iterations: int = 300
    relaxation: float = 0.1
