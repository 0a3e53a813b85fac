"""The whole experiment as one typed tree: it composes the rooms' own dataclasses."""

from dataclasses import dataclass, field
from typing import ClassVar

from kg4d.data.studies.frame_subset import FramesConfig
from kg4d.data.studies.keypoint_subset import KeypointsConfig
from kg4d.data.studies.noisy_detections import DetectionsConfig
from kg4d.deform.build import DeformationConfig
from kg4d.formats.build import ExportConfig
from kg4d.gaussians.init import GaussiansConfig
from kg4d.lift.objective import LiftConfig
from kg4d.losses.flow.wgf import WgfConfig
from kg4d.losses.kfc import KfcConfig
from kg4d.losses.motion_priors import BonesConfig, RigidityConfig
from kg4d.losses.sds import SdsConfig
from kg4d.optim.build import OptimizerConfig
from kg4d.priors.build import PriorsConfig
from kg4d.priors.diffusion.noise_predictor import NoiseModelConfig
from kg4d.render.build import RendererConfig
from kg4d.representation.build import RepresentationConfig
from kg4d.stages.density import DensityControl
from kg4d.stages.dynamic import DynamicConfig
from kg4d.stages.refine import RefineConfig
from kg4d.stages.runner import TrainerConfig
from kg4d.stages.static import StaticConfig
from kg4d.tracking.tracker import TrackingConfig


@dataclass
class EvaluationConfig:
    """What is measured at the end of a run.

    Attributes:
        protocol: Name of the protocol.
        networks: Also compute what needs network weights (LPIPS, FVD), where the cache holds them.
        metrics: Keys of the protocol's metrics to compute; empty computes all. Those of training frames, keypoints
            and flow cost next to nothing and are always there.
    """

    protocol: str = "gltf4d"
    networks: bool = True
    metrics: list[str] = field(default_factory=list)


@dataclass
class GuidanceConfig(NoiseModelConfig):
    """Score distillation from views that the input does not show.

    Attributes:
        static: In the static stage.
        dynamic: In the dynamic stage, where it is off unless it is given a weight.
    """

    static: SdsConfig = field(default_factory=SdsConfig)
    dynamic: SdsConfig = field(default_factory=lambda: SdsConfig(weight=0.0))


@dataclass
class ExperimentConfig:
    """One experiment.

    Attributes:
        name: Of the experiment: names the run folder and the group in W&B.
        seed: Of this run.
        seeds: Seeds to run; just `seed` where empty.
        output: Folder above the run folders.
        scene: A scene folder, `synthetic:<character>`, or an image, a video or a folder of frames, which is prepared
            first.
        priors: How an image or a video is prepared.
        detections: Whether keypoints and flow of a scene folder are taken as they are, found again or disturbed.
        keypoints: Which keypoints of the scene are used.
        frames: Which frames of the reference video are used, and how.
        image_size: Side of the images that the fit works on, px.
        background: Colour behind the object, RGB in [0, 1].
        renderer: Which renderer.
        gaussians: The first Gaussians.
        static: The static stage.
        dynamic: The dynamic stage.
        refine: The refine stage.
        representation: What a moving set of Gaussians is.
        deformation: What moves the Gaussians of frame 0.
        optimizer: What takes the steps of the stages.
        lift: Keypoints of the reference video in 3D, before anything is rendered.
        kfc: Keypoint Feature Calibration.
        wgf: The flow loss.
        rigidity: Local rigidity of the motion.
        bones: Bones keep their length.
        guidance: Score distillation by a diffusion model.
        evaluation: What is measured.
        export: What is exported.
        tracking: Logs and W&B.
        trainer: Lightning's Trainer, checkpoints, previews.
        variants: Name of each variant and the overrides that make it.
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

    name: str = "experiment"
    seed: int = 0
    seeds: list[int] = field(default_factory=list)
    output: str = "runs"
    scene: str = "synthetic:walker"
    priors: PriorsConfig = field(default_factory=PriorsConfig)
    detections: DetectionsConfig = field(default_factory=DetectionsConfig)
    keypoints: KeypointsConfig = field(default_factory=KeypointsConfig)
    frames: FramesConfig = field(default_factory=FramesConfig)
    image_size: int = 256
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
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    variants: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse values that no run can start from.

        Raises:
            ValueError: One of them is out of range; the message begins with the key.
        """
        least = {
            "image_size": (self.image_size, 16),
            "gaussians.count": (self.gaussians.count, 1),
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
            "wgf.random_pixels": (self.wgf.random_pixels, 0),
        }
        for key, (value, bound) in least.items():
            if value < bound:
                raise ValueError(f"{key}: must be at least {bound}, not {value}")
        DensityControl(self.static.density, self.static.steps)
        opacity = self.gaussians.initial_opacity
        if opacity is not None and not 0 < opacity < 1:
            raise ValueError(f"gaussians.initial_opacity: must lie between 0 and 1, not {opacity}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed: must be from 0 to {2**32 - 1}, not {self.seed}")
        for key, share in {
            "kfc.temperature": self.kfc.temperature,
            "kfc.seed_sigma": self.kfc.seed_sigma,
            "kfc.heatmap_scale": self.kfc.heatmap_scale,
        }.items():
            if not share > 0:
                raise ValueError(f"{key}: must be positive, not {share}")
        if len(self.background) != 3 or not all(0 <= channel <= 1 for channel in self.background):
            raise ValueError(f"background: must be three numbers in [0, 1], not {self.background}")
