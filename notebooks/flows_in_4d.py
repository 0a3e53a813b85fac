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
# # Gradient flows in 4D
#
# Two of the flows of `docs/flows.md` can take part in a fit of moving Gaussians. Natural gradient steps
# (`optimizer.kind=rpwgf`) measure a change of the network's weights by how far it moves the Gaussians. The coverage
# loss (`coverage.weight`) lets projected centres drift over the mattes of the video, with no pairing of the two. Both
# are off by default; here is what they do to the walker, small.

# %%
import copy
import time
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from kg4d.config.load import load_config
from kg4d.config.schema import ExperimentConfig
from kg4d.geometry.cameras import project_each
from kg4d.losses.coverage import matte_points
from kg4d.losses.settings import BonesConfig, CoverageConfig
from kg4d.optim.settings import OptimizerConfig, OptimizerKind
from kg4d.runs.build import build_run, build_run_representation
from kg4d.stages.dynamic import DynamicStage, MotionLosses
from kg4d.stages.static import StaticStage

torch.set_num_threads(1)
words = ["image_size=48", "gaussians.count=400", "renderer.kind=cpu", "renderer.threads=1", "static.steps=80"]
config = load_config(ExperimentConfig, Path("../experiments/kg4d.yaml"), [*words, "deformation.width=32"])
run = build_run(config)
video = run.scene.reference

# %% [markdown]
# The static stage fits the Gaussians to views of frame 0. Everything below starts from there.

# %%
static = StaticStage(run.gaussians, run.renderer, config.static, config.kfc, run.background, config.seed)
static.begin()
adam = static.configure_optimizers()
for step in range(static.steps):
    static.take_step(run.static_data.dataset.batch(step), adam)

# %% [markdown]
# ## Two ways to take a step
#
# The losses are the same: images, keypoints, the flow loss, rigidity. Adam moves every weight by about its learning
# rate. A natural gradient step solves $(\hat G + \mu)\,\zeta = \nabla L$ by ten products with $\hat G$, the mean of
# $J^\top J$ over 512 pairs of a Gaussian and a time, and goes no farther than `reach` in that metric.


# %%
def fitted(losses, steps, optimizer=None):
    """Fit the motion; errors of the reference video on the way, and the processor seconds they were reached at."""
    model = build_run_representation(config, copy.deepcopy(run.gaussians))
    settings = replace(config.dynamic, steps=steps)
    stage = DynamicStage(
        model, run.renderer, settings, losses, run.skeleton.parents, run.background, config.seed, optimizer=optimizer
    )
    stage.begin()
    chosen, seconds, rows = stage.configure_optimizers(), 0.0, []
    for step in range(steps):
        start = time.process_time()
        stage.take_step(run.dynamic_data.dataset.batch(step), chosen)
        seconds += time.process_time() - start
        if step % 5 == 4:
            rows.append((step + 1, seconds, video_error(model)))
    return model, rows


@torch.no_grad()
def video_error(model):
    """Mean squared error of all frames of the reference video."""
    states = model.states(video.times).states()
    drawn = [run.renderer(state, video.cameras[t], background=run.background) for t, state in enumerate(states)]
    return float((torch.cat([output.image for output in drawn]) - video.composited(run.background)).square().mean())


whole = MotionLosses(config.kfc, config.wgf, config.rigidity, config.bones)
natural = OptimizerConfig(OptimizerKind.RPWGF)
curves = {
    "Adam, 30 steps": fitted(whole, 30)[1],
    "natural, 30 steps": fitted(whole, 30, natural)[1],
    "Adam, 150 steps": fitted(whole, 150)[1],
}
for name, rows in curves.items():
    print(f"{name}: mean squared error {1000 * rows[-1][2]:.2f} / 1000")

# %%
fig, axes = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained", sharey=True)
for name, rows in curves.items():
    steps, seconds, errors = zip(*rows, strict=True)
    axes[0].semilogy(steps, errors, label=name)
    axes[1].semilogy(seconds, errors)
axes[0].set(xlabel="steps", ylabel="squared error of the video")
axes[1].set(xlabel="processor seconds")
axes[0].legend()

# %% [markdown]
# Step for step the natural gradient is far ahead; but a step costs as much as five of Adam's, which end lower.

# %% [markdown]
# ## Centres that drift over mattes
#
# Now no keypoints and no flow: images alone, whose gradient does not reach beyond what a Gaussian already covers. The
# coverage loss pulls from farther away, by density estimates that narrow from a tenth of the image to a fiftieth.
# The gap is the mean distance, in pixels, from a point of the mattes to the nearest projected centre.

# %%
images_only = MotionLosses(
    replace(config.kfc, weight=0.0), replace(config.wgf, weight=0.0), config.rigidity, BonesConfig(0.0)
)
ends = {weight: fitted(replace(images_only, coverage=CoverageConfig(weight)), 150) for weight in (0.0, 300.0)}
for weight, (model, rows) in ends.items():
    with torch.no_grad():
        centres = project_each(model.states(video.times).means, video.cameras)
    targets = matte_points(video.alphas, 500, torch.Generator().manual_seed(0))
    gap = torch.cdist(targets, centres).min(-1).values.mean()
    print(f"coverage.weight={weight:.0f}: gap {gap:.2f} px, mean squared error {1000 * rows[-1][2]:.2f} / 1000")

# %%
shown = 8
fig, axes = plt.subplots(1, 2, figsize=(6, 2.8), layout="constrained")
for ax, (weight, (model, _)) in zip(axes, ends.items(), strict=True):
    with torch.no_grad():
        means = model.states(video.times[shown : shown + 1]).means
    pixels = project_each(means, video.cameras[shown])[0]
    ax.imshow(video.alphas[shown, ..., 0], cmap="Greys", vmin=0, vmax=2)
    ax.plot(*(pixels - 0.5).mT, ".", ms=2)
    ax.set(title=f"coverage.weight={weight:.0f}", xticks=[], yticks=[], xlim=(-0.5, 47.5), ylim=(47.5, -0.5))

# %% [markdown]
# Centres lie closer to every part of the matte, and the images are met better in as many steps. But a step takes twice
# the time, and 200 steps of images alone end lower (6.6 / 1000). `docs/flows.md` has a table.
