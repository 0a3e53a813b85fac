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
# # What the readings of a heatmap do
#
# KG4D's equation 8 reads a keypoint from a rendered map by a softmax "per axis". What happens to the other axis first
# is not said, and decides whether the keypoint is found. `kfc.reading` names each way; `kg4d.keypoints.soft_argmax`
# has them.

# %%
import matplotlib.pyplot as plt
import torch

from kg4d.keypoints.soft_argmax import KeypointReading, soft_argmax

SIZE, TEMPERATURE = 64, 0.1


def blob(x, y, width, height=1.0):
    """A map with one round peak, as a few Gaussians render it."""
    grid = torch.arange(SIZE) + 0.5
    return height * torch.exp(-((grid[None] - x) ** 2 + (grid[:, None] - y) ** 2) / (2 * width**2))


# %% [markdown]
# ## One peak
#
# The cross is the truth. `joint` and `separable` find it, `mean` and `literal` stay near the centre of the image: a
# small peak hardly changes the mean of a row.

# %%
peak = blob(48, 16, 3)
fig, axes = plt.subplots(1, 6, figsize=(11, 2.2))
for axis, reading in zip(axes, KeypointReading, strict=True):
    found = soft_argmax(peak, temperature=TEMPERATURE, reading=reading)
    axis.imshow(peak, cmap="Greys")
    axis.plot(48 - 0.5, 16 - 0.5, "k+", ms=9)
    axis.plot(*(found.pixels - 0.5), "ro", ms=4)
    axis.set_title(f"{reading}", fontsize=9)
    axis.axis("off")
    off = float((found.pixels - torch.tensor([48.0, 16.0])).norm())
    print(f"{reading:10} is {off:5.2f} px off, spread {float(found.std):5.2f} px")

# %% [markdown]
# ## The size of the peak
#
# A reading should not depend on how large a keypoint's Gaussians are. At this temperature `joint` misses a peak of 1 px
# by 7 px, because the empty background outweighs it; from 3 px on it is less than 1 px off.

# %%
widths = torch.linspace(1, 10, 19)
fig, axis = plt.subplots(figsize=(5, 3))
for reading in KeypointReading:
    found = [soft_argmax(blob(48, 16, w), temperature=TEMPERATURE, reading=reading).pixels for w in widths]
    axis.plot(widths, [(pixels - torch.tensor([48.0, 16.0])).norm() for pixels in found], label=str(reading))
axis.set(xlabel="width of the peak, px", ylabel="distance from the truth, px")
axis.legend(fontsize=7)
fig.tight_layout()

# %% [markdown]
# ## Two peaks
#
# No reading chooses one of two equal peaks: all answer with a place between them, where nothing is. That is why
# keypoint features start near triangulated keypoints (`kfc.seeding`), and are kept compact (`kfc.compactness`).

# %%
for share in (0.0, 0.5, 0.9, 1.0):
    two = blob(48, 16, 3) + blob(16, 48, 3, share)
    x, y = soft_argmax(two, temperature=TEMPERATURE).pixels.tolist()
    print(
        f"second peak {share:.1f} as high: joint reads ({x:.1f}, {y:.1f}); the peaks are at (48.0, 16.0), (16.0, 48.0)"
    )

# %% [markdown]
# ## The gradient
#
# A loss on the reading moves the map, here towards the centre of the image. `joint` and `max` change the peak itself;
# `literal` spreads a gradient of about a hundredth of that over the whole image.

# %%
fig, axes = plt.subplots(1, 3, figsize=(7, 2.4))
for axis, reading in zip(axes, (KeypointReading.JOINT, KeypointReading.MAX, KeypointReading.LITERAL), strict=True):
    logits = peak.clone().requires_grad_()
    (soft_argmax(logits, temperature=TEMPERATURE, reading=reading).pixels - 32).square().sum().backward()
    limit = float(logits.grad.abs().max())
    axis.imshow(logits.grad, cmap="RdBu", vmin=-limit, vmax=limit)
    axis.set_title(f"{reading}: largest {limit:.2g}", fontsize=9)
    axis.axis("off")
fig.tight_layout()

# %% [markdown]
# ## Something to try
#
# - Raise `TEMPERATURE` to 1. Which readings still find the peak?
# - Move the peak half out of the image. Where does each reading put it, and on which side is the error?
# - `kfc.mode=barycentre`, the default of the presets, renders no map. What does that cost where Gaussians are hidden?
