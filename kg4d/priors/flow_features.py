"""Feature maps of a video's motion, for deformations that watch it: flow of two scales both ways, and deep features.

Maps have an eighth of the images' size. A source tells both: OpenCV's DIS and VGG16, torchvision's RAFT for all, or DIS
and maps from files. Of more than 32 deep features principal components over the video are taken.
"""

import logging
from functools import cached_property
from typing import NamedTuple, Protocol, runtime_checkable

import cv2
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from kg4d.data.records import VideoFeatures
from kg4d.data.sizes import Size
from kg4d.errors import InputError
from kg4d.geometry.sampling import pixel_centers, sample_image
from kg4d.networks.load import load_lpips
from kg4d.networks.lpips import LPIPS
from kg4d.priors.base import Identity, Provider
from kg4d.priors.flow import dis_both_ways
from kg4d.priors.progress import counted
from kg4d.priors.raft import STRIDE, listening_to, load_raft, raft_identity, raft_pairs, shown_size
from kg4d.utils.files import content_hash

_log = logging.getLogger(__name__)

_SHARE, _COARSE = 8, 4  # px of the images for one of the maps; how much coarser the second scale is
_COMPONENTS = VideoFeatures.CHANNELS - 10  # beside four flows of two channels, and two errors
_TAP = 6  # the convolution of VGG16 (relu3_3) whose output is taken, at a quarter of the image's size


class Observed(NamedTuple):
    """What a source sees in a video of T = pairs + 1 frames."""

    forward: Float[Tensor, "pairs H W 2"]  # flow from each frame to the next, px
    backward: Float[Tensor, "pairs H W 2"]  # and from that one back
    deep: Float[Tensor, "T k h w"]  # deep features, k = 32, at an eighth


@runtime_checkable  # for the tests, which check arguments at run time
class FlowSource(Provider, Protocol):
    """Tells flow and deep features of a video."""

    def __call__(self, video: Float[Tensor, "T H W 4"]) -> Observed:
        """Look at a video."""
        ...


