r"""Solutions of :math:`(\hat G + \mu I) x = g` by products with the metric, or exactly in the space of the outputs.

Sources: Hestenes & Stiefel 1952; Paige & Saunders, SIAM J. Numer. Anal. 1975 (MINRES); Saad, Iterative Methods for
Sparse Linear Systems, 2003, section 6.7 (the tridiagonal matrix inside CG).
"""

import math
from collections.abc import Callable
from typing import NamedTuple, assert_never

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.flows.metric import PullbackMetric
from kg4d.flows.settings import Solver, SolverConfig

Product = Callable[[Tensor], Tensor]


class Solution(NamedTuple):
    """A solution and how good it is; slow convergence is a value to look at, not an exception."""

    x: Float[Tensor, " p"]
    residual: float  # norm of the right side minus the damped metric times x, relative to the right side
    iterations: int
    condition: float  # largest over smallest eigenvalue that the iteration saw, preconditioned; nan where it saw none


def solve(
    metric: PullbackMetric,
    gradient: Float[Tensor, " p"],
    config: SolverConfig,
    preconditioner: Product | None = None,
) -> Solution:
    """Invert a metric by the method of `config`.

    Args:
        metric: G.
        gradient: The right side g.
        config: Method and limits.
        preconditioner: As in `conjugate_gradient`, which alone uses it.
    """
    match config.kind:
        case Solver.CG:
            return conjugate_gradient(metric.product, gradient, config, preconditioner)
        case Solver.MINRES:
            return minres(metric.product, gradient, config)
        case Solver.DUAL:
            return dual(metric, gradient, config.damping)
        case _:
            assert_never(config.kind)


def conjugate_gradient(
    product: Product, b: Float[Tensor, " p"], config: SolverConfig, preconditioner: Product | None = None
) -> Solution:
    """Preconditioned conjugate gradients for a positive definite damped metric.

    Args:
        product: Times the undamped metric.
        b: The right side.
        config: Damping and limits.
        preconditioner: Times an approximate inverse, symmetric and positive definite; `jacobi` makes one.

    Raises:
        ValueError: Without damping, a direction that the right side wants has no length in the metric.
    """
    b = b.detach()
    size = float(b.norm())
    x, r = torch.zeros_like(b), b.clone()
    if size == 0:
        return Solution(x, 0.0, 0, math.nan)
    z = r if preconditioner is None else preconditioner(r)
    p, rz = z, float(r @ z)
    alphas: list[float] = []
    betas: list[float] = []
    largest = 0.0
    for _ in range(config.iterations):
        here = float(p @ p)
        if here == 0:
            break  # the residual is so small that its square underflows
        image = product(p) + config.damping * p
        length = float(p @ image)
        largest = max(largest, length / here)
        if length <= 10 * torch.finfo(b.dtype).eps * largest * here:
            if config.damping == 0:
                raise ValueError("the metric is singular along the gradient: give damping > 0, or use MINRES")
            break  # rounding is all that is left; the residual says how much
        alpha = rz / length
        x, r = x + alpha * p, r - alpha * image
        alphas.append(alpha)
        if float(r.norm()) <= config.tolerance * size:
            break
        z = r if preconditioner is None else preconditioner(r)
        rz, before = float(r @ z), rz
        betas.append(rz / before)
        p = z + betas[-1] * p
    residual = b - product(x) - config.damping * x
    return Solution(x, float(residual.norm()) / size, len(alphas), _condition(*_cg_tridiagonal(alphas, betas)))


def jacobi(diagonal: Float[Tensor, " p"], damping: float) -> Product:
    """The preconditioner that divides by the damped diagonal.

    Raises:
        ValueError: An entry of the damped diagonal is not positive.
    """
    damped = diagonal + damping
    if not bool((damped > 0).all()):
        raise ValueError("a preconditioner needs a positive diagonal: give damping > 0")
    return lambda r: r / damped


