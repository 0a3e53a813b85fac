"""Every number of a run: the metrics room applied to a fitted model and the held-out part of its scene."""

from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kg4d.config.schema import ExperimentConfig
from kg4d.data.around import cameras_around
from kg4d.data.records import Keypoints, PosedImages, Scene, Truth, view_grid
from kg4d.data.studies.frame_subset import seen_frames
from kg4d.metrics.depth import AbsRel, WithinRatio
from kg4d.metrics.feature_networks import Networks, load_networks
from kg4d.metrics.flow import Flicker, FlowEPE
from kg4d.metrics.image import PSNR, MaskedPSNR
from kg4d.metrics.keypoints import PCK, KeypointError3D, box_sizes
from kg4d.metrics.keys import HELD_OUT
from kg4d.metrics.orbit import Holes, Specks
from kg4d.metrics.protocols import Protocol, get_protocol
from kg4d.metrics.state import measured
from kg4d.metrics.suite import Evaluation, Progress, evaluate_grid, training_metrics, write_metrics_json
from kg4d.metrics.surface import SurfaceDistances
from kg4d.runs.fitted_model import FittedModel
from kg4d.runs.read_back import load_run
from kg4d.utils.logs import progress_bar

"""What a search may look at: times of the reference video that a fit has not seen."""

_AROUND = (45.0, 90.0, 135.0, 180.0, 225.0, 270.0, 315.0)  # degrees from the reference view
_ORBIT_SIDE = 192  # px of the longer side
_GEOMETRY = ("geometry/cd_3d", "geometry/cd_4d", "geometry/motion")
_SEEN = 0.1  # opacity of a Gaussian that is part of the surface
Grid = tuple[Float[Tensor, "V T H W 3"], Float[Tensor, "V T H W 1"]]


def evaluate_model(
    fitted: FittedModel,
    scene: Scene,
    protocol: Protocol,
    networks: Networks,
    progress: Progress | None = None,
    seen: Int[Tensor, " S"] | None = None,
) -> Evaluation:
    """Test metrics on the held-out videos, training metrics on the reference video, keypoints and flow.

    Args:
        fitted: The model.
        scene: What it was fitted to, with its test videos.
        protocol: Which metrics.
        networks: For the metrics that need them; those without are skipped with the reason.
        progress: Called while the slow metrics run.
        seen: Frames of the reference video that the fit saw; all when None. The others are held out.
    """
    evaluation = _test_metrics(fitted, scene, protocol, networks, progress)
    reference = scene.reference
    rendered = fitted.render(reference.cameras, reference.times)
    trained = torch.ones(len(reference), dtype=torch.bool)
    if seen is not None:
        trained = torch.isin(torch.arange(len(reference)), seen)
    target = reference.composited(fitted.background)
    for key, value in training_metrics(rendered[trained], target[trained]).items():
        evaluation.record(key, value)
    if not bool(trained.all()):
        evaluation.record(HELD_OUT, reference_psnr(fitted, reference[torch.nonzero(~trained)[:, 0]]))
    _keypoint_metrics(evaluation, fitted, scene)
    _flow_metrics(evaluation, fitted, scene, rendered)
    _depth_metrics(evaluation, fitted, scene)
    _geometry_metrics(evaluation, fitted, scene)
    _orbit_metrics(evaluation, fitted, scene)
    return evaluation


def reference_psnr(fitted: FittedModel, frames: PosedImages) -> float:
    """PSNR of some frames of the reference video, dB."""
    rendered = fitted.render(frames.cameras, frames.times)
    return float(training_metrics(rendered, frames.composited(fitted.background))["train/psnr"])


def _test_metrics(
    fitted: FittedModel, scene: Scene, protocol: Protocol, networks: Networks, progress: Progress | None
) -> Evaluation:
    if scene.test is None:
        evaluation = Evaluation()
        for key in protocol.metrics:
            evaluation.skip(key, "the scene has no test views")
        return evaluation
    test, table = scene.test, torch.tensor(view_grid(scene.test))
    fitted = replace(fitted, background=fitted.background.new_tensor(protocol.background))
    rendered = fitted.render(test.cameras, test.times)
    target = test.composited(fitted.background)
    grids = rendered[table], target[table], None if scene.backdrop else test.alphas[table]
    evaluation = evaluate_grid(*grids, protocol=protocol, networks=networks, progress=progress)
    # what the motion is worth: the same Gaussians, never moved; and how good they are where they need not move
    frozen = fitted.render(test.cameras, test.times, frozen=True)
    evaluation.record("test/psnr_static", _mean_psnr(frozen, target))
    for region, mask in measured_regions(scene).items():
        values = measured(MaskedPSNR(), *_pair(rendered, target), mask[:, None])
        evaluation.record(f"test/psnr_{region}", values)
    first = test.frames == 0
    if bool(first.any()):
        evaluation.record("test/psnr_first_frame", _mean_psnr(rendered[first], target[first]))
    return evaluation


