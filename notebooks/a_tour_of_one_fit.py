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
# # A tour of one fit
#
# The walker, small: what goes in, what each stage leaves, and how the result is looked at, measured and moved
# otherwise. `docs/concepts.md` has the equations.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from kg4d.config.load import load_config
from kg4d.config.schema import ExperimentConfig
from kg4d.formats.settings import MotionConfig
from kg4d.pipeline import fit
from kg4d.runs.animated import animate
from kg4d.runs.read_back import load_run

torch.set_num_threads(1)
folder = Path(tempfile.mkdtemp())
words = [
    *(
        "image_size=64",
        "gaussians.count=600",
        "gaussians.hull_resolution=32",
        "renderer.kind=cpu",
        "renderer.threads=1",
    ),
    *(
        "static.steps=60",
        "dynamic.steps=60",
        "refine.steps=10",
        "lift.steps=60",
        "lift.hypotheses=3",
        "lift.surface=50",
    ),
    *("trainer.progress_bar=false", "tracking.wandb.mode=disabled", "export.formats=[]", f"output={folder}"),
]
config = load_config(ExperimentConfig, Path("../experiments/quickstart.yaml"), words)
run = load_run(fit(config))
scene, model = run.scene, run.fitted

# %% [markdown]
# ## What went in
#
# A reference video with keypoints, and views of its first frame from around. The held-out videos are for the metrics.


# %%
def strip(title, *rows):
    """Rows of pictures, one below the other."""
    fig, axes = plt.subplots(len(rows), len(rows[0]), figsize=(1.5 * len(rows[0]), 1.5 * len(rows)), squeeze=False)
    for row, images in zip(axes, rows, strict=True):
        for axis, image in zip(row, images, strict=True):
            axis.imshow(image.clamp(0, 1))
            axis.axis("off")
    fig.suptitle(title, fontsize=9)
    fig.tight_layout()
    return axes


video, frames = scene.reference, torch.tensor([0, 4, 8, 12])
white = torch.ones(3)
axes = strip(
    "the reference video and its keypoints; the first views of the ring",
    video[frames].composited(white),
    scene.ring[torch.tensor([0, 4, 8, 12])].composited(white),
)
for axis, frame in zip(axes[0], frames.tolist(), strict=True):
    seen = scene.keypoints.weights[frame] > 0
    axis.scatter(*scene.keypoints.uv[frame, seen].T - 0.5, s=4, c="k")

# %% [markdown]
# ## The static stage, and the motion
#
# `frozen=True` draws the Gaussians as the static stage has left them. Below them is the fitted motion, below that the
# truth, all in a view that was never trained on.

# %%
test = scene.test
view = torch.nonzero(test.views == test.views[0])[:, 0][frames]
cameras, times = test.cameras[view], test.times[view]
still, moving, truth = (
    model.render(cameras, times, frozen=True),
    model.render(cameras, times),
    test[view].composited(model.background),
)
strip("a held-out view: static model, fitted motion, truth", still, moving, truth)


def psnr(images):
    """Over all pixels of the four images, dB."""
    return float(-10 * (images.clamp(0, 1) - truth).square().mean().log10())


print(f"PSNR of this view at four times: static {psnr(still):.2f} dB, moving {psnr(moving):.2f} dB")

# %% [markdown]
# ## Keypoints carry the motion
#
# Each keypoint has a frame. Gaussians follow the frames by skinning weights: here is the keypoint that each follows
# most.

# %%
state = run.states(torch.zeros(1))[0]
weights = model.representation.deformation.skinning_weights(model.representation.rest()).detach()
fig, (left, right) = plt.subplots(1, 2, figsize=(7, 3))
left.scatter(state.means[:, 0], state.means[:, 1], c=weights.argmax(1), cmap="tab20", s=4)
left.set(title="whom each Gaussian follows", aspect="equal")
tracks = run.keypoints(video.times)
names = scene.keypoints.names
for name in ("left_ankle", "right_ankle", "left_wrist"):
    right.plot(video.times, tracks[:, names.index(name), 2], label=name)
right.set(title="three keypoints", xlabel="time", ylabel="z, world units")
right.legend(fontsize=7)
fig.tight_layout()

# %% [markdown]
# ## Another motion
#
# The same model, moved by a file: bones take its directions and keep their lengths.

# %%
jumping = load_run(
    animate(run.folder.path, MotionConfig("../experiments/motions/jumping_jack.bvh"), folder / "jumping")
)
shown = jumping.scene.reference[torch.tensor([0, 4, 8, 12])]
strip("a jumping jack, in the reference view", jumping.fitted.render(shown.cameras, shown.times))

# %% [markdown]
# ## Something to try
#
# - `deformation.kind=hse` fits a network instead of frames. What happens to the last section?
# - `lift.steps=0` leaves the lift out. In which view do you see it most, and does the reference video show it?
# - `frames.ring=false` takes the views from around away.
