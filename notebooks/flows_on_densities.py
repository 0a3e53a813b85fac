# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Gradient flows on densities
#
# A Wasserstein gradient flow moves mass downhill: each point goes with the velocity
# $-\nabla \frac{\delta F}{\delta \rho}$ of an energy $F$ of the whole density. Here a small push-forward map follows
# such a flow whose answer is known, and loose particles follow another. `docs/flows.md` has the ideas;
# `python -m kg4d.flows` runs the full-size examples.

# %%
import matplotlib.pyplot as plt
import torch

from kg4d.flows.distances import moments, moments_w2, points_w2
from kg4d.flows.drifting import DriftConfig
from kg4d.flows.energies import Entropy, Potential
from kg4d.flows.examples.drifting_2d import drifted, modes, start
from kg4d.flows.examples.outcome import mirrored_normal
from kg4d.flows.laws import OrnsteinUhlenbeck, standard_normal
from kg4d.flows.maps import Affine, Planar
from kg4d.flows.rpwgf import Problem, flow, projection_error
from kg4d.flows.settings import Solver, SolverConfig

torch.set_num_threads(1)

# %% [markdown]
# ## A quadratic valley, where everything is Gaussian
#
# The energy is $\int V \rho + \int \rho \log \rho$: go down $V$, and diffuse. The law at each time is known.

# %%
truth = OrnsteinUhlenbeck(
    centre=torch.tensor([1.0, 2.0]), precision=torch.tensor([[2.0, 0.8], [0.8, 1.0]]), start=standard_normal(2)
)
energy = Potential(truth.potential) + Entropy()

# %% [markdown]
# The first map is affine, the second a planar normalising flow of eight layers that must discover that affine is
# enough. Both start as the identity. Each step solves $\hat G(\theta)\, \zeta = \nabla F(\theta)$ and goes against
# $\zeta$. Layers of the planar flow can do much the same, so its $\hat G$ is nearly singular: a hundredth on the
# diagonal (damping) keeps the noise of the reference points out of the directions in between.

# %%
fresh = torch.randn(5000, 2, generator=torch.Generator().manual_seed(1))
ends = {}
for name, push_forward in (("affine", Affine(2)), ("planar", Planar(2, 8))):
    g = torch.Generator().manual_seed(0)
    problem = Problem(energy, push_forward, standard_normal(2))
    taken = list(
        flow(
            problem,
            push_forward.initial(g),
            lambda _, g=g: mirrored_normal(500, 2, g),
            step=0.02,
            steps=50,
            solver=SolverConfig(Solver.MINRES, damping=0.01),
        )
    )
    ends[name] = (taken, push_forward(taken[-1].theta, fresh).detach())
    print(f"{name}: W2 to the exact law at t = 1 is {moments_w2(moments(ends[name][1]), truth.at(1.0)):.3f}")

# %%
fig, axes = plt.subplots(1, 3, figsize=(9, 2.8), layout="constrained")
for ax, (name, (taken, x)) in zip(axes, ends.items(), strict=False):
    ax.plot(*x[:1500].T, ".", ms=1.5)
    ax.set(title=f"{name}, t = 1", xlim=(-3, 4), ylim=(-2, 5), aspect="equal")
    axes[2].plot([s.time for s in taken], [s.energy for s in taken], label=name)
axes[2].set(title="energy", xlabel="t")
axes[2].legend()
# %% [markdown]
# ## What a map cannot follow
#
# The velocity of the flow is projected on the velocities that the map can have. What is lost is the $\delta_0$ of the
# error bound: nothing for an affine map in a quadratic valley, much for it in a quartic one, less for a planar flow.

# %%
quartic = Potential(lambda x: x.square().square().sum(-1) / 4) + Entropy()
g = torch.Generator().manual_seed(2)
for name, push_forward in (("affine", Affine(2)), ("planar", Planar(2, 8))):
    theta = push_forward.initial(g)
    for valley, each in (("quadratic", energy), ("quartic", quartic)):
        lost = projection_error(Problem(each, push_forward, standard_normal(2)), theta, fresh[:1000], 1e-4)
        print(f"{name} map, {valley} valley: {lost:.2f} is lost at the start")

# %% [markdown]
# ## Drifting: particles towards particles
#
# No map and no density now: 200 particles, a target of 200 unlabelled points on eight modes, and kernel estimates of
# both. A wide kernel that narrows sees all modes from anywhere; a narrow one from a corner does not.

# %%
p = modes(200, torch.Generator().manual_seed(3))
fig, axes = plt.subplots(1, 3, figsize=(9, 2.8), layout="constrained")
runs = {
    "from the middle, h .5 to .1": (True, (0.5, 0.1)),
    "from a corner, h .5 to .1": (False, (0.5, 0.1)),
    "from a corner, h .1": (False, (0.1, 0.1)),
}
for ax, (name, (good, bandwidths)) in zip(axes, runs.items(), strict=True):
    q = drifted(start(good, 200, 4), p, DriftConfig(), bandwidths, steps=120)
    print(f"{name}: W2 to the target {points_w2(q, p):.2f}")
    ax.plot(*p.T, ".", color="0.8", ms=2)
    ax.plot(*q.T, ".", ms=2)
    ax.set(title=name, xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), aspect="equal")
