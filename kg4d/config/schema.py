"""The configuration of an experiment as one typed tree, composed of the packages' own dataclasses."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from kg4d.data.sizes import Size
from kg4d.data.studies.settings import DetectionsConfig, FramesConfig, KeypointsConfig, WorldConfig
from kg4d.deform.settings import DeformationConfig, DeformationKind
from kg4d.formats.settings import ExportConfig, MotionConfig
from kg4d.gaussians.settings import GaussiansConfig
from kg4d.geometry.degrees import MOST_DEGREE
from kg4d.lift.settings import LiftConfig
from kg4d.losses.flow.settings import WgfConfig
from kg4d.losses.settings import BonesConfig, CoverageConfig, DepthLossConfig, KfcConfig, RigidityConfig, SdsConfig
from kg4d.optim.settings import OptimizerConfig
from kg4d.priors.diffusion.settings import NoiseModelConfig
from kg4d.priors.settings import DepthPriorConfig, FlowFeaturesConfig, PriorsConfig
from kg4d.render.settings import RendererConfig
from kg4d.representation.settings import RepresentationConfig, RepresentationKind
from kg4d.stages.settings import DensityKind, DynamicConfig, RefineConfig, StaticConfig, TrainerConfig
from kg4d.tracking.settings import TrackingConfig
from kg4d.utils.names import is_folder_name


@dataclass
class EvaluationConfig:
    """Which metrics are computed at the end of a run.

    Attributes:
        protocol: Name of the protocol.
        networks: Also compute metrics that need network weights (LPIPS, FVD), if the cache holds the weights.
        metrics: Keys of the protocol's metrics to compute; empty computes all. The metrics of training frames,
            keypoints and flow cost next to nothing and are always computed.
        keep_features: Keep what the video network says of true videos in the cache folder, at most 64 MiB, and take it
            from there.
    """

    protocol: str = "gltf4d"
    networks: bool = True
    metrics: list[str] = field(default_factory=list)
    keep_features: bool = True


@dataclass
class GuidanceConfig(NoiseModelConfig):
    """Score distillation of views that the input does not show.

    Attributes:
        static: Settings in the static stage.
        dynamic: Settings in the dynamic stage, where it is off by default (weight 0).
    """

    static: SdsConfig = field(default_factory=SdsConfig)
    dynamic: SdsConfig = field(default_factory=lambda: SdsConfig(weight=0.0))


@dataclass
class DepthConfig(DepthLossConfig, DepthPriorConfig):
    """Depth of the reference video, from a prior, and the loss that compares it with what is drawn."""


@dataclass
class ExperimentConfig:
    """One experiment.

    Attributes:
        name: Name of the experiment, for the run folder and the group in W&B.
        seed: Seed of the run.
        seeds: Seeds to run; only `seed` if empty.
        output: Folder above the run folders, or an fsspec URL such as `s3://bucket/runs`: runs are then worked on in
            the cache folder, copied there at every checkpoint, and fetched from there with `--resume`.
        scene: A scene folder, `synthetic:<character>`, `synthetic:room`, `gltf:<file>#<clip>@<frames>`, or an image, a
            video or a folder of frames, which is prepared first.
        scenes: Scenes to run, written as `scene` is, or as NAME=SCENE; only `scene` if empty. Run folders then have the
            scene's name above the variant.
        world: The world of the scene turned, scaled or mirrored; no result may depend on it.
        priors: How an image or a video is prepared.
        detections: Whether keypoints and flow of a scene folder are used as they are, detected again, or made noisy.
        keypoints: Which keypoints of the scene are used.
        frames: Which frames of the reference video are used, and how.
        motion: A motion from a file, in place of that of the reference video.
        image_size: Longer side of the images in the fit, px; or width and height, such as [480, 270]: images of another
            shape are stretched, and their cameras with them.
        background: Colour behind the object, RGB in [0, 1].
        renderer: Which renderer.
        gaussians: The initial Gaussians.
        static: The static stage.
        dynamic: The dynamic stage.
        refine: The refine stage.
        representation: How moving Gaussians are represented.
        deformation: What moves the Gaussians of frame 0.
        optimizer: The optimizer of the stages.
        lift: Lifting the keypoints of the reference video to 3D, before anything is rendered.
        kfc: Keypoint Feature Calibration.
        wgf: The flow loss.
        rigidity: Local rigidity of the motion.
        bones: Constant bone lengths.
        coverage: Projected centres spread over the mattes, in the dynamic stage.
        depth: Depth of the reference video from a prior, in the static stage where that sees the video, and in the
            dynamic stage.
        flow_features: What a motion that watches the reference video sees of it.
        guidance: Score distillation by a diffusion model.
        evaluation: Which metrics are computed.
        export: What is exported.
        tracking: Logs and W&B.
        trainer: Lightning's Trainer, checkpoints, previews.
        variants: Name of each variant, and its overrides.
    """

    RENAMED: ClassVar[dict[str, str]] = {
        "dynamic.learning_rate": "deformation.learning_rate",
        "dynamic.grid_learning_rate": "deformation.hexplane.learning_rate",
        "dynamic.place_learning_rate": "deformation.skinned.translation_learning_rate",
        "dynamic.rotation_learning_rate": "deformation.skinned.rotation_learning_rate",
        "dynamic.light_learning_rate": "deformation.skinned.light_learning_rate",
        "dynamic.share_learning_rate": "deformation.skinned.weight_learning_rate",
        "handles": "deformation.skinned.handles",
        "arap": "deformation.control_points.arap",
    }  # old keys that files may still use
    PAIRS: ClassVar[tuple[str, ...]] = ("image_size",)

    ELSEWHERE: ClassVar[dict[str, str]] = {"sweep": "is for python -m kg4d.sweep"}  # blocks that others read

    name: str = "experiment"
    seed: int = 0
    seeds: list[int] = field(default_factory=list)
    output: str = "runs"
    scene: str = "synthetic:walker"
    scenes: list[str] = field(default_factory=list)
    world: WorldConfig = field(default_factory=WorldConfig)
    priors: PriorsConfig = field(default_factory=PriorsConfig)
    detections: DetectionsConfig = field(default_factory=DetectionsConfig)
    keypoints: KeypointsConfig = field(default_factory=KeypointsConfig)
    frames: FramesConfig = field(default_factory=FramesConfig)
    motion: MotionConfig = field(default_factory=MotionConfig)
    image_size: Any = 256  # OmegaConf knows no union with a list; `size` is what it means
    background: list[float] = field(default_factory=lambda: [1.0, 1.0, 1.0])
    renderer: RendererConfig = field(default_factory=RendererConfig)
    gaussians: GaussiansConfig = field(default_factory=GaussiansConfig)
    static: StaticConfig = field(default_factory=StaticConfig)
    dynamic: DynamicConfig = field(default_factory=DynamicConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    representation: RepresentationConfig = field(default_factory=RepresentationConfig)
    deformation: DeformationConfig = field(default_factory=DeformationConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    lift: LiftConfig = field(default_factory=LiftConfig)
    kfc: KfcConfig = field(default_factory=KfcConfig)
    wgf: WgfConfig = field(default_factory=WgfConfig)
    rigidity: RigidityConfig = field(default_factory=RigidityConfig)
    bones: BonesConfig = field(default_factory=BonesConfig)
    coverage: CoverageConfig = field(default_factory=CoverageConfig)
    depth: DepthConfig = field(default_factory=DepthConfig)
    flow_features: FlowFeaturesConfig = field(default_factory=FlowFeaturesConfig)
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    variants: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the ranges of settings.

        Raises:
            ValueError: A value is out of range; the message begins with its key.
        """
        self._check_maxima()
        self._check_representation()
        self._check_motion()
        minima = {
            "image_size": (min(self._sides), 16),
            "gaussians.count": (self.gaussians.count, 1),
            "gaussians.hull_resolution": (self.gaussians.hull_resolution, 2),
            "static.steps": (self.static.steps, 0),
            "dynamic.steps": (self.dynamic.steps, 0),
            "refine.steps": (self.refine.steps, 0),
            "export.fps": (self.export.fps, 1),
            "renderer.threads": (1 if self.renderer.threads is None else self.renderer.threads, 1),
            "deformation.depth": (self.deformation.depth, 1),
            "deformation.width": (self.deformation.width, 1),
            "rigidity.neighbours": (self.rigidity.neighbours, 1),
            "rigidity.samples": (self.rigidity.samples, 1),
            "deformation.control_points.arap.neighbours": (self.deformation.control_points.arap.neighbours, 1),
            "wgf.contributors": (self.wgf.contributors, 1),
            "depth.pairs": (self.depth.pairs, 1),
            "wgf.random_pixels": (self.wgf.random_pixels, 0),
        }
        for key, (value, minimum) in minima.items():
            if value < minimum:
                raise ValueError(f"{key}: must be at least {minimum}, not {value}")
        self.static.density.check("static.density")
        self.dynamic.density.check("dynamic.density")
        if self.dynamic.density.kind is not DensityKind.NONE and not self.dynamic.gaussian_rates > 0:
            raise ValueError("dynamic.density.kind: needs Gaussians that are trained: set dynamic.gaussian_rates=1")
        opacity = self.gaussians.initial_opacity
        if opacity is not None and not 0 < opacity < 1:
            raise ValueError(f"gaussians.initial_opacity: must lie between 0 and 1, not {opacity}")
        if not is_folder_name(self.name):
            raise ValueError(f"name: {self.name!r} cannot be a folder name, use letters, digits, _ and -")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed: must be from 0 to {2**32 - 1}, not {self.seed}")
        for key, positive in {
            "kfc.temperature": self.kfc.temperature,
            "kfc.seed_sigma": self.kfc.seed_sigma,
            "kfc.heatmap_scale": self.kfc.heatmap_scale,
        }.items():
            if not positive > 0:
                raise ValueError(f"{key}: must be positive, not {positive}")
        if len(self.background) != 3 or not all(0 <= channel <= 1 for channel in self.background):
            raise ValueError(f"background: must be three numbers in [0, 1], not {self.background}")

    @property
    def size(self) -> int | Size:
        """Of the images in the fit, px: the longer side, or width and height."""
        return Size(*self.image_size) if isinstance(self.image_size, list) else int(self.image_size)

    @property
    def _sides(self) -> list[int]:
        return self.image_size if isinstance(self.image_size, list) else [self.image_size]

    def _check_representation(self) -> None:
        """Gaussians in space and time have no rest from which a neighbourhood could be bent."""
        chosen = self.representation
        carried = chosen.spacetime.carry_steps > 0  # by a deformation, whose Gaussians last
        if chosen.kind is RepresentationKind.SPACETIME and self.rigidity.weight > 0 and not carried:
            what = "is of Gaussians that last, and those of representation.kind=spacetime come and go"
            raise ValueError(f"rigidity.weight: {what}: set it to 0, and representation.spacetime.consistency above 0")

    def _check_motion(self) -> None:
        """No image shows a motion that comes from a file, and only frames can be moved by it."""
        if not self.motion.path:
            return
        canonical = self.representation.kind is RepresentationKind.CANONICAL
        if not canonical or self.deformation.kind is not DeformationKind.SKINNED:
            raise ValueError("motion.path: needs Gaussians that follow keypoints: set deformation.kind=skinned")
        if self.dynamic.steps + self.refine.steps > 0:
            what = "no image shows that motion, so nothing can be fitted to it"
            raise ValueError(f"motion.path: {what}: set dynamic.steps=0 and refine.steps=0")

    def _check_maxima(self) -> None:
        """Beyond them is a slip of the hand, and all memory."""
        for key, (value, maximum) in {
            "image_size": (max(self._sides), 8192),
            "gaussians.count": (self.gaussians.count, 10**8),
            "gaussians.hull_resolution": (self.gaussians.hull_resolution, 1024),
            "gaussians.sh_degree": (self.gaussians.sh_degree, MOST_DEGREE),
        }.items():
            if value > maximum:
                raise ValueError(f"{key}: must be at most {maximum}, not {value}")
