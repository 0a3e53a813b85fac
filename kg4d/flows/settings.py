"""Settings of `kg4d.flows`: plain data that is checked before torch is loaded."""

from dataclasses import dataclass
from enum import StrEnum


class Solver(StrEnum):
    """How the metric is inverted."""

    CG = "cg"  # for a damped metric, which is positive definite
    MINRES = "minres"  # also for a singular one: the least squares solution then
    DUAL = "dual"  # exact, by one matrix of B d rows; needs damping


@dataclass(frozen=True)
class SolverConfig:
    """How the metric is inverted.

    Attributes:
        kind: The method.
        damping: mu >= 0, added to the diagonal, in the unit of the metric.
        iterations: Most products with the metric (not for `dual`).
        tolerance: Residual to stop at, relative to the right side (not for `dual`).
    """

    kind: Solver = Solver.MINRES
    damping: float = 0.0
    iterations: int = 20
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        if not (self.damping >= 0 and self.iterations >= 1 and self.tolerance >= 0):
            raise ValueError(f"need damping >= 0, iterations >= 1, tolerance >= 0, got {self}")
        if self.kind is Solver.DUAL and self.damping == 0:
            raise ValueError("the dual solve needs damping > 0: without it the metric has no inverse")
