"""Wasserstein gradient flows: of push-forward models (PWGF, RPWGF) and of particles (drifting).

`maps` and `networks` are maps T(theta, z) of one flat parameter vector; `laws` says where z comes from, and which
densities are known; `energies` is what flows go down. `metric` is the L2 metric of a map, never as a matrix, and
`solvers` invert it. `rpwgf` and `pwgf` take steps. `drifting` and `sphere` move particles towards particles.
`python -m kg4d.flows` runs the examples; docs/flows.md explains them.
"""
