"""What W&B shows of a run while it goes on, besides what a stage logs: nothing of it has any influence on the fit.

Test views are drawn for people to look at. No step, no stop and no search knows of them (see `kg4d.runs.validation`).
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from PIL import Image, ImageDraw
from torch import Tensor

from kg4d.data.images import quantize
from kg4d.data.records import Keypoints, PosedImages, view_grid
from kg4d.data.spans import evenly_spaced
from kg4d.formats.legend import with_legend
from kg4d.formats.mp4 import COMPARED, beside_the_truth, contact_sheet, write_mp4
from kg4d.metrics.suite import Evaluation
from kg4d.runs.build import RunInputs
from kg4d.runs.fitted_model import FittedModel
from kg4d.runs.measure import reference_psnr
from kg4d.stages.base import LOG_EVERY, Stage
from kg4d.stages.dynamic import DynamicStage
from kg4d.stages.static import StaticStage
from kg4d.tracking.tracker import Tracker

_TEST_IMAGES = 16  # drawn for one point of the curve
_MARKED = 4  # frames with keypoints in one picture
_MOST_POINTS = 50_000  # of a cloud
_SEEN = 0.1  # opacity from which on a Gaussian is a point of it
_GIVEN, _FITTED = (20, 160, 60), (220, 40, 40)


class Rates(Callback):
    """Logs the learning rate of each group of parameters, and how many images are drawn a second.

    Args:
        tracker: Gets them, at the steps at which the stage logs.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def on_train_start(self, trainer: Trainer, stage: LightningModule) -> None:
        """Begin to count."""
        assert isinstance(stage, Stage)
        self._since = self._now(stage), stage.renders

    def on_train_batch_end(self, trainer: Trainer, stage: LightningModule, *_: object) -> None:
        """Log when it is time."""
        assert isinstance(stage, Stage)
        step = trainer.global_step - 1
        if step % LOG_EVERY != 0:
            return
        values = {f"learning_rate/{group['name']}": float(group["lr"]) for group in trainer.optimizers[0].param_groups}
        now, (before, drawn) = self._now(stage), self._since
        values["renders_per_second"] = (stage.renders - drawn) / max(now - before, 1e-9)
        self._since = now, stage.renders
        self._tracker.watch(stage.name, step, values)

    def _now(self, stage: Stage[Any]) -> float:
        """Seconds without those of previews."""
        return time.perf_counter() - stage.clock.seconds["previews"]


@torch.no_grad()
def watch_stage(
    run: RunInputs, tracker: Tracker, stage: Stage[Any], step: int, fitted: FittedModel, folder: Path
) -> None:
    """Show the model of a stage as it stands: held-out PSNR, opacities, keypoints, and videos beside the truth.

    Args:
        run: What is fitted.
        tracker: Gets it all.
        stage: Which stage; videos are of the dynamic stage, and the static stage has the first frame alone.
        step: Steps that are done.
        fitted: The model, in the world of the scene.
        folder: Gets the videos.
    """
    scene, still, logged = run.whole_scene, isinstance(stage, StaticStage), max(step - 1, 0)
    opacities = fitted.states(scene.reference.times[:1])[0].opacities
    tracker.histogram(f"opacities/{stage.name}", opacities, logged)
    if scene.test is not None:
        shown = scene.test[torch.nonzero(scene.test.frames == 0)[:, 0]] if still else scene.test
        chosen = torch.tensor(evenly_spaced(len(shown), _TEST_IMAGES), dtype=torch.long)
        if len(chosen):
            tracker.watch(stage.name, logged, {"test_psnr": reference_psnr(fitted, shown[chosen])})
    if still or not scene.pictured:
        return
    if scene.keypoints is not None and len(scene.keypoints.names) > 0:
        marked = keypoint_sheet(fitted, scene.reference, scene.keypoints)
        tracker.image(f"keypoints/{stage.name}", marked, logged)
    if isinstance(stage, DynamicStage):
        videos = {"reference": scene.reference}
        if scene.test is not None:
            videos["test_0"] = scene.test[torch.tensor(view_grid(scene.test)[0])]
        for name, images in videos.items():
            path = folder / f"{stage.name}_{step:05d}_{name}.mp4"
            write_mp4(path, with_legend(beside_the_truth(fitted, images), COMPARED), run.config.export.fps)
            tracker.video(f"compared/{name}", path, logged)


def keypoint_sheet(
    fitted: FittedModel, images: PosedImages, keypoints: Keypoints
) -> Float[Tensor, "sheet_height sheet_width 3"]:
    """Some frames with the keypoints that were given as green rings, and those of the model as red dots."""
    chosen = evenly_spaced(len(images), _MARKED)
    points = fitted.keypoints(images.times[chosen])
    pictures = quantize(images.composited(fitted.background)[chosen])
    sheets = []
    for index, frame in enumerate(chosen):
        picture = Image.fromarray(pictures[index].numpy())
        draw, size = ImageDraw.Draw(picture), max(1, picture.height // 96)
        seen = keypoints.weights[frame] > 0
        for x, y in keypoints.uv[frame][seen].tolist():
            draw.ellipse(
                (x - 2 * size, y - 2 * size, x + 2 * size, y + 2 * size), outline=_GIVEN, width=max(1, size // 2)
            )
        for x, y in images.cameras[frame].project(points[index].to(images.times)).pixels[0].tolist():
            draw.ellipse((x - size, y - size, x + size, y + size), fill=_FITTED)
        sheets.append(torch.from_numpy(np.array(picture)).float() / 255)
    rows = contact_sheet(torch.stack(sheets), columns=len(sheets))
    return with_legend(rows[None], ["ring: given, dot: fitted"])[0]


def watch_result(run: RunInputs, tracker: Tracker, fitted: FittedModel, evaluation: Evaluation) -> None:
    """Show what was reached: all metrics, those of each view as a table, and the first and last frame as points."""
    tracker.final(evaluation.metrics)
    views = evaluation.per_view
    if views:
        rows = [[view, *(values[view] for values in views.values())] for view in range(len(next(iter(views.values()))))]
        tracker.table("per_view", ["view", *views], rows)
    times = run.whole_scene.reference.times[[0, -1]]
    for name, state in zip(("first_frame", "last_frame"), fitted.states(times), strict=True):
        seen = torch.nonzero(state.opacities > _SEEN)[:, 0]
        seen = seen[:: max(1, -(-len(seen) // _MOST_POINTS))]
        tracker.points(f"points/{name}", state.means[seen], state.colors[seen])