def minres(product: Product, b: Float[Tensor, " p"], config: SolverConfig) -> Solution:
    """Minimal residuals: for any symmetric metric; of a singular one the residual is the least there is.

    Args:
        product: Times the undamped metric.
        b: The right side.
        config: Damping and limits.
    """
    b = b.detach()
    size = float(b.norm())
    x = torch.zeros_like(b)
    if size == 0:
        return Solution(x, 0.0, 0, math.nan)
    basis = [b / size]
    w_old, w = x, x
    beta, eta, c_old, c, s_old, s = 0.0, size, 1.0, 1.0, 0.0, 0.0
    diagonal: list[float] = []
    off: list[float] = []
    for _ in range(min(config.iterations, len(b))):
        v = basis[-1]
        image = product(v) + config.damping * v  # Lanczos, kept orthogonal by hand: rounding would undo it
        alpha = float(v @ image)
        for _ in range(2):
            image = image - torch.stack(basis).mT @ (torch.stack(basis) @ image)
        beta, beta_old = float(image.norm()), beta
        diagonal.append(alpha)
        smallest = torch.finfo(b.dtype).eps ** (2 / 3) * max(map(abs, diagonal + off))
        # the new column of the tridiagonal matrix, turned by the last two rotations and then by a new one
        above2, above1 = s_old * beta_old, s * alpha + c * c_old * beta_old
        here = c * alpha - s * c_old * beta_old
        radius = math.hypot(here, beta)
        if radius <= smallest:
            break  # what is left of the right side is out of the metric's reach
        c_old, c, s_old, s = c, here / radius, s, beta / radius
        w_old, w = w, (v - above1 * w - above2 * w_old) / radius
        x = x + c * eta * w
        eta = -s * eta
        if abs(eta) <= config.tolerance * size or beta <= smallest:
            break
        off.append(beta)
        basis.append(image / beta)
    residual = b - product(x) - config.damping * x
    return Solution(x, float(residual.norm()) / size, len(diagonal), _condition(diagonal, off[: len(diagonal) - 1]))


def dual(
    metric: PullbackMetric, b: Float[Tensor, " p"], damping: float, jacobian: Float[Tensor, "rows p"] | None = None
) -> Solution:
    r"""The exact solution by :math:`(J^T W J + \mu)^{-1} = (1 - J^T (J J^T + \mu W^{-1})^{-1} J) / \mu` (Woodbury).

    The matrix has B d rows, so this is for batches with fewer outputs than parameters.

    Args:
        metric: G.
        b: The right side.
        damping: mu > 0.
        jacobian: J, where the caller has it already.
    """
    rows = metric.jacobian() if jacobian is None else jacobian
    root = metric.weights.sqrt().repeat_interleave(metric.outputs[0].numel())[:, None]
    rows = root * rows
    gram = rows @ rows.mT
    gram.diagonal().add_(damping)
    inner = torch.cholesky_solve((rows @ b)[:, None], torch.linalg.cholesky(gram))[:, 0]
    x = (b - rows.mT @ inner) / damping
    residual = b - rows.mT @ (rows @ x) - damping * x
    return Solution(x, float(residual.norm() / b.norm().clamp_min(torch.finfo(b.dtype).tiny)), 1, math.nan)


def _cg_tridiagonal(alphas: list[float], betas: list[float]) -> tuple[list[float], list[float]]:
    """The Lanczos matrix that CG implies."""
    betas = betas[: len(alphas) - 1]
    before = [0.0, *(beta / alpha for beta, alpha in zip(betas, alphas, strict=False))]
    diagonal = [1 / alpha + carried for alpha, carried in zip(alphas, before, strict=True)]
    return diagonal, [math.sqrt(beta) / alpha for beta, alpha in zip(betas, alphas, strict=False)]


def _condition(diagonal: list[float], off: list[float]) -> float:
    """Largest over smallest eigenvalue of a tridiagonal matrix, inf where the smallest is not positive."""
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if off:
        side = torch.tensor(off, dtype=torch.float64)
        matrix = matrix + torch.diag(side, 1) + torch.diag(side, -1)
    if not diagonal:
        return math.nan
    values = torch.linalg.eigvalsh(matrix)
    return float(values[-1] / values[0]) if float(values[0]) > 0 else math.inf
