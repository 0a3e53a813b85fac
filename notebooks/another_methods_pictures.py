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
# # Measuring another method's pictures
#
# `python -m kg4d.evaluate --pred A --target B` measures any method: all it needs is two folders of
# `<view>_<frame>.png`. Here the *other method* is the truth with one thing wrong at a time, so that it is known what
# each metric ought to see.

# %%
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from kg4d.data.records import view_grid
from kg4d.data.synthetic.scene import make_scene
from kg4d.metrics.feature_networks import load_networks
from kg4d.metrics.flow import flicker
from kg4d.metrics.folders import read_folders
from kg4d.metrics.protocols import GLTF4D
from kg4d.metrics.suite import evaluate_grid
from kg4d.render import build_renderer

torch.set_num_threads(1)
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The truth, as files
#
# Two test videos of a swimmer. The target is RGBA: its alpha says where the object is, for the masked PSNR.

# %%
scene = make_scene("swimmer", build_renderer("cpu", 1), size=96, frames=12)
test = scene.test
grid = torch.tensor(view_grid(test)[:2])
target = test.images[grid]  # (views, frames, H, W, RGBA)


def written(name, images):
    """A folder of <view>_<frame>.png."""
    (folder / name).mkdir()
    for view, video in enumerate(images):
        for frame, image in enumerate(video):
            pixels = (image.clamp(0, 1) * 255).round().byte().numpy()
            Image.fromarray(np.ascontiguousarray(pixels)).save(folder / name / f"v{view}_{frame:03}.png")
    return folder / name


written("truth", target)
print(", ".join(sorted(path.name for path in (folder / "truth").iterdir())[:3]), "...")

# %% [markdown]
# ## A method with one fault
#
# Pictures on white, RGB, the same names.

# %%
white = target[..., :3] * target[..., 3:] + 1 - target[..., 3:]
inside = target[..., 3:] > 0.5
g = torch.Generator().manual_seed(0)


def blurred(images, sigma):
    """Each image under a Gaussian window."""
    reach = int(3 * sigma)
    line = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2))
    window = (line[:, None] * line / line.sum() ** 2).expand(3, 1, -1, -1)
    flat = F.pad(images.flatten(0, 1).movedim(-1, 1), [reach] * 4, mode="replicate")
    return F.conv2d(flat, window, groups=3).movedim(1, -1).reshape(images.shape)


noise = 0.12 * torch.randn(white.shape, generator=g)
faults = {
    "blurred": blurred(white, 1.5),
    "2 px aside": white.roll(2, dims=3),
    "tinted": torch.where(inside, white * torch.tensor([1.0, 0.85, 0.85]), white),
    "grain that stays": white + torch.where(inside, noise[:, :1].expand_as(noise), 0.0),
    "grain that flickers": white + torch.where(inside, noise, 0.0),
    "a frame late": white.roll(1, dims=1),
    "does not move": white[:, :1].expand_as(white),
    "views exchanged": white.roll(1, dims=0),
    "on black": target[..., :3] * target[..., 3:],
    "blank": torch.ones_like(white),
}
fig, axes = plt.subplots(2, 6, figsize=(10, 3.6), layout="constrained")
for axis, (name, images) in zip(axes.flat, {"truth": white, **faults}.items(), strict=False):
    axis.imshow(images[1, 4].clamp(0, 1))
    axis.set_title(name, fontsize=8)
    axis.set(xticks=[], yticks=[])
axes[1, 5].axis("off")

# %% [markdown]
# ## The command
#
# Without `--no-networks` it adds LPIPS and the video distances, once `make weights` has fetched them.

# %%
renders = written("blurred", faults["blurred"])
command = ["-m", "kg4d.evaluate", "--pred", renders, "--target", folder / "truth", "--no-networks"]
done = subprocess.run(
    [sys.executable, *map(str, command), "--out", str(folder / "result.json")], capture_output=True, text=True
)
assert done.returncode == 0, done.stderr
result = json.loads((folder / "result.json").read_text())
for key, value in result["metrics"].items():
    print(f"{key}: {value:.3f}")
print("differs from the protocol:", "; ".join(result["provenance"]["deviations"]))
print("skipped:", result["provenance"]["skipped"]["test/ms_ssim"])

# %% [markdown]
# What cannot be measured is left out with its reason, and what is unlike the protocol is written down. A folder that
# does not match is one clear line:

# %%
(renders / "v1_011.png").unlink()
done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)
print(done.stderr.replace(str(folder), "...").strip().splitlines()[-1], f"(exit status {done.returncode})")

# %% [markdown]
# ## What each metric sees
#
# The same from Python, for all faults. Networks are used where their weights are on this machine (`make weights`).

# %%
keys = ["test/psnr", "test/psnr_masked", "test/ssim"]
learned = ["test/lpips_vgg", "test/video_distance"]
protocol, networks = replace(GLTF4D, metrics=(*keys, *learned)), load_networks()
table = {}
for name, images in faults.items():
    found = read_folders(written(f"{name}, whole", images), folder / "truth")
    table[name] = evaluate_grid(found.predicted, found.target, found.target_alpha, protocol=protocol, networks=networks)
    numbers = (table[name].metrics[key] for key in keys)
    print(f"{name:20}", "  ".join(f"{key[5:]} {value:.3f}" for key, value in zip(keys, numbers, strict=True)))

# %%
here = [key for key in (*keys, *learned) if key in table["blank"].metrics]
fig, axes = plt.subplots(1, len(here), figsize=(2.4 * len(here) + 1, 2.8), layout="constrained", sharey=True)
for axis, key in zip(axes, here, strict=True):
    axis.barh(list(table), [row.metrics[key] for row in table.values()])
    worse = "lower" if key in keys else "higher"
    axis.set_title(f"{key[5:]} ({worse} is worse)", fontsize=8)
    axis.tick_params(labelsize=7)
axes[0].invert_yaxis()

# %% [markdown]
# - **A blank page has a PSNR**, and an SSIM like that of a still model: most of an image is white. So `psnr_masked`
#   stands beside it. Compare with what nothing scores, and with what a model scores that does not move.
# - **PSNR is a mean of decibels**, as everywhere, and an image that is met exactly counts 100. *Does not move* is
#   ahead of *a frame late* only because it has frame 0 of 12 exactly, which is worth 7 dB.
# - **PSNR punishes what eyes forgive**: two pixels aside cost more than a blur, a tint or grain. LPIPS sees it the
#   other way round.
# - **Who sees that nothing moves?** PSNR puts the still model before two pixels aside, and LPIPS before a blur. Only
#   the video distance puts it where it belongs, beside the blank page.
# - **No metric of single images knows time.** The two grains are alike in PSNR and SSIM by construction, since every
#   image has as much of it, and even the video distance hardly tells them apart.
# - **Mistakes of the protocol are larger than methods are apart**: a black background, exchanged views, frames that
#   begin at another number. If a number is far too low, look there first.
#
# ## Flicker
#
# `kg4d.metrics.flow.flicker` follows the true flow and asks how much colours change along it. It is reported for the
# reference video of a run (`train/flicker`); with true flow it takes any video. Here is the reference view with the
# two grains.

# %%
video, flow = scene.reference, scene.flow
clean = video.composited(torch.ones(3))
grains = 0.12 * torch.randn(clean.shape, generator=g)
object_there = video.alphas > 0.5
for name, grain in (("none", None), ("stays", grains[:1].expand_as(grains)), ("flickers", grains)):
    seen = clean if grain is None else clean + torch.where(object_there, grain, 0.0)
    change = flicker(seen.movedim(-1, 1), flow.flow, flow.weights)
    print(f"grain that {name}: colours change by {float(change.nanmean()):.4f} a frame along the true motion")

# %% [markdown]
# Grain that stays in the image is no better than grain that flickers where a body moves under it: what should stay is
# the body's own colour.
#
# ## What no picture shows
#
# - **Depth.** A flat cut-out that is painted anew for every view scores like a solid body. `keypoints/error_3d` and
#   `kg4d.metrics.surface.SurfaceDistances` take points in 3D, of any method.
# - **Views that nobody tests.** Four videos stand for all around; `orbit/specks` looks in between, for runs of kg4d.
# - **Few samples.** FVD from four clips ranks methods on equal counts and is no absolute number
#   (`docs/evaluation.md`).
#
# ## Something to try
#
# - Move the pictures by half a pixel: the commonest fault of a camera convention. What does it cost?
# - Save the pictures as JPEG first. At which quality does a metric notice?
# - Write the renders of your own method as `<view>_<frame>.png` and compare it with *does not move*.
