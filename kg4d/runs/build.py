"""What a configuration stands for, and a finished run read back: to look at, to measure again, to export."""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.config.schema import ExperimentConfig, GuidanceConfig
from kg4d.data.batches.batch import step_generator
from kg4d.data.batches.dynamic import DynamicDataModule
from kg4d.data.batches.refine import RefineDataModule
from kg4d.data.batches.settings import WindowsConfig
from kg4d.data.batches.static import StaticDataModule, static_references
from kg4d.data.gltf.scene import PREFIX as GLTF
from kg4d.data.gltf.scene import make_gltf_scene
from kg4d.data.normalisation import Normalisation, normalisation_of
from kg4d.data.readers.build import find_reader
from kg4d.data.readers.viewpoints import looked_at
from kg4d.data.records import Depth, Scene, VideoFeatures, view_grid
from kg4d.data.scene import load_scene
from kg4d.data.sizes import Size
from kg4d.data.studies.frame_subset import choose_frames, seen_frames, with_videos, without_ring, without_texture
from kg4d.data.studies.keypoint_subset import choose_keypoints
from kg4d.data.studies.noisy_detections import add_noise
from kg4d.data.studies.settings import DetectionsSource
from kg4d.data.studies.world import in_world
from kg4d.data.synthetic.room import NAME as ROOM
from kg4d.data.synthetic.room import make_room
from kg4d.data.synthetic.scene import FRAMES, make_scene
from kg4d.data.unseen import unseen_motion
from kg4d.data.videos import is_clip
from kg4d.errors import InputError
from kg4d.formats.motion_files import Motion, read_motion
from kg4d.gaussians.build import build_gaussians, far_side_of, settled_init
from kg4d.gaussians.far_side import MirroredFarSide
from kg4d.gaussians.middle import depths_of_bones
from kg4d.gaussians.model import GaussianModel
from kg4d.gaussians.settings import FarSide, InitKind, Middle
from kg4d.keypoints.sides import other_sides
from kg4d.lift.first_depths import first_depths
from kg4d.lift.seeding import Skeleton, reconcile_views, seed_keypoints
from kg4d.metrics.protocols import Protocol, get_protocol
from kg4d.priors.build import decide_depth, decide_flow_features
from kg4d.priors.cache.store import PriorCache
from kg4d.priors.depth import read_depth
from kg4d.priors.diffusion.checkpoint import networks_device
from kg4d.priors.diffusion.noise_predictor import build_noise_model, find_noise_model, settle_noise_model
from kg4d.priors.diffusion.settings import GuidanceKind
from kg4d.priors.feature_files import read_feature_maps
from kg4d.priors.files import SuppliedFiles
from kg4d.priors.flow_features import DisAndMaps, FlowFeatures
from kg4d.priors.prepare import prepared_scene
from kg4d.priors.redetect import redetected
from kg4d.priors.settings import DepthMeasure, PriorsConfig
from kg4d.priors.workbench import Workbench
from kg4d.render.base import RasterOptions, Renderer, between_planes, with_options
from kg4d.render.build import RendererUnavailableError, build_renderer
from kg4d.representation.base import Representation
from kg4d.representation.build import build_representation
from kg4d.representation.settings import RepresentationConfig, RepresentationKind, SpacetimeInit
from kg4d.runs.first_overlap import warn_of_little_overlap
from kg4d.stages.dynamic import DynamicStage
from kg4d.stages.guidance import Guidance
from kg4d.stages.settings import DensityConfig, DensityKind
from kg4d.stages.static import StaticStage

_log = logging.getLogger(__name__)

_FEWEST_FRAMES = 3  # in which bones can show how long they are

SYNTHETIC = "synthetic:"
_MADE = (SYNTHETIC, GLTF)  # what scenes that are made on the spot are named by