def measured_regions(scene: Scene) -> dict[str, Bool[Tensor, "M H W"]]:
    """Parts of the test images that are measured by themselves; what does not move is one of them."""
    regions = dict(scene.regions)
    if "dynamic" in regions:
        regions["background"] = ~regions["dynamic"]
    return regions


def _pair(
    predicted: Float[Tensor, "M H W 3"], target: Float[Tensor, "M H W 3"]
) -> tuple[Float[Tensor, "M 3 H W"], Float[Tensor, "M 3 H W"]]:
    """Both as metrics of images take them."""
    return predicted.clamp(0, 1).movedim(-1, 1), target.movedim(-1, 1)


def _mean_psnr(predicted: Float[Tensor, "M H W 3"], target: Float[Tensor, "M H W 3"]) -> Tensor:
    return measured(PSNR(), *_pair(predicted, target))


def _keypoint_metrics(evaluation: Evaluation, fitted: FittedModel, scene: Scene) -> None:
    """Of the keypoints that are drawn, which every motion has, and of the tracks that it reports."""
    error, share = "keypoints/error_3d", "keypoints/pck_0.05"
    keypoints, times = scene.keypoints, scene.reference.times
    if keypoints is None or keypoints.truth is None:
        for key in (error, f"{error}_tracks", share, f"{share}_tracks"):
            evaluation.skip(key, "the scene has no true keypoints")
        return
    for suffix, points in {"": fitted.drawn_keypoints(times), "_tracks": fitted.keypoints(times)}.items():
        evaluation.record(error + suffix, measured(KeypointError3D(), points, keypoints.truth))
        try:
            evaluation.record(share + suffix, _share_correct(points, scene, keypoints))
        except ValueError as reason:
            evaluation.skip(share + suffix, str(reason))


def _share_correct(points: Float[Tensor, "T J 3"], scene: Scene, keypoints: Keypoints) -> Tensor:
    """Share of keypoints that the test videos show in the right place.

    Raises:
        ValueError: It cannot be told; the message says why.
    """
    if scene.test is None or keypoints.test_uv is None or keypoints.test_visible is None:
        raise ValueError("the scene has no true keypoints in its test views")
    test, table = scene.test, torch.tensor(view_grid(scene.test))
    frames = test.frames[table]  # the videos may leave frames of the reference out
    if int(frames.max()) >= len(points):
        raise ValueError("the test views show frames that the reference video has not")
    predicted = torch.stack([_project(points, test, row) for row in table])
    views = torch.arange(len(table))[:, None]
    truth, visible = keypoints.test_uv[views, frames], keypoints.test_visible[views, frames]
    return measured(PCK(0.05), predicted, truth, visible, box_sizes(test.alphas)[table])


def _project(points: Float[Tensor, "T J 3"], test: PosedImages, row: Int[Tensor, " S"]) -> Float[Tensor, "S J 2"]:
    """Frame t of a test video sees the points of frame t."""
    return torch.stack([test.cameras[m].project(points[int(test.frames[m])]).pixels[0] for m in row.tolist()])


def _flow_metrics(
    evaluation: Evaluation, fitted: FittedModel, scene: Scene, rendered: Float[Tensor, "T H W 3"]
) -> None:
    keys = ("motion/flow_epe", "train/flicker")
    truth = scene.truth or Truth()
    reference, flow = scene.reference, truth.flow or scene.flow
    if flow is None:
        for key in keys:
            evaluation.skip(key, "the scene has no flow")
        return
    pairs = [reference[t : t + 2] for t in range(len(reference) - 1)]
    predicted = torch.stack([fitted.flow(pair.cameras, pair.times) for pair in pairs])
    evaluation.record(keys[0], measured(FlowEPE(), predicted, flow.flow, flow.weights))
    if truth.moving is not None:
        moving = flow.weights * truth.moving[:-1]
        evaluation.record(f"{keys[0]}_dynamic", measured(FlowEPE(), predicted, flow.flow, moving))
    video = rendered.clamp(0, 1).movedim(-1, 1)
    evaluation.record(keys[1], measured(Flicker(), video, flow.flow, flow.weights))


def _depth_metrics(evaluation: Evaluation, fitted: FittedModel, scene: Scene) -> None:
    """Of what the cameras of the reference video see: it is what has a truth."""
    truth, keys = scene.truth or Truth(), ("depth/abs_rel", "depth/delta_1.25")
    if truth.depth is None:
        for key in keys:
            evaluation.skip(key, "the scene has no true depth")
        return
    drawn, known = fitted.depth(scene.reference.cameras, scene.reference.times), truth.depth.weights
    parts = {"": known} if truth.moving is None else {"": known, "_dynamic": known * truth.moving}
    for suffix, weights in parts.items():
        for key, metric in zip(keys, (AbsRel(), WithinRatio()), strict=True):
            evaluation.record(key + suffix, measured(metric, drawn, truth.depth.depth, weights))