class FlowFeatures:
    """Computes the feature maps of a video.

    Args:
        source: Of flow and deep features.
    """

    name = "flow-features"

    def __init__(self, source: FlowSource) -> None:
        self.source = source

    def identity(self) -> Identity:
        """That of the source."""
        return {"channels": VideoFeatures.CHANNELS, **self.source.identity()}

    @torch.no_grad()
    def __call__(self, video: Float[Tensor, "T H W 4"]) -> Float[Tensor, "T C h w"]:
        """The maps of T frames; there is no flow before the first and after the last."""
        height, width = video.shape[1:3]
        size = map_size(height, width)
        forward, backward, deep = self.source(video)
        scale = 1 / max(height, width)
        nothing = torch.zeros(1, height, width, 2)
        ahead, behind = torch.cat([forward, nothing]) * scale, torch.cat([nothing, backward]) * scale
        errors = torch.cat([_missed(forward, backward), nothing[..., :1]]) * scale
        returns = torch.cat([nothing[..., :1], _missed(backward, forward)]) * scale
        flows = torch.cat([ahead, behind], dim=-1).movedim(-1, 1)
        rows, columns = size.height, size.width
        fine = F.adaptive_avg_pool2d(flows, (rows, columns))
        coarse = F.adaptive_avg_pool2d(flows, (max(1, rows // _COARSE), max(1, columns // _COARSE)))
        coarse = F.interpolate(coarse, (rows, columns), mode="bilinear", align_corners=False)
        missed = F.adaptive_avg_pool2d(torch.cat([errors, returns], dim=-1).movedim(-1, 1), (rows, columns))
        return torch.cat([*(_whitened(part) for part in (fine, coarse, missed)), deep], dim=1)


class DisAndVgg:
    """OpenCV's DIS, and the components of VGG16's features; zero where its weights are not on this machine."""

    name = "dis-vgg"

    @cached_property
    def _network(self) -> LPIPS | None:
        try:
            network = load_lpips("vgg")
        except InputError as error:
            _log.warning("flow features without deep features: %s", error)
            return None
        network.taps = (_TAP,)
        return network

    def identity(self) -> Identity:
        """The version of OpenCV, and the weights of the deep features."""
        network = self._network
        weights = "none" if network is None else content_hash(network.state_dict())
        return {"kind": "dis", "opencv": cv2.__version__, "weights": weights}

    def __call__(self, video: Float[Tensor, "T H W 4"]) -> Observed:
        """Look at a video."""
        return Observed(*dis_both_ways(video), self._deep(video))

    def _deep(self, video: Float[Tensor, "T H W 4"]) -> Float[Tensor, "T k h w"]:
        size = map_size(*video.shape[1:3])
        if self._network is None:
            return torch.zeros(len(video), _COMPONENTS, size.height, size.width)
        maps = []
        for frame in counted(video, len(video), "frames"):
            rgb = (frame[..., :3] * frame[..., 3:] + 1 - frame[..., 3:]).movedim(-1, 0)[None]
            (features,) = self._network.activations(2 * rgb - 1)
            maps.append(F.adaptive_avg_pool2d(features, (size.height, size.width)))
        return components(torch.cat(maps))


class RaftAlone:
    """torchvision's RAFT: its flow, and the components of what it has of each frame after its last iteration.

    That are the feature encoder's maps of the frame, and the hidden state of the recurrent unit on the way to the next
    frame and on the way to the one before; each of the three counts alike.

    Args:
        path: File of its weights; the published ones when None.

    Raises:
        InputError: The library does not load, or the weights cannot be had or are not RAFT's.
    """

    name = "raft"

    def __init__(self, path: str | None) -> None:
        self._path, self._network = path, load_raft("flow_features", path)

    def identity(self) -> Identity:
        """The weights."""
        return {"kind": "raft", **raft_identity(self._path)}

    @torch.no_grad()
    def __call__(self, video: Float[Tensor, "T H W 4"]) -> Observed:
        """Look at a video.

        Raises:
            InputError: It gives NaN or infinity.
        """
        forward, backward, ahead, behind = [], [], [], []
        frames: list[Tensor] = []
        encoder, unit = self._network.get_submodule("feature_encoder"), self._network.get_submodule("update_block")
        with listening_to(encoder) as maps, listening_to(unit) as states:
            for there, back in raft_pairs(self._network, video):
                forward.append(there)
                backward.append(back)
                first, second = maps[0][:2]  # then the same two again, the other way round
                frames += [second] if frames else [first, second]
                ((to_next, to_last), _flow) = states[0]
                ahead.append(to_next)
                behind.append(to_last)
        parts = [_centred(torch.stack(part)) for part in (frames, ahead, behind)]
        nothing = torch.zeros_like(parts[1][:1])
        known = torch.cat([parts[0], torch.cat([parts[1], nothing]), torch.cat([nothing, parts[2]])], dim=1)
        return Observed(torch.stack(forward), torch.stack(backward), self._cells(components(known), video))

    def _cells(self, maps: Float[Tensor, "T k rows columns"], video: Float[Tensor, "T H W 4"]) -> Tensor:
        """Its maps, of images that were enlarged and continued, over the images as they are."""
        size = map_size(*video.shape[1:3])
        rows, columns = shown_size(*video.shape[1:3])
        parts = []
        for one in maps[:, None]:
            spread = one.repeat_interleave(STRIDE, 2).repeat_interleave(STRIDE, 3)[..., :rows, :columns]
            parts.append(F.adaptive_avg_pool2d(spread, (size.height, size.width)))
        return torch.cat(parts)


class DisAndMaps:
    """OpenCV's DIS, and maps of any network.

    Args:
        maps: Of the frames of the video, at an eighth of its images, any number of channels D.
    """

    name = "dis-maps"

    def __init__(self, maps: Float[Tensor, "T D h w"]) -> None:
        self._maps = maps

    def identity(self) -> Identity:
        """The version of OpenCV, and the hash of the maps."""
        return {"kind": "files", "opencv": cv2.__version__, "maps": content_hash({"maps": self._maps})}

    def __call__(self, video: Float[Tensor, "T H W 4"]) -> Observed:
        """Look at a video."""
        return Observed(*dis_both_ways(video), components(self._maps))


def map_size(height: int, width: int) -> Size:
    """Of the feature maps of images, px."""
    return Size(max(1, width // _SHARE), max(1, height // _SHARE))


def components(maps: Float[Tensor, "T D h w"]) -> Float[Tensor, "T k h w"]:
    """Deep features as k = 32 channels: the principal components over a video, by the size of the largest one.

    Up to 32 channels stay as they are, by their root mean square over all, and zeros follow.
    """
    if maps.shape[1] <= _COMPONENTS:
        return F.pad(_whitened(maps), (0, 0, 0, 0, 0, _COMPONENTS - maps.shape[1]))
    rows = maps.movedim(1, -1).flatten(0, 2)
    rows = rows - rows.mean(0)
    values, axes = torch.linalg.eigh((rows.mT @ rows).double() / len(rows))
    axes, values = axes[:, -_COMPONENTS:], values[-_COMPONENTS:]
    axes = axes * torch.where(axes.sum(0) < 0, -1.0, 1.0)  # an eigenvector has no sign of its own
    found: Tensor = rows @ axes.float() / values[-1].clamp_min(1e-12).sqrt().float()
    return found.reshape(len(maps), *maps.shape[2:], -1).movedim(-1, 1).contiguous()


def _missed(there: Float[Tensor, "pairs H W 2"], back: Float[Tensor, "pairs H W 2"]) -> Float[Tensor, "pairs H W 1"]:
    """Distance from each pixel to where it comes to, there and back again, px."""
    centers = pixel_centers(*there.shape[1:3])
    trips = [flow + sample_image(other, centers + flow) for flow, other in zip(there, back, strict=True)]
    lengths: Tensor = torch.stack(trips).norm(dim=-1, keepdim=True)
    return lengths


def _whitened(maps: Float[Tensor, "T C h w"]) -> Float[Tensor, "T C h w"]:
    """Divided by their root mean square over the video, so that networks see numbers about 1."""
    whitened: Tensor = maps / maps.square().mean().sqrt().clamp_min(1e-6)
    return whitened


def _centred(maps: Float[Tensor, "T C h w"]) -> Float[Tensor, "T C h w"]:
    """About the mean of each channel, so that zero, where there is nothing, is no value of its own."""
    return _whitened(maps - maps.mean((0, 2, 3), keepdim=True))
