"""Named evaluation protocols: which images, which networks, which value ranges.

A number without these is not comparable, so `metrics.json` carries the whole record.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from kg4d.errors import InputError


class VideoInput(StrEnum):
    """How frames become the 224 x 224 px input of the video network; it moves logits by a quarter of their norm."""

    CROP = "crop"  # resize to 256 px where needed, then cut [16:240]
    RESIZE = "resize"  # bilinear resize of the whole frame to 224 px, as most FVD code does
    BICUBIC = "bicubic"  # bicubic resize of the whole frame to 224 px, as Consistent4D's script does


@dataclass(frozen=True)
class Protocol:
    """A named evaluation protocol.

    Attributes:
        name: What a person types.
        source: Where the rules come from, and what they leave open.
        views: Number of test videos.
        azimuths: Their azimuths in degrees; empty where the source does not say.
        frames: Number of frames of each; 0 where scenes differ.
        resolution: Longer side of the images, px.
        background: RGB in [0, 1] behind the object.
        metrics: Keys to compute, of those in `kg4d.metrics.keys`.
        networks: Name of the network behind each key that needs one.
        notes: By key, what one must know to read the number.
        ranges: Value range that each network or formula is fed.
        video_input: Input of the video network; `test/fvd_c4d` always has bicubic input.
        square: Whether the images are square.
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
    notes: dict[str, str]
    ranges: dict[str, str]
    video_input: VideoInput
    square: bool = True

    def deviations(self, views: int, frames: int, height: int, width: int) -> list[str]:
        """What about a grid of images differs from the protocol, in words; empty when nothing does.

        Args:
            views: Number of videos.
            frames: Number of frames of each.
            height: Of the images, px.
            width: Of the images, px.

        >>> GLTF4D.deviations(4, 8, 256, 256)
        ['8 frames instead of 16']
        """
        wanted = {"views": (views, self.views), "frames": (frames, self.frames or frames)}
        found = [f"{have} {what} instead of {want}" for what, (have, want) in wanted.items() if have != want]
        if self.square and (height, width) != (self.resolution, self.resolution):
            found.append(f"{width} x {height} px instead of {self.resolution} x {self.resolution} px")
        if not self.square and max(height, width) != self.resolution:
            found.append(f"{width} x {height} px instead of {self.resolution} px along the longer side")
        return found


WHITE = (1.0, 1.0, 1.0)
RANGES = {"psnr": "[0, 1]", "ssim": "[0, 1]", "lpips": "[-1, 1]", "i3d": "[-1, 1]", "fid": "[0, 1]", "clip": "[0, 1]"}
VIDEO_KEYS = ("test/fvd_f", "test/fvd_v", "test/fvd_diag", "test/fv4d", "test/fvd_c4d", "test/video_distance")
IMAGE_KEYS = (
    *("test/psnr", "test/psnr_masked", "test/ssim", "test/ssim_full", "test/ms_ssim"),
    *("test/lpips_vgg", "test/lpips_alex"),
)
INCEPTION = "inception-v3"  # FID elsewhere uses this; its weights cannot be pinned, so a caller has to supply it
VGG16_MEANS = "vgg16-relu5_3-mean"  # the deepest of the features that LPIPS compares, averaged over the image
NETWORKS = {  # names of `kg4d.metrics.feature_networks.Networks.modules`
    "test/lpips_vgg": "lpips-vgg",
    "test/lpips_alex": "lpips-alex",
    "test/clip_s": "clip",
    "test/fid": INCEPTION,
    **dict.fromkeys(VIDEO_KEYS, "i3d-kinetics-400"),
}


def networks_of(metrics: tuple[str, ...]) -> dict[str, str]:
    """The part of `NETWORKS` that these metrics need."""
    return {key: name for key, name in NETWORKS.items() if key in metrics}


GLTF4D = Protocol(
    name="gltf4d",
    source="kg4d: animated glTF characters with known cameras and motion",
    views=4,
    azimuths=(-75.0, 15.0, 105.0, 195.0),
    frames=16,
    resolution=256,
    background=WHITE,
    metrics=(*IMAGE_KEYS, *VIDEO_KEYS, "test/fid", "test/clip_s"),
    networks=networks_of((*IMAGE_KEYS, *VIDEO_KEYS, "test/clip_s")) | {"test/fid": VGG16_MEANS},
    notes={
        "test/fid": (
            "VGG16, relu5_3, mean over the image (512 features, ImageNet weights of LPIPS), not Inception: compare "
            "only with values of this protocol"
        )
    },
    ranges=RANGES,
    video_input=VideoInput.CROP,
)

