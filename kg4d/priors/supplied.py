"""What a person supplied about an input, read and checked before anything is computed."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from kg4d.data.records import Flow, Keypoints
from kg4d.data.videos import Clip
from kg4d.priors.files import SuppliedFiles, read_flow_of, read_tracks_of, read_views
from kg4d.priors.keypoints.marked import SupportKeypoints
from kg4d.priors.keypoints.pose_files.poses import Poses, of_clip
from kg4d.priors.keypoints.pose_files.read import read_keypoint_file
from kg4d.priors.plan import Plan
from kg4d.priors.settings import PriorsConfig


class Supplied(NamedTuple):
    """What a person supplied; None where they supplied nothing. All pixel positions are pixels of their files."""

    support: SupportKeypoints | None = None  # keypoints of the first frame
    poses: Poses | None = None  # of one or several individuals, in the first frame or in all
    tracks: Keypoints | None = None  # keypoints of all frames
    views: Float[Tensor, "R H W 4"] | None = None
    flow: Flow | None = None


def read_supplied(config: PriorsConfig, plan: Plan, clip: Clip) -> Supplied:
    """Read the files that the plan names.

    Args:
        config: The settings, as asked for.
        plan: Which provider makes what, as decided.
        clip: The input.

    Raises:
        InputError: A file does not fit the input, or is unreadable.
    """
    height, width = clip.frames.shape[1:3]
    support = poses = tracks = views = flow = None
    if isinstance(plan.views.provider, SuppliedFiles):
        views = read_views(plan.views.provider.path, len(config.views.azimuths))
    if isinstance(plan.flow.provider, SuppliedFiles):
        flow = read_flow_of(plan.flow.provider.path, clip)
    if isinstance(plan.keypoints.provider, SuppliedFiles):
        path = plan.keypoints.provider.path
        if path.suffix == ".npz":
            tracks = read_tracks_of(path, clip, None if views is None else len(views))
        else:
            found = read_keypoint_file(path, width, height)
            support, poses = (None, of_clip(found, clip, path)) if isinstance(found, Poses) else (found, None)
    return Supplied(support, poses, tracks, views, flow)
