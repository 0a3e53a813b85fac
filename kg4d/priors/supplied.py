"""What a person supplied about an input, read and checked before anything is computed."""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from kg4d.data.records import Flow, Keypoints
from kg4d.data.videos import Clip
from kg4d.priors.build import PriorsConfig
from kg4d.priors.files import GivenFiles, read_flow_of, read_tracks_of, read_views
from kg4d.priors.keypoints.clicked import click_keypoints
from kg4d.priors.keypoints.marked import KeypointsKind, SupportKeypoints, read_support
from kg4d.priors.plan import Plan


class Given(NamedTuple):
    """What a person supplied, in pixels of their files."""

    support: SupportKeypoints | None  # keypoints of the first frame
    tracks: Keypoints | None  # keypoints of all frames
    views: Float[Tensor, "R H W 4"] | None
    flow: Flow | None


def read_given(
    config: PriorsConfig, plan: Plan, clip: Clip, shown: Callable[[], Float[Tensor, "height width 4"]]
) -> Given:
    """Read the files that the plan names; where keypoints are to be clicked, that happens here.

    Args:
        config: Who makes what, as asked for.
        plan: Who makes what, as decided.
        clip: The input.
        shown: Gives the image that keypoints are clicked on; it must have been matted.

    Raises:
        InputError: A file does not fit the input, or is unreadable.
    """
    height, width = clip.frames.shape[1:3]
    support = tracks = views = flow = None
    if isinstance(plan.views.provider, GivenFiles):
        views = read_views(plan.views.provider.path, len(config.views.azimuths))
    if isinstance(plan.flow.provider, GivenFiles):
        flow = read_flow_of(plan.flow.provider.path, clip)
    if isinstance(plan.keypoints.provider, GivenFiles):
        path = plan.keypoints.provider.path
        if path.suffix == ".npz":
            tracks = read_tracks_of(path, clip, None if views is None else len(views))
        else:
            support = read_support(path, width, height)
    elif plan.keypoints.kind == KeypointsKind.CLICK.value:
        assert config.keypoints.path is not None  # checked when it was planned
        support = click_keypoints(shown(), config.keypoints.path, config.keypoints.port)
    return Given(support, tracks, views, flow)
