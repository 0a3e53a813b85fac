"""Every key of `metrics.json`: what it means, its unit, and which direction is better."""

from typing import NamedTuple


class Entry(NamedTuple):
    """One metric."""

    meaning: str
    unit: str
    higher_is_better: bool

    @property
    def arrow(self) -> str:
        """The direction that is better, for table headings."""
        return "↑" if self.higher_is_better else "↓"


CATALOGUE: dict[str, Entry] = {
    "test/psnr": Entry("PSNR, mean over all test images", "dB", True),
    "test/psnr_masked": Entry("PSNR inside the true alpha dilated by 8 px", "dB", True),
    "test/ssim": Entry("SSIM, 11 px Gaussian window", "", True),
    "test/ms_ssim": Entry("SSIM over five scales", "", True),
    "test/lpips_vgg": Entry("LPIPS v0.1, VGG16", "", False),
    "test/lpips_alex": Entry("LPIPS v0.1, AlexNet", "", False),
    "test/clip_s": Entry("cosine of CLIP image embeddings", "", True),
    "test/fvd_f": Entry("Frechet video distance, frames of each view", "", False),
    "test/fvd_v": Entry("Frechet video distance, views of each frame", "", False),
    "test/fvd_diag": Entry("Frechet video distance, diagonals of the view x frame grid", "", False),
    "test/fv4d": Entry("Frechet video distance, all images in serpentine order", "", False),
    "test/fvd_c4d": Entry("what Consistent4D's script prints as FVD, in closed form", "", False),
    "test/video_distance": Entry("mean squared distance of the paired I3D logits over the clips of FVD-F", "", False),
    "test/fid": Entry("Frechet distance of image features, of the network in the protocol", "", False),
    "test/psnr_static": Entry("PSNR of the same Gaussians, never moved", "dB", True),
    "test/psnr_first_frame": Entry("PSNR of frame 0 in the test views", "dB", True),
    "train/psnr": Entry("PSNR on the frames of the reference video that the fit saw", "dB", True),
    "train/ssim": Entry("SSIM on the same frames", "", True),
    "heldout/psnr": Entry("PSNR on the frames of the reference video that the fit did not see", "dB", True),
    "train/flicker": Entry("colour change along the true motion of the reference video", "", False),
    "keypoints/pck_0.05": Entry("share of keypoints within 5 % of the object's box", "", True),
    "keypoints/error_3d": Entry("mean distance of keypoints from the truth", "world units", False),
    "motion/flow_epe": Entry("mean end-point error of the optical flow", "px", False),
}