def build_run_renderer(config: ExperimentConfig, device: str | None = None) -> Renderer:
    """The renderer that the configuration names, on a device other than the one it names, if that is given.

    Raises:
        InputError: It cannot work on this machine.
    """
    chosen = config.renderer
    try:
        renderer = build_renderer(chosen.kind, chosen.threads, device or chosen.device)
    except RendererUnavailableError as error:
        raise InputError("renderer.kind", str(error), "or let renderer.kind=auto choose") from error
    except ValueError as error:
        raise InputError("renderer", str(error), "or let renderer.device=auto choose") from error
    return with_options(renderer, replace(renderer.options, antialiased=chosen.antialiased))


def renderer_of_fit(renderer: Renderer, normalisation: Normalisation) -> Renderer:
    """The renderer with the planes between which a scene lies."""
    return renderer if normalisation.depth_range is None else between_planes(renderer, *normalisation.depth_range)


@contextmanager
def _keys_below_priors() -> Iterator[None]:
    """Errors about settings of the priors name them as an experiment file does."""
    try:
        yield
    except InputError as error:
        if str(error.where).split(".")[0] not in PriorsConfig.__dataclass_fields__:
            raise
        remedy = f"{error.remedy}; all these keys stand below priors"
        raise InputError(f"priors.{error.where}", error.what, remedy) from error


def build_scene(config: ExperimentConfig, renderer: Renderer) -> Scene:
    """The scene that `config.scene` names, at the size of the fit, with the keypoints that the fit uses; all frames.

    Detections that are to be found are found, where they were not found before, in the images as large as they are.
    """
    priors = replace(config.priors, progress_bar=config.priors.progress_bar and config.trainer.progress_bar)
    found = config.detections.source is DetectionsSource.FOUND
    size = None if found and not config.scene.startswith(_MADE) else config.size
    scene = in_world(_whole_scene(config.scene, size, priors, renderer), config.world)
    if found:
        with _keys_below_priors():
            scene = redetected(scene, priors)
    if size is None:
        scene = scene.resized(config.size)
    scene = with_videos(scene, config.frames)
    if not config.frames.ring:
        scene = without_ring(scene)
    if config.frames.textureless:
        scene = without_texture(scene)
    keypoints = add_noise(scene.keypoints, config.detections, config.seed)
    scene = replace(scene, keypoints=choose_keypoints(keypoints, config.keypoints))
    if not config.motion.path:
        return scene
    return unseen_motion(scene, config.motion.frames or len(read_motion(config.motion).positions))


def _whole_scene(name: str, size: int | Size | None, priors: PriorsConfig, renderer: Renderer) -> Scene:
    """A character made on the spot, a scene on disk, or an image or a video, prepared where it was not before."""
    if size is not None and name.startswith(_MADE):
        renderer = with_options(renderer, RasterOptions())  # a truth that is the same whatever the rules of the fit
        if name == SYNTHETIC + ROOM:
            return make_room(renderer, size)
        if isinstance(size, Size):
            raise InputError("image_size", f"{size}: made characters are seen in squares", "give one number")
        if name.startswith(GLTF):
            return make_gltf_scene(name, size)
        character, _, frames = name.removeprefix(SYNTHETIC).partition("#")
        if not frames:
            return make_scene(character, renderer, size=size)
        if not (frames.isascii() and frames.isdigit()):
            what = f"{frames!r} is no number of frames"
            raise InputError(name, what, f"write {SYNTHETIC}{character}#120, or leave it away")
        return make_scene(character, renderer, size=size, frames=int(frames), cycle=FRAMES)
    path = Path(name)
    if find_reader(path) is None and is_clip(path):
        with _keys_below_priors():
            folder = prepared_scene(priors, path)
        return replace(load_scene(folder, size), name=path.resolve().stem)
    return load_scene(path, size)


def settle_run_guidance(config: ExperimentConfig) -> GuidanceConfig:
    """Look for the diffusion model of the guidance before the scene is built, which may take hours.

    Returns:
        The settings of the guidance, with its kind settled.

    Raises:
        InputError: The model is not there.
    """
    if not _guided_stages(config.guidance):
        return config.guidance
    settled = replace(config.guidance, kind=settle_noise_model(config.guidance))
    if settled.kind is not GuidanceKind.NONE:
        find_noise_model(settled)
    return settled


