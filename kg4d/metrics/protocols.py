"""Named evaluation protocols: which images, which networks, which value ranges.

A number without these is not comparable, so `metrics.json` carries the whole record.
"""

from dataclasses import dataclass
from enum import StrEnum

from kg4d.errors import InputError


class VideoInput(StrEnum):
    """How frames become the 224 x 224 px input of the video network. The choice alone moves logits by a quarter."""

    CROP = "crop"  # resize to 256 px where needed, then cut [16:240]
    RESIZE = "resize"  # bilinear resize of the whole frame to 224 px, as FVD papers do


@dataclass(frozen=True)
class Protocol:
    """A named evaluation protocol.

    Attributes:
        name: What a person types.
        source: Where the rules come from, and what they leave open.
        views: Number of test videos.
        azimuths: Their azimuths in degrees; empty where the source does not say.
        frames: Number of frames of each.
        resolution: Image side in px.
        background: RGB in [0, 1] behind the object.
        metrics: Keys to compute, of those in `kg4d.metrics.catalogue`.
        networks: Weight name behind each key that needs a network.
        ranges: Value range that each network or formula is fed.
        video_input: Input of the video network.
    """

    name: str
    source: str
    views: int
    azimuths: tuple[float, ...]
    frames: int
    resolution: int
    background: tuple[float, float, float]
    metrics: tuple[str, ...]
    networks: dict[str, str]
    ranges: dict[str, str]
    video_input: VideoInput

    def deviations(self, views: int, frames: int, height: int, width: int) -> list[str]:
        """How a grid of images differs from what the protocol asks for; empty when it does not.

        >>> GLTF4D.deviations(4, 8, 256, 256)
        ['8 frames instead of 16']
        """
        wanted = {"views": (views, self.views), "frames": (frames, self.frames)}
        found = [f"{have} {what} instead of {want}" for what, (have, want) in wanted.items() if have != want]
        if (height, width) != (self.resolution, self.resolution):
            found.append(f"{width} x {height} px instead of {self.resolution} x {self.resolution} px")
        return found


WHITE = (1.0, 1.0, 1.0)
RANGES = {"psnr": "[0, 1]", "ssim": "[0, 1]", "lpips": "[-1, 1]", "i3d": "[-1, 1]", "fid": "[0, 1]", "clip": "[0, 1]"}
VIDEO_KEYS = ("test/fvd_f", "test/fvd_v", "test/fvd_diag", "test/fv4d", "test/fvd_c4d", "test/video_distance")
IMAGE_KEYS = ("test/psnr", "test/psnr_masked", "test/ssim", "test/ms_ssim", "test/lpips_vgg", "test/lpips_alex")
NETWORKS = {
    "test/lpips_vgg": "lpips-vgg",
    "test/lpips_alex": "lpips-alex",
    **dict.fromkeys(VIDEO_KEYS, "i3d-kinetics-400"),
    "test/fid": "given by the caller",
    "test/clip_s": "given by the caller",
}

GLTF4D = Protocol(
    name="gltf4d",
    source="kg4d: animated glTF characters with known cameras and motion",
    views=4,
    azimuths=(-75.0, 15.0, 105.0, 195.0),
    frames=16,
    resolution=256,
    background=WHITE,
    metrics=(*IMAGE_KEYS, *VIDEO_KEYS, "test/fid", "test/clip_s"),
    networks=NETWORKS,
    ranges=RANGES,
    video_input=VideoInput.CROP,
)

PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in (GLTF4D,)}


def get_protocol(name: str) -> Protocol:
    """Look up a protocol.

    Raises:
        InputError: No protocol has that name.
    """
    if name not in PROTOCOLS:
        raise InputError("protocol", f"'{name}' is not known", f"choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
