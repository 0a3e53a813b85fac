"""The keys of `metrics.json`: what each means, its unit, and which direction is better."""

from typing import NamedTuple


class MetricKey(NamedTuple):
    """What a key of `metrics.json` stands for."""

    meaning: str
    unit: str
    higher_is_better: bool

    @property
    def arrow(self) -> str:
        """The direction that is better, for table headings."""
        return "↑" if self.higher_is_better else "↓"


METRIC_KEYS: dict[str, MetricKey] = {
    "test/psnr": MetricKey("PSNR, mean over all test images", "dB", True),
    "test/psnr_masked": MetricKey("PSNR inside the true alpha dilated by 8 px", "dB", True),
    "test/psnr_dynamic": MetricKey("PSNR inside the true mask of what moves", "dB", True),
    "test/psnr_background": MetricKey("PSNR outside of that mask", "dB", True),
    "test/psnr_covisible": MetricKey("PSNR where the training images show the same surface", "dB", True),
    "test/ssim": MetricKey("SSIM, 11 px Gaussian window, without the border of 5 px", "", True),
    "test/ssim_full": MetricKey("SSIM with the border, mirrored, as torchmetrics has it", "", True),
    "test/ms_ssim": MetricKey("SSIM over five scales", "", True),
    "test/lpips_vgg": MetricKey("LPIPS v0.1, VGG16", "", False),
    "test/lpips_alex": MetricKey("LPIPS v0.1, AlexNet", "", False),
    "test/clip_s": MetricKey("cosine of CLIP image embeddings", "", True),
    "test/fvd_f": MetricKey("Frechet video distance, frames of each view", "", False),
    "test/fvd_v": MetricKey("Frechet video distance, views of each frame", "", False),
    "test/fvd_diag": MetricKey("Frechet video distance, diagonals of the view x frame grid", "", False),
    "test/fv4d": MetricKey("Frechet video distance, all images in serpentine order", "", False),
    "test/fvd_c4d": MetricKey("what Consistent4D's script prints as FVD, in closed form", "", False),
    "test/video_distance": MetricKey(
        "mean squared distance of the paired I3D logits over the clips of FVD-F", "", False
    ),
    "test/fid": MetricKey("Frechet distance of image features, of the network in the protocol", "", False),
    "test/psnr_static": MetricKey("PSNR of the same Gaussians, never moved", "dB", True),
    "test/psnr_first_frame": MetricKey("PSNR of frame 0 in the test views", "dB", True),
    "train/psnr": MetricKey("PSNR on the frames of the reference video that the fit saw", "dB", True),
    "train/ssim": MetricKey("SSIM on the same frames", "", True),
    "heldout/psnr": MetricKey("PSNR on the frames of the reference video that the fit did not see", "dB", True),
    "train/flicker": MetricKey("colour change along the true motion of the reference video", "", False),
    "keypoints/pck_0.05": MetricKey("share of drawn keypoints within 5 % of the object's box", "", True),
    "keypoints/pck_0.05_tracks": MetricKey("the same of the tracks that the motion reports", "", True),
    "keypoints/error_3d": MetricKey("mean distance of drawn keypoints from the truth", "world units", False),
    "keypoints/error_3d_tracks": MetricKey("the same of the tracks that the motion reports", "world units", False),
    "orbit/specks": MetricKey("roughness of views from around over that of the reference view", "", False),
    "orbit/holes": MetricKey("share of the outline in views from around that is not covered", "", False),
    "motion/flow_epe": MetricKey("mean end-point error of the optical flow", "px", False),
    "motion/flow_epe_dynamic": MetricKey("the same inside the true mask of what moves", "px", False),
    "depth/abs_rel": MetricKey("mean relative error of the depth in the reference video", "", False),
    "depth/abs_rel_dynamic": MetricKey("the same inside the true mask of what moves", "", False),
    "depth/delta_1.25": MetricKey("share of its pixels within a factor of 1.25 of the true depth", "", True),
    "depth/delta_1.25_dynamic": MetricKey("the same inside the true mask of what moves", "", True),
}
