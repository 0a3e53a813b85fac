"""Feature maps of a video's motion, for deformations that watch it: flow of two scales both ways, and deep features.

Maps have an eighth of the images' size. Flow is OpenCV's DIS; deep features are those of VGG16, 32 principal components
over the video, or zero where its weights are not on this machine.
"""

import logging
from functools import cached_property

import cv2
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from kg4d.data.records import VideoFeatures
from kg4d.errors import InputError
from kg4d.geometry.sampling import pixel_centers, sample_image
from kg4d.networks.load import load_lpips
from kg4d.networks.lpips import LPIPS
from kg4d.priors.base import Identity
from kg4d.priors.flow import dis_both_ways
from kg4d.priors.progress import counted
from kg4d.utils.files import content_hash

_log = logging.getLogger(__name__)

_STRIDE, _COARSE = 8, 4  # px of the images for one of the maps; how much coarser the second scale is
_COMPONENTS = VideoFeatures.CHANNELS - 10  # beside four flows of two channels, and two errors
_TAP = 6  # the convolution of VGG16 (relu3_3) whose output is taken, at a quarter of the image's size


class FlowFeatures:
    """Computes the feature maps of a video."""

    name = "flow-features"

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
        return {"opencv": cv2.__version__, "channels": VideoFeatures.CHANNELS, "weights": weights}

    @torch.no_grad()
    def __call__(self, video: Float[Tensor, "T H W 4"]) -> Float[Tensor, "T C h w"]:
        """The maps of T frames; there is no flow before the first and after the last."""
        height, width = video.shape[1:3]
        forward, backward = dis_both_ways(video)
        size = max(1, height // _STRIDE), max(1, width // _STRIDE)
        scale = 1 / max(height, width)
        nothing = torch.zeros(1, height, width, 2)
        ahead, behind = torch.cat([forward, nothing]) * scale, torch.cat([nothing, backward]) * scale
        errors = torch.cat([_missed(forward, backward), nothing[..., :1]]) * scale
        returns = torch.cat([nothing[..., :1], _missed(backward, forward)]) * scale
        flows = torch.cat([ahead, behind], dim=-1).movedim(-1, 1)
        fine = F.adaptive_avg_pool2d(flows, size)
        coarse = F.adaptive_avg_pool2d(flows, (max(1, size[0] // _COARSE), max(1, size[1] // _COARSE)))
        coarse = F.interpolate(coarse, size, mode="bilinear", align_corners=False)
        missed = F.adaptive_avg_pool2d(torch.cat([errors, returns], dim=-1).movedim(-1, 1), size)
        return torch.cat([*(_whitened(part) for part in (fine, coarse, missed)), self._deep(video, size)], dim=1)

    def _deep(self, video: Float[Tensor, "T H W 4"], size: tuple[int, int]) -> Float[Tensor, "T k h w"]:
        if self._network is None:
            return torch.zeros(len(video), _COMPONENTS, *size)
        maps = []
        for frame in counted(video, len(video), "frames"):
            rgb = (frame[..., :3] * frame[..., 3:] + 1 - frame[..., 3:]).movedim(-1, 0)[None]
            (features,) = self._network.activations(2 * rgb - 1)
            maps.append(F.adaptive_avg_pool2d(features, size))
        stacked = torch.cat(maps)
        rows = stacked.movedim(1, -1).flatten(0, 2)
        rows = rows - rows.mean(0)
        values, axes = torch.linalg.eigh((rows.mT @ rows).double() / len(rows))
        axes, values = axes[:, -_COMPONENTS:], values[-_COMPONENTS:]
        axes = axes * torch.where(axes.sum(0) < 0, -1.0, 1.0)  # an eigenvector has no sign of its own
        components: Tensor = rows @ axes.float() / values[-1].clamp_min(1e-12).sqrt().float()
        return components.reshape(len(video), *size, -1).movedim(-1, 1).contiguous()


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
