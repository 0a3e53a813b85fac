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
# # Reading an ablation and its intervals
#
# `experiments/ablation_wgf.yaml` fits the method with and without two of its parts. Here it is run very small, on
# three characters with two seeds each, to see where the numbers of a table come from, and which of them say
# something.

# %%
import logging
import math
import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown

from kg4d.config.load import expand
from kg4d.config.schema import ExperimentConfig
from kg4d.metrics.intervals import mean_and_ends, paired_difference, student_t
from kg4d.pipeline import fit
from kg4d.runs.results import gather
from kg4d.tracking.tables import write_tables

torch.set_num_threads(1)
warnings.simplefilter("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
folder = Path(tempfile.mkdtemp())
words = [
    *("scenes=[synthetic:walker,synthetic:swimmer,synthetic:lamplighter]", "seeds=[0,1]"),
    *("image_size=32", "gaussians.count=200", "gaussians.hull_resolution=24", "renderer.kind=cpu"),
    *("renderer.threads=1", "static.steps=40", "dynamic.steps=40", "refine.steps=1"),
    *("trainer.progress_bar=false", "tracking.wandb.mode=disabled", "export.formats=[]"),
    "evaluation.metrics=[test/psnr,test/psnr_masked]",
    f"output={folder}",
]
runs = expand(ExperimentConfig, "../experiments/ablation_wgf.yaml", words)
for one in runs:
    fit(one.config)
results = gather(runs)
print(f"{len(runs)} fits: {len(results)} variants, 3 scenes, 2 seeds")

# %% [markdown]
# ## Scenes differ by more than variants
#
# On the left are all fits. The spread of a variant is that of the scenes: nothing can be read from it. On the right
# each fit is compared with the one of *the same scene and the same seed* that has all parts. What is easy or hard
# about a scene cancels, and what is left is the effect of the variant.

# %%
scenes, seeds, arms = list(results["full"]), [0, 1], ["no_wgf", "no_wgf_kfc"]


def values(variant, metric="test/psnr"):
    """Of one variant, by scene and seed."""
    return {scene: {seed: results[variant][scene][seed][metric] for seed in seeds} for scene in scenes}


def differences(variant, metric="test/psnr"):
    """To the variant `full`, by scene and seed."""
    mine, base = values(variant, metric), values("full", metric)
    return {scene: {seed: mine[scene][seed] - base[scene][seed] for seed in seeds} for scene in scenes}


def dots(axis, column, by_scene):
    """One colour a scene, its seeds beside one another."""
    for number, (scene, by_seed) in enumerate(by_scene.items()):
        place = [column + 0.12 * (number - 1) + 0.03 * seed for seed in by_seed]
        axis.plot(place, list(by_seed.values()), f"C{number}o", ms=4, label=scene if column == 0 else None)


fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
for column, variant in enumerate(results):
    dots(left, column, values(variant))
for column, variant in enumerate(arms):
    dots(right, column, differences(variant))
    found = paired_difference(values(variant), values("full"))
    right.errorbar(column + 0.3, found.mean, found.high - found.mean, fmt="ks", ms=4, capsize=4)
right.axhline(0, color="0.7", lw=1)
left.set(title="test PSNR, dB", xticks=range(3), xticklabels=results)
right.set(title="difference to full, dB; black: mean and interval", xticks=range(2), xticklabels=arms)
left.legend(loc="center", fontsize=7)

# %% [markdown]
# The table that `kg4d.fit` writes (`table.md`) holds the same: mean ± deviation over scenes, and below it the paired
# difference with its interval. Some of its rows:

# %%
write_tables(folder / "ablation_wgf", results)
lines = (folder / "ablation_wgf" / "table.md").read_text().splitlines()
chosen = ("test/psnr ", "train/psnr ", "keypoints/error_3d ")
Markdown("\n".join([*lines[:2], *(line for line in lines if line.startswith(tuple(f"| {key}" for key in chosen)))]))

# %% [markdown]
# ## Where the interval comes from
#
# Of the differences of one scene the mean is taken over its seeds. Three scenes are three numbers, with mean $m$ and
# standard deviation $s$. Were many sets of three scenes drawn, $m \pm t\, s / \sqrt 3$ would hold the true mean in 95
# of 100 of them, with Student's $t = 4.30$ in place of the usual 1.96, since $s$ from three numbers is itself mostly
# chance.

# %%
sample = [sum(by_seed.values()) / 2 for by_seed in differences("no_wgf_kfc").values()]
mean = sum(sample) / 3
deviation = math.sqrt(sum((value - mean) ** 2 for value in sample) / 2)
by_hand = mean - student_t(0.95, 2) * deviation / math.sqrt(3)
found = mean_and_ends(sample)
assert math.isclose(by_hand, found.low)
assert found == paired_difference(values("no_wgf_kfc"), values("full"))
for count in (3, 4, 6, 10, 20):
    reach = student_t(0.95, count - 1) / math.sqrt(count)
    print(f"{count:2} scenes: the interval reaches {reach:.2f} standard deviations to each side")

# %% [markdown]
# Six scenes make it less than half as wide as three. More seeds of the same three scenes do not: they only make the
# three numbers more exact.
#
# ## Nine fits are not nine scenes
#
# Fits of one scene share what that scene does to a variant: above, the swimmer needs its keypoints and the other two
# hardly do, with either seed. Below is a world in which a variant changes *nothing* on average, scenes differ by 0.5
# dB and three seeds by 0.1 dB. An interval is wrong where it does not hold 0, and should be in 5 of 100 studies.

# %%
g = torch.Generator().manual_seed(0)
studies = 20_000
of_scenes = 0.5 * torch.randn(studies, 3, 1, generator=g)
drawn = of_scenes + 0.1 * torch.randn(studies, 3, 3, generator=g)


def wrong(numbers):
    """The share of studies whose 95 % interval, of that many numbers each, does not hold 0."""
    count = numbers.shape[1]
    reach = student_t(0.95, count - 1) * numbers.std(1) / math.sqrt(count)
    return float((numbers.mean(1).abs() > reach).float().mean())


misses = {
    "means of three scenes": wrong(drawn.mean(2)),
    "nine fits as if nine scenes": wrong(drawn.flatten(1)),
    "three seeds of one scene": wrong(drawn[:, 0]),
}
for name, share in misses.items():
    print(f"{name}: {100 * share:.1f} of 100 intervals are wrong about other scenes")
fig, axis = plt.subplots(figsize=(6, 2), layout="constrained")
axis.barh(list(misses), [100 * share for share in misses.values()])
axis.axvline(5, color="k", lw=1, ls="--")
axis.set(xlabel="wrong intervals in 100 (dashed: what 95 % promises)")
axis.invert_yaxis()

# %% [markdown]
# The last one is the commonest table of all: one scene, three seeds. Its interval is right about *other seeds of that
# scene*, and says nothing about other scenes. That is why `kg4d.fit` takes the means of the scenes where there are
# several.
#
# ## Why test views
#
# The same differences, in the reference view and in views that no stage has seen. Without keypoints (crosses) every
# fit meets the reference view better, as nothing but its pixels counts; in other views the swimmer pays for it.

# %%
fig, axis = plt.subplots(figsize=(4.5, 3), layout="constrained")
for marker, variant in zip("ox", arms, strict=True):
    seen, unseen = differences(variant, "train/psnr"), differences(variant)
    for number, scene in enumerate(scenes):
        axis.plot(list(seen[scene].values()), list(unseen[scene].values()), f"C{number}{marker}", ms=5)
axis.axhline(0, color="0.7", lw=1)
axis.axvline(0, color="0.7", lw=1)
axis.set(xlabel="difference in the reference view, dB", ylabel="in test views, dB", title="o no_wgf, x no_wgf_kfc")

# %% [markdown]
# Two finished tables of `docs/evidence.md` show how far that goes: planes in place of the harmonic network
# (*hexplane*) fit the reference view better beyond chance, and novel views no better.

# %%
finished = {"reference view": (2.90, 0.84, 4.95), "novel views": (-0.12, -2.81, 2.57)}
fig, axis = plt.subplots(figsize=(5, 1.4), layout="constrained")
for row, (middle, low, high) in enumerate(finished.values()):
    axis.errorbar(middle, row, xerr=[[middle - low], [high - middle]], fmt="ks", ms=4, capsize=4)
axis.axvline(0, color="0.7", lw=1)
axis.set(yticks=[0, 1], yticklabels=finished, ylim=(1.5, -0.5), xlabel="hexplane minus kg4d, dB")

# %% [markdown]
# ## What an interval does not say
#
# - **It holds 0**: nothing was shown. That is not "it changes nothing": with three scenes an effect of 1 dB is easily
#   missed. Look at how far the ends are: they are what is still possible.
# - **It does not hold 0**: chance would do that in 5 of 100 tables. Of many metrics and variants some always will.

# %%
for looked_at in (1, 5, 20):
    print(
        f"{looked_at} independent comparisons without any effect: {1 - 0.95**looked_at:.2f} have at least one finding"
    )

# %% [markdown]
# - **Of which scenes?** Of those like the ones you took, and as many as are truly different: the lamplighter is the
#   walker with a lamp, so the three here are hardly more than two.
# - **Chosen by the same numbers?** A setting that was chosen because it did best on these views is flattered by them.
#
# ## Something to try
#
# - Run the first cell with one more scene (a folder of your own). How much narrower are the intervals?
# - Let the seeds in the simulated world differ by 2 dB. Are nine fits as good as nine scenes then?
# - `python -m kg4d.report --runs runs/ablation_wgf --out report` draws the same for finished runs.