def _guided_stages(guidance: GuidanceConfig) -> list[str]:
    weights = {StaticStage.name: guidance.static.weight, DynamicStage.name: guidance.dynamic.weight}
    return [name for name, weight in weights.items() if weight > 0 and guidance.kind is not GuidanceKind.NONE]


def build_run_guidance(
    guidance: GuidanceConfig,
    scene: Scene,
    normalisation: Normalisation,
    seed: int,
    device: torch.device,
    cache: PriorCache,
) -> dict[str, Guidance]:
    """What judges views that the scene does not show, by the name of the stage; only for stages that have it.

    Args:
        guidance: Settings, with the kind settled.
        scene: At the resolution of the fit, normalised.
        normalisation: From the scene's world, where +Y is up.
        seed: Of what is drawn at random.
        device: Where the fit computes; the diffusion model computes on a GPU where there is one.
        cache: Keeps what the diffusion model makes of the input.

    Raises:
        InputError: The diffusion model is not there.
    """
    reference = scene.reference
    frames = {StaticStage.name: 1, DynamicStage.name: len(reference)}
    settings = {StaticStage.name: guidance.static, DynamicStage.name: guidance.dynamic}
    guided = _guided_stages(guidance)
    if not guided:
        return {}
    told = reference[: max(frames[name] for name in guided)]
    elevation = guidance.reference_elevation
    if elevation is None:
        up = normalisation.rotation[:, 1].float()
        rising = float(reference.cameras.viewmats[0, 2, :3] @ up)  # how much of its line of sight goes upwards
        elevation = -math.degrees(math.asin(max(-1.0, min(1.0, rising))))
    model = build_noise_model(guidance, told.composited(torch.ones(3)), elevation, networks_device(), cache)
    around = [reference.cameras] if scene.ring is None else [reference.cameras, scene.ring.cameras]
    center, cameras = looked_at(around).to(device), reference.cameras.to(device)
    return {
        name: Guidance(
            model,
            settings[name],
            cameras[: frames[name]],
            reference.times[: frames[name]].to(device),
            center,
            elevation,
            seed,
        )
        for name in guided
    }


def build_run_representation(config: ExperimentConfig, gaussians: GaussianModel, windows: int = 1) -> Representation:
    """The representation of a run before its motion is fitted, around the Gaussians of the static stage.

    Args:
        config: Of the run.
        gaussians: Shared, not copied.
        windows: Into how many a long clip is cut.

    Raises:
        InputError: The settings describe none.
    """
    generator = torch.Generator().manual_seed(config.seed)
    if windows > 1 and config.representation.kind is not RepresentationKind.SPACETIME:
        what = "only Gaussians in space and time are fitted window by window"
        raise InputError("dynamic.data.windows.frames", what, "set it to 0, or representation.kind=spacetime")
    try:
        return build_representation(
            config.representation, config.deformation, gaussians, config.kfc.temperature, generator, windows
        )
    except ValueError as error:
        raise InputError("deformation", str(error), "correct its settings") from error


def show_video(run: "RunInputs", representation: Representation) -> None:
    """Let a motion that asks for it watch the reference video, by features that are kept in the cache."""
    if run.watching is None:
        return
    video, provider = run.scene.reference, run.watching
    bench = Workbench(run.priors, run.config.trainer.progress_bar)
    found = bench.run(provider, {"video": video.images}, lambda: {"maps": provider(video.images)})
    representation.watch(VideoFeatures(found["maps"], video.times))


