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
# # What the transport plan does, and does not do, in the flow loss
#
# KG4D moves a pixel by $H = \sum_{kl} \gamma_{kl} (\mu'_l - \mu_k)$, with a transport plan $\gamma$ between the
# Gaussians that are seen there at two times (eq. 10), and compares it with the optical flow (eq. 11). Here is what
# the plan is worth.

# %%
import matplotlib.pyplot as plt
import torch

from kg4d.ot.offset import wasserstein_offset, wasserstein_offset_closed
from kg4d.ot.sinkhorn import sinkhorn

g = torch.Generator().manual_seed(1)
means = torch.randn(6, 2, generator=g, dtype=torch.float64) * 3
turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
later = means @ turn.mT + torch.tensor([6.0, 1.0])  # the six Gaussians turn by 90 degrees and move
a = torch.rand(6, generator=g, dtype=torch.float64).softmax(0)
cost = (means[:, None] - later[None]).square().sum(-1)

# %% [markdown]
# ## Four plans
#
# The cheapest one (Sinkhorn), the dearest one, one that knows nothing (the product of the weights), and the true one,
# which pairs each Gaussian with itself. The cheapest is not the true one: the set has turned.

# %%
plans = {
    "cheapest": sinkhorn(cost, a, a, epsilon=0.5, iterations=2000).plan,
    "dearest": sinkhorn(-cost, a, a, epsilon=0.5, iterations=2000).plan,
    "product": a[:, None] * a[None],
    "who is who": torch.diag(a),
}
fig, axes = plt.subplots(1, 4, figsize=(11, 2.8))
for axis, (name, plan) in zip(axes, plans.items(), strict=True):
    for k in range(6):
        for m in range(6):
            axis.plot(*torch.stack([means[k], later[m]]).T, "k", lw=14 * float(plan[k, m]), alpha=0.4)
    axis.scatter(*means.T, s=200 * a, c="C0")
    axis.scatter(*later.T, s=200 * a, c="C1")
    axis.set(title=name, aspect="equal")
    axis.axis("off")
    x, y = wasserstein_offset(plan, means, later).tolist()
    print(f"{name:11} costs {float((plan * cost).sum()):6.2f} px^2, and H is ({x:.4f}, {y:.4f}) px")
x, y = wasserstein_offset_closed(a, means, a, later).tolist()
print(f"difference of the two means, without any plan: ({x:.4f}, {y:.4f}) px")

# %% [markdown]
# The plan cancels. Its rows sum to the weights of the first mixture and its columns to those of the second, so $H$ is
# the difference of the two means whatever is between them. No solver, no cost and no entropy changes the loss.

# %% [markdown]
# ## What the loss cannot see
#
# The gradient of $|F - H|^2$ on each centre is its weight times one vector that all share. Turning or shrinking the
# set about its mean leaves $H$ as it is.

# %%
flow = torch.tensor([6.0, 1.0], dtype=torch.float64)
free = later.clone().requires_grad_()
(flow - wasserstein_offset_closed(a, means, a, free)).square().sum().backward()
per_weight = free.grad / a[:, None]
print(f"gradient / weight differs between the Gaussians by {float((per_weight - per_weight[0]).abs().max()):.1e}")
mean = (a[:, None] * later).sum(0)
fig, axes = plt.subplots(1, 3, figsize=(8, 2.6), sharex=True, sharey=True)
for axis, (name, change) in zip(
    axes, {"as it is": torch.eye(2), "turned": turn, "shrunk": 0.2 * torch.eye(2)}.items(), strict=True
):
    there = mean + (later - mean) @ change.double().mT
    loss = float((flow - wasserstein_offset_closed(a, means, a, there)).square().sum())
    axis.scatter(*there.T, s=200 * a, c="C1")
    axis.set(title=f"{name}: loss {loss:.3f} px²", aspect="equal")
fig.tight_layout()

# %% [markdown]
# ## Where a plan matters
#
# In the distance between the mixtures, and in losses on each Gaussian (`wgf.variant=e`, `g`): there it decides who
# goes where. The distance is blind to direction, however: a mixture that moves by $+d$ is as far away as one that
# moves by $-d$.

# %%
for step in (-4.0, -2.0, 0.0, 2.0, 4.0):
    moved = means + torch.tensor([step, 0.0])
    here = (means[:, None] - moved[None]).square().sum(-1)
    distance = float((sinkhorn(here, a, a, epsilon=0.05, iterations=3000).plan * here).sum()) ** 0.5
    x = float(wasserstein_offset_closed(a, means, a, moved)[0])
    print(f"moved by {step:5.2f} px: distance {distance:.2f} px, H along x {x:.2f} px")

# %% [markdown]
# ## Something to try
#
# - Give the second mixture other weights than the first. What is $H$ when nothing moves?
# - Choose `later` as a mirror image of `means`. Which of the losses in `docs/paper.md`, section 3, notice?
# - Lower `epsilon` to 0.005. When does Sinkhorn stop to converge, and does $H$ care?
