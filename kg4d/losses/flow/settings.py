"""Settings of `kg4d.losses.flow`: plain data that is checked before torch is loaded."""

from dataclasses import dataclass, field
from enum import StrEnum
from importlib.util import find_spec

from kg4d.ot.settings import ContributorWeights, PlanConfig, PlanSolver


class FlowSource(StrEnum):
    """Where the reference motion of a keypoint comes from."""

    DENSE = "dense"  # the dense flow, sampled at the keypoint
    KEYPOINTS = "keypoints"  # the difference of the keypoint's positions


class WgfVariant(StrEnum):
    """Which form of the loss. A configuration names it by its letter or by its word; a run folder shows the letter.

    A mixture is the set of Gaussians around a pixel; equations are in `kg4d.losses.flow.variants`.

    ====== =================== =========================================================================================
    letter word                what the loss asks for
    ====== =================== =========================================================================================
    a      offset              the mean offset of a mixture is the flow (KG4D eq. 10-11): translation only
    a+d    offset_and_paired   `a` at the keypoints; `d` there and at random pixels
    b      pixel               the model's own flow at a pixel is the flow (GaussianFlow)
    c      centres             each centre follows the flow at its position
    d      paired              each Gaussian is its image under the flow and its Jacobian: rotation and scale too
    e      mixture             the set of Gaussians is the set of these images, by optimal transport
    f      relaxed_offset      `a` by unbalanced transport: what appears or disappears does not count
    g      barycentric         where the transport plan sends each centre on average follows the flow
    x      distance            the distance between mixtures is the length of the flow: blind to direction, a comparison
    ====== =================== =========================================================================================
    """

    OFFSET = "a"
    OFFSET_AND_PAIRED = "a+d"
    PIXEL = "b"
    CENTRES = "c"
    PAIRED = "d"
    MIXTURE = "e"
    RELAXED_OFFSET = "f"
    BARYCENTRIC = "g"
    DISTANCE = "x"


BY_GAUSSIAN = {  # read the flow at each Gaussian's centre
    WgfVariant.OFFSET_AND_PAIRED,
    WgfVariant.CENTRES,
    WgfVariant.PAIRED,
    WgfVariant.MIXTURE,
    WgfVariant.BARYCENTRIC,
}


DENSE = BY_GAUSSIAN | {WgfVariant.PIXEL}  # use random pixels


SAME_GAUSSIANS = DENSE - {WgfVariant.MIXTURE, WgfVariant.BARYCENTRIC}  # pair each Gaussian with itself


class ContributorSelection(StrEnum):
    """Which Gaussians make up the mixture at the later time."""

    TRACKED = "tracked"  # those of the earlier time
    FRESH = "fresh"  # those found at the pixel displaced by the flow, as KG4D words it: satisfied without any motion


@dataclass
class WgfConfig:
    """The flow loss.

    Attributes:
        weight: Factor of the loss; 0 switches it off.
        variant: Form of the loss, by its letter or its word (`WgfVariant`).
        paired_weight: Weight of the part d of variant a+d, relative to `weight`.
        contributors: Gaussians looked up at each pixel (K).
        selection: Which Gaussians make up the mixture at the later time; a+d, b, c and d need `tracked`.
        mixture: How contributors are weighted inside a mixture.
        isotropic: Take each projected covariance as a disc of equal trace (KG4D section 4.3); in b take B_k = 1.
        flow: Where the motion of the keypoints comes from; without a dense flow it is `keypoints`.
        at_keypoints: Look at the pixels of the keypoints; if false, only at random ones.
        random_pixels: Further pixels with a known flow that are drawn per pair, for a+d, b, c, d, e and g.
        explicit_plan: In variant a compute eq. 10 from the plan, as printed; the value is the same.
        plan: Transport plans of e, f, g, x and `explicit_plan`; f is unbalanced whatever the solver.
        warmup: Fraction of the stage over which the weight grows from 0.
    """

    weight: float = 100.0
    variant: WgfVariant = WgfVariant.OFFSET_AND_PAIRED
    paired_weight: float = 0.5
    contributors: int = 20
    selection: ContributorSelection = ContributorSelection.TRACKED
    mixture: ContributorWeights = ContributorWeights.CONTRIBUTION
    isotropic: bool = False
    flow: FlowSource = FlowSource.DENSE
    at_keypoints: bool = True
    random_pixels: int = 64
    explicit_plan: bool = False
    plan: PlanConfig = field(default_factory=PlanConfig)
    warmup: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what cannot be computed.

        Raises:
            ValueError: Two settings contradict each other, or one is out of range; the message begins with the key.
        """
        if self.selection is ContributorSelection.FRESH and self.variant in SAME_GAUSSIANS:
            raise ValueError(
                f"wgf.selection: variant {self.variant} pairs each Gaussian with itself, so it is `tracked`"
            )
        if self.plan.solver is PlanSolver.EXACT and find_spec("ot") is None:
            raise ValueError('wgf.plan.solver: `exact` needs POT: pip install "kg4d[exact]"')
        for key, value in {"epsilon": self.plan.epsilon, "relaxation": self.plan.relaxation}.items():
            if not value > 0:
                raise ValueError(f"wgf.plan.{key}: must be positive, not {value}")
        if self.plan.iterations < 1:
            raise ValueError(f"wgf.plan.iterations: must be at least 1, not {self.plan.iterations}")