def build_run_depth(config: ExperimentConfig, scene: Scene, cache: PriorCache) -> Depth | None:
    """What a prior knows of the depth of the reference video; None where there is none or no loss asks for it.

    Args:
        config: Of the run.
        scene: At the resolution of the fit.
        cache: Keeps what a network says.

    Raises:
        InputError: What was asked for is not there or is damaged.
    """
    chosen, path = config.depth, Path(config.scene)
    if chosen.weight <= 0:
        return None
    choice = decide_depth(chosen, path if find_reader(path) else None, networks_device())
    _log.info("depth: %s (%s)%s", choice.kind, choice.why, "" if choice.provider else ": its loss is off")
    video, provider = scene.reference.images, choice.provider
    if provider is None:
        return None
    if isinstance(provider, SuppliedFiles):
        found = read_depth(provider.path, scene, inverse=chosen.measure is DepthMeasure.INVERSE)
        flipped = replace(found, depth=found.depth.flip(2), weights=found.weights.flip(2))
        return flipped if config.world.mirrored else found
    bench = Workbench(cache, config.trainer.progress_bar)
    return bench.depth(provider, video)


def build_run_features(config: ExperimentConfig, scene: Scene) -> FlowFeatures:
    """What a motion that watches the reference video sees of it.

    Args:
        config: Of the run.
        scene: With all frames, at the resolution of the fit.

    Raises:
        InputError: What was asked for is not there or is damaged.
    """
    choice = decide_flow_features(config.flow_features)
    _log.info("flow features: %s (%s)", choice.kind, choice.why)
    if not isinstance(choice.provider, SuppliedFiles):
        return FlowFeatures(choice.provider)
    maps = read_feature_maps(choice.provider.path, scene)[seen_frames(scene, config.frames)]
    return FlowFeatures(DisAndMaps(maps.flip(3) if config.world.mirrored else maps))


def place_run_representation(run: "RunInputs", representation: Representation) -> None:
    """Let a representation that asks for it start where the scene shows something at each time."""
    generator = torch.Generator().manual_seed(run.config.seed)
    representation.place(run.scene, run.config.gaussians, generator)


@dataclass(frozen=True)
class RunInputs:
    """Everything that a fit starts from.

    Attributes:
        config: Of the run.
        protocol: What is measured at its end.
        renderer: Draws the Gaussians.
        background: Colour behind them.
        whole_scene: What is measured and shown, in its own world.
        normalisation: From that world to the axes and units of the fit.
        scene: What the stages see, normalised: perhaps fewer frames, and only keypoints that the model can carry.
        gaussians: Before any training, with keypoint features.
        far_side: What adds the far side to them in and after the static stage; None where they have it.
        skeleton: Between the keypoints.
        motion: What moves the keypoints in place of a motion that is fitted, in units of its own; mostly None.
        guidance: What judges views that the scene does not show, by the name of the stage.
        priors: Where the results of providers are kept.
        watching: What a motion that watches the video sees of it; None where none does.
        static_data: Batches of the static stage.
        dynamic_data: Batches of the dynamic stage.
        carry_data: Batches of the stage before it in which a deformation carries the Gaussians; None where none does.
        refine_data: Batches of the refine stage.
    """

    config: ExperimentConfig
    protocol: Protocol
    renderer: Renderer
    background: Float[Tensor, " 3"]
    whole_scene: Scene
    normalisation: Normalisation
    scene: Scene
    gaussians: GaussianModel
    far_side: MirroredFarSide | None
    skeleton: Skeleton
    motion: Motion | None
    guidance: Mapping[str, Guidance]
    priors: PriorCache
    watching: FlowFeatures | None
    static_data: StaticDataModule
    dynamic_data: DynamicDataModule
    refine_data: RefineDataModule
    carry_data: DynamicDataModule | None


