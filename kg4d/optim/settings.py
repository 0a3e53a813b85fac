"""Settings of `kg4d.optim`: plain data that is checked before torch is loaded."""

from dataclasses import dataclass, field
from enum import StrEnum

from kg4d.flows.settings import Solver, SolverConfig


class OptimizerKind(StrEnum):
    """Which optimiser takes the steps."""

    ADAM = "adam"
    RPWGF = "rpwgf"  # natural gradient for the motion of the dynamic stage; Adam for all else


@dataclass
class RpwgfConfig:
    """Natural gradient of the motion (`optimizer.kind: rpwgf`). World units are those of the fit.

    Attributes:
        step: h, squared world units per unit of the loss.
        reach: No step is longer than this by the damped metric, so none moves the points farther, root mean square;
            world units. Schedules scale it with h.
        damping: mu, squared world units per squared unit of a parameter. 0 needs `solver: minres`, or a map whose
            parameters all move something.
        solver: `cg` and `minres` need only products with the metric; `dual` is exact, and forms a matrix with twelve
            rows a point, so it is for few points.
        iterations: Most products with the metric in a step (not for `dual`).
        points: How many moved Gaussians the metric is a mean over; drawn anew in each step.
    """

    step: float = 1.0
    reach: float = 0.03
    damping: float = 1e-3
    solver: Solver = Solver.CG
    iterations: int = 10
    points: int = 512

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: A value is out of range.
        """
        for name in ("step", "reach", "iterations", "points"):
            if not getattr(self, name) > 0:
                raise ValueError(f"optimizer.rpwgf.{name}: must be above 0, not {getattr(self, name)}")
        if not self.damping >= 0:
            raise ValueError(f"optimizer.rpwgf.damping: must not be negative, not {self.damping}")
        if self.solver is Solver.DUAL and self.damping == 0:
            raise ValueError("optimizer.rpwgf.damping: must be above 0 for solver=dual")

    def solver_config(self) -> SolverConfig:
        """The part that inverts the metric."""
        return SolverConfig(self.solver, self.damping, self.iterations)


@dataclass
class OptimizerConfig:
    """The optimiser of the stages.

    Attributes:
        kind: Which one.
        eps: What Adam adds to the root of the second moment. Gaussians need it tiny: their gradients are.
        rpwgf: The steps of `kind: rpwgf`; they take the place of the learning rates of what moves the Gaussians.
    """

    kind: OptimizerKind = OptimizerKind.ADAM
    eps: float = 1e-15
    rpwgf: RpwgfConfig = field(default_factory=RpwgfConfig)