def _geometry_metrics(evaluation: Evaluation, fitted: FittedModel, scene: Scene) -> None:
    """Of the centres of the Gaussians that can be seen, by their opacity, against points of the true surface."""
    surface = (scene.truth or Truth()).surface
    if surface is None:
        for key in _GEOMETRY:
            evaluation.skip(key, "the scene has no true surface")
        return
    states = fitted.states(scene.reference.times)
    seen = [state.opacities >= _SEEN for state in states]
    if not all(bool(visible.any()) for visible in seen):
        for key in _GEOMETRY:
            evaluation.skip(key, f"no Gaussian has an opacity of {_SEEN:g} or more")
        return
    centres = [state.means[visible].cpu() for state, visible in zip(states, seen, strict=True)]
    opacities = [state.opacities[visible].cpu() for state, visible in zip(states, seen, strict=True)]
    tracked = all(torch.equal(state.opacities, states[0].opacities) for state in states)
    metric = SurfaceDistances()
    metric.sync_on_compute = False
    metric.update(centres, surface, opacities, tracked=tracked)
    for name, value in metric.compute().items():
        evaluation.record(f"geometry/{name}", value)
    if not tracked:
        evaluation.skip("geometry/motion", "Gaussians appear and vanish: they are no points that move")


def _orbit_metrics(evaluation: Evaluation, fitted: FittedModel, scene: Scene) -> None:
    """How clean the first, the middle and the last moment look from around, on white and at one size for all scenes."""
    if scene.backdrop:
        for key in ("orbit/specks", "orbit/holes"):
            evaluation.skip(key, "the images show a whole place: there is nothing to look at from around")
        return
    angles, times = torch.tensor(_AROUND), scene.reference.times[[0, len(scene.reference) // 2, -1]]
    cameras = cameras_around(scene, torch.cat([angles.new_zeros(1), angles]))
    scale = _ORBIT_SIDE / max(cameras.width, cameras.height)
    cameras = cameras.resized(round(cameras.width * scale), round(cameras.height * scale))
    fitted = replace(fitted, background=fitted.background.new_ones(3))
    grid = torch.stack([fitted.render_rgba(cameras, time.expand(len(cameras))) for time in times]).movedim(-1, 2)
    around, seen = grid[:, 1:].flatten(0, 1), grid[:, :1].expand_as(grid[:, 1:]).flatten(0, 1)
    pairs = around[:, :3].clamp(0, 1), around[:, 3:], seen[:, :3].clamp(0, 1), seen[:, 3:]
    evaluation.record("orbit/specks", measured(Specks(), *pairs))
    evaluation.record("orbit/holes", measured(Holes(), around[:, 3:]))


def _of_unseen_motion(fitted: FittedModel, scene: Scene, protocol: Protocol) -> Evaluation:
    """What can be said of a motion that no image shows: how clean the model looks from around while it moves."""
    evaluation = Evaluation()
    for key in (*protocol.metrics, "train/psnr", "train/ssim"):
        evaluation.skip(key, "no image shows this motion, which comes from a file")
    _orbit_metrics(evaluation, fitted, scene)
    return evaluation


def evaluate_run(path: str | Path, networks: bool | None = None) -> Evaluation:
    """Recompute and write the `metrics.json` of a finished run.

    Args:
        path: The run folder.
        networks: Whether to measure what networks are needed for; as the run's configuration says when None.
    """
    run = load_run(path)
    if networks is not None:
        run.config.evaluation.networks = networks
    evaluation = measure(run.config, run.fitted, run.scene)
    write_metrics_json(run.folder.metrics, evaluation, run_protocol(run.config))
    return evaluation


def run_protocol(config: ExperimentConfig) -> Protocol:
    """What is measured at the end of the run, and how.

    Raises:
        InputError: There is no such protocol, or it has no such metric.
    """
    return get_protocol(config.evaluation.protocol, config.evaluation.metrics)


def measure(config: ExperimentConfig, fitted: FittedModel, scene: Scene) -> Evaluation:
    """Every metric of the run's protocol, with a progress bar."""
    protocol = run_protocol(config)
    if not scene.pictured:
        return _of_unseen_motion(fitted, scene, protocol)
    needed = config.evaluation.networks and any(key in protocol.networks for key in protocol.metrics)
    networks = Networks()
    if needed:
        networks = load_networks(keep_features=config.evaluation.keep_features).on(fitted.renderer.device)
    with progress_bar("evaluation", shown=config.trainer.progress_bar) as progress:
        seen = seen_frames(scene, config.frames)
        evaluation = evaluate_model(fitted, scene, protocol, networks, progress, seen)
    trained = config.dynamic.data.test_views or config.refine.data.frames.test_views
    evaluation.provenance["trained_on_test_views"] = trained
    return evaluation