CONSISTENT4D_KEYS = ("test/psnr", "test/ssim", "test/lpips_vgg", "test/clip_s", "test/fvd_f", "test/fvd_c4d")
CONSISTENT4D_32 = Protocol(
    name="consistent4d-32",
    source=(
        "Jiang et al. 2024, Consistent4D, its evaluation scripts: LPIPS with VGG16, CLIP similarity of images, and as "
        "FVD the quantity fvd_c4d. The scripts infer the data range of PSNR and SSIM from each pair; here it is 1"
    ),
    views=4,
    azimuths=(-75.0, 15.0, 105.0, 195.0),
    frames=32,
    resolution=512,
    background=WHITE,
    metrics=CONSISTENT4D_KEYS,
    networks=networks_of(CONSISTENT4D_KEYS),
    notes={},
    ranges=RANGES,
    video_input=VideoInput.RESIZE,
)

STAG4D_30 = replace(
    CONSISTENT4D_32,
    name="stag4d-30",
    source=(
        "Zeng et al. 2024, STAG4D: the rules of Consistent4D on 30 frames. Its FID-VID, an average over frames "
        "of the Inception FID of four images, is left out"
    ),
    frames=30,
)

SV4D_KEYS = (
    *("test/lpips_vgg", "test/lpips_alex", "test/clip_s"),
    *("test/fvd_f", "test/fvd_v", "test/fvd_diag", "test/fv4d"),
)
SV4D_21 = Protocol(
    name="sv4d-21",
    source=(
        "Xie et al. 2024, SV4D, section 4 (ObjaverseDy): no code is published and the LPIPS network is not named, so "
        "both are reported; clips and windows follow kg4d.metrics.clips"
    ),
    views=8,
    azimuths=(),
    frames=21,
    resolution=576,
    background=WHITE,
    metrics=SV4D_KEYS,
    networks=networks_of(SV4D_KEYS),
    notes={},
    ranges=RANGES,
    video_input=VideoInput.RESIZE,
)

ROOM_KEYS = ("test/psnr", "test/ssim", "test/ms_ssim", "test/lpips_vgg", "test/lpips_alex")
_AS_HERE = "PSNR, SSIM and MS-SSIM as defined here; the authors' code may differ in windows and borders"
MONO4D = Protocol(
    name="mono4d",
    source="kg4d: characters in rooms, seen by a hand-held camera; a second camera beside it is held out",
    views=1,
    azimuths=(),
    frames=60,
    resolution=240,
    background=WHITE,
    metrics=ROOM_KEYS,
    networks=networks_of(ROOM_KEYS),
    notes={},
    ranges=RANGES,
    video_input=VideoInput.RESIZE,
    square=False,
)

NERF_DS_KEYS = ("test/psnr", "test/ms_ssim", "test/lpips_vgg", "test/lpips_alex")
NERF_DS = replace(
    MONO4D,
    name="nerf-ds",
    source=f"Yan et al. 2023, NeRF-DS: the other camera's images of each scene, whole. {_AS_HERE}",
    frames=0,
    resolution=480,
    metrics=NERF_DS_KEYS,
    networks=networks_of(NERF_DS_KEYS),
)

HYPERNERF_VRIG = replace(
    NERF_DS,
    name="hypernerf-vrig",
    source=f"Park et al. 2021, HyperNeRF, interpolation by a rig: val_ids at half resolution, whole. {_AS_HERE}",
    resolution=960,
)

D_NERF_KEYS = ("test/psnr", "test/ssim", "test/lpips_vgg", "test/lpips_alex")
D_NERF = replace(
    MONO4D,
    name="d-nerf",
    source=f"Pumarola et al. 2021, D-NeRF: transforms_test.json at half resolution on white. {_AS_HERE}",
    frames=0,
    resolution=400,
    metrics=D_NERF_KEYS,
    networks=networks_of(D_NERF_KEYS),
    square=True,
)

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (GLTF4D, CONSISTENT4D_32, STAG4D_30, SV4D_21, MONO4D, NERF_DS, HYPERNERF_VRIG, D_NERF)
}


def get_protocol(name: str, only: Sequence[str] = ()) -> Protocol:
    """Look up a protocol.

    Args:
        name: What a person types.
        only: Keep these of its metrics, in its order; all where none is named.

    Raises:
        InputError: No protocol has that name, or it has no such metric.
    """
    if name not in PROTOCOLS:
        raise InputError("protocol", f"'{name}' is not known", f"choose one of {', '.join(PROTOCOLS)}")
    protocol = PROTOCOLS[name]
    for key in only:
        if key not in protocol.metrics:
            what = f"'{key}' is no metric of the protocol {name}"
            raise InputError("evaluation.metrics", what, f"choose of {', '.join(protocol.metrics)}")
    return replace(protocol, metrics=tuple(key for key in protocol.metrics if key in only)) if only else protocol