def build_run(
    config: ExperimentConfig, normalisation: Normalisation | None = None, device: str | None = None
) -> RunInputs:
    """Get everything ready that a wrong request can break, so that it breaks before the first step.

    Args:
        config: Of the run.
        normalisation: That of the run to go on with; the one that the scene asks for when None.
        device: Where to compute; what `config.renderer.device` says when None.

    Raises:
        InputError: The configuration or the scene is wrong.
    """
    protocol = get_protocol(config.evaluation.protocol, config.evaluation.metrics)
    renderer = build_run_renderer(config, device)
    background = torch.tensor(config.background, device=renderer.device)
    judged = settle_run_guidance(config)
    whole_scene = build_scene(config, renderer)
    if whole_scene.test is not None:
        view_grid(whole_scene.test)  # the metrics need complete videos
    motion = build_run_motion(config, whole_scene)
    normalisation = normalisation or normalisation_of(whole_scene)
    renderer = renderer_of_fit(renderer, normalisation)
    priors = PriorCache(config.priors.cache)
    with_depth = replace(whole_scene, depth=build_run_depth(config, whole_scene, priors))
    seen = normalisation.scene(choose_frames(with_depth, config.frames))
    guidance = build_run_guidance(judged, seen, normalisation, config.seed, renderer.device, priors)
    gaussians, far_side, start = build_run_gaussians(config, seen, normalisation)
    scene, skeleton = seed_run_keypoints(config, seen, gaussians)
    gaussians = gaussians.to(renderer.device)
    near = gaussians.state().detach()
    if not seen.backdrop:  # points are anywhere in a place, and its images have no matte
        warn_of_little_overlap(renderer, near if far_side is None else far_side.completed(near), seen.reference, start)
    check_neighbours(config, len(gaussians))
    watches = build_run_representation(config, gaussians, windows_of(config, scene)).wants_video
    behind, seed = background.cpu(), config.seed
    return RunInputs(
        config,
        protocol,
        renderer,
        background,
        whole_scene,
        normalisation,
        scene,
        gaussians,
        far_side,
        skeleton,
        motion,
        guidance,
        priors,
        build_run_features(config, whole_scene) if watches else None,
        static_data=StaticDataModule(scene, config.static.data, behind, seed),
        dynamic_data=_dynamic_data(config, scene, behind),
        refine_data=RefineDataModule(scene, config.refine.data, behind, seed),
        carry_data=_dynamic_data(carrying(config), scene, behind) if is_carried(config) else None,
    )


def _dynamic_data(config: ExperimentConfig, scene: Scene, background: Float[Tensor, " 3"]) -> DynamicDataModule:
    return DynamicDataModule(
        scene,
        config.dynamic.data,
        background,
        config.seed,
        paired=config.wgf.weight > 0,
        rests_first=_rests_first(config),
        steps=config.dynamic.steps,
    )


def is_carried(config: ExperimentConfig) -> bool:
    """Whether a deformation moves the Gaussians before they are cut into pieces along time."""
    chosen = config.representation
    of_frame_0 = chosen.kind is RepresentationKind.SPACETIME and chosen.spacetime.init is SpacetimeInit.LIFT
    return of_frame_0 and chosen.spacetime.carry_steps > 0


def carrying(config: ExperimentConfig) -> ExperimentConfig:
    """The configuration of the deformation that carries them: of frozen Gaussians, all times at once."""
    data = replace(config.dynamic.data, windows=WindowsConfig())
    density = DensityConfig(DensityKind.NONE)
    steps = config.representation.spacetime.carry_steps
    dynamic = replace(config.dynamic, steps=steps, gaussian_rates=0.0, density=density, data=data)
    return replace(config, representation=RepresentationConfig(), dynamic=dynamic)


def windows_of(config: ExperimentConfig, scene: Scene) -> int:
    """Into how many windows the clip is cut."""
    return len(config.dynamic.data.windows.of(len(scene.reference)))


def build_run_motion(config: ExperimentConfig, scene: Scene) -> Motion | None:
    """The motion that moves the keypoints of a scene in place of one that is fitted; None where there is none.

    Raises:
        InputError: The scene has no keypoints, or the file cannot be read or has other joints.
    """
    if not config.motion.path:
        return None
    if scene.keypoints is None:
        raise InputError("motion.path", f"{scene.name} has no keypoints to move", "give some: priors.keypoints.path")
    return read_motion(config.motion).of(scene.keypoints.names, config.motion.path, config.motion.names)


def _rests_first(config: ExperimentConfig) -> bool:
    """Whether nothing that the dynamic stage fits moves at time 0."""
    canonical = config.representation.kind is RepresentationKind.CANONICAL
    return canonical and config.deformation.rests_first and config.dynamic.gaussian_rates == 0


def build_run_gaussians(
    config: ExperimentConfig, scene: Scene, normalisation: Normalisation
) -> tuple[GaussianModel, MirroredFarSide | None, InitKind]:
    """The Gaussians before any training, in a scene that is normalised; a point cloud that is read is not.

    Returns:
        The Gaussians; what adds their far side, where they are the near side alone; where they start.
    """
    first = static_references(scene).images
    views = first if bool((first.frames == 0).all()) else None  # other moments would carve the moving parts away
    chosen = config.gaussians
    if config.static.density.kind is DensityKind.ADAPTIVE:  # it counts the Gaussians that are drawn
        chosen = replace(chosen, far_side=FarSide.FREE)
    cameras = None if views is None else views.cameras
    start = settled_init(chosen.init, cameras, scene.points)
    middle = _middle(config, scene) if start is InitKind.INFLATED else None
    images = None if views is None else views.images
    model = build_gaussians(
        chosen,
        cameras,
        images,
        0 if scene.keypoints is None else len(scene.keypoints.names),
        torch.Generator().manual_seed(config.seed),
        normalisation.points,
        middle,
        scene.points,
    )
    return model, far_side_of(replace(chosen, init=start), cameras, images, middle), start


def _middle(config: ExperimentConfig, scene: Scene) -> Float[Tensor, "H W"] | None:
    """Depths of the surface about which the only view is inflated; None for the plane that faces the camera."""
    keypoints, video = scene.keypoints, scene.reference
    if config.gaussians.middle is Middle.PLANE or keypoints is None:
        return None
    if int((keypoints.weights > 0).any(1).sum()) < _FEWEST_FRAMES:
        return None
    if scene.ring is not None:  # what is inflated then is a view of the ring, and no frame of the video
        return None
    parents = torch.tensor(keypoints.parents)
    if not bool((parents >= 0).any()) or not bool((keypoints.weights[0] > 0).any()):
        return None
    camera = video.cameras[0]
    uv, depths = first_depths(
        keypoints.uv,
        keypoints.weights,
        video.times,
        parents,
        torch.tensor(other_sides(keypoints.names)),
        camera,
        float(camera.viewmats[0, 2, 3]),
        step_generator(config.seed, "first depths", 0),
    )
    spread = float((depths - depths.mean()).abs().max())
    _log.info("first frame: by the tracks of the video, keypoints are up to %.2g before or behind their mean", spread)
    return depths_of_bones(uv, depths, parents, camera.width, camera.height)


def seed_run_keypoints(config: ExperimentConfig, scene: Scene, gaussians: GaussianModel) -> tuple[Scene, Skeleton]:
    """Seed the keypoint features of `gaussians`; the scene with the keypoints that they can carry, and their bones."""
    if scene.keypoints is None:
        nothing = torch.zeros(0, dtype=torch.int64)
        return scene, Skeleton(nothing.bool(), nothing, torch.zeros(0, 3))
    keypoints = reconcile_views(scene.keypoints, scene.ring)
    skeleton = seed_keypoints(gaussians, scene.ring, keypoints, config.kfc, scene.reference.cameras[0])
    # a keypoint that no view of frame 0 shows has no place on the model: no loss may ask for it later
    used = replace(keypoints, weights=keypoints.weights * skeleton.known)
    return replace(scene, keypoints=used), skeleton


def check_neighbours(config: ExperimentConfig, count: int) -> None:
    """See that there are more Gaussians than each has neighbours.

    Raises:
        InputError: There are not.
    """
    rigidity = config.rigidity
    if rigidity.weight > 0 and rigidity.neighbours >= count:
        what = f"{rigidity.neighbours} neighbours of each Gaussian, but there are only {count} Gaussians"
        raise InputError("rigidity.neighbours", what, "lower it, or set rigidity.weight=0")
