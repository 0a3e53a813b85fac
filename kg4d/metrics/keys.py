"""The keys of `metrics.json`: what each means, its unit, which direction is better, and what it cannot see."""

from typing import NamedTuple


class MetricKey(NamedTuple):
    """What a key of `metrics.json` stands for, and in a sentence what it cannot see."""

    meaning: str
    unit: str
    higher_is_better: bool
    blind_spot: str

    @property
    def arrow(self) -> str:
        """The direction that is better, for table headings."""
        return "↑" if self.higher_is_better else "↓"


HELD_OUT = "heldout/psnr"  # of frames of the reference video that are kept from the fit

METRIC_KEYS: dict[str, MetricKey] = {
    "test/psnr": MetricKey(
        "PSNR, mean over all test images",
        "dB",
        True,
        "White background counts like the object, and a blurred picture may beat a sharp one that is a pixel off.",
    ),
    "test/psnr_masked": MetricKey(
        "PSNR inside the true alpha dilated by 8 px",
        "dB",
        True,
        "What is drawn farther than 8 px from the object does not count, and displacement costs more than blur.",
    ),
    "test/psnr_dynamic": MetricKey(
        "PSNR inside the true mask of what moves",
        "dB",
        True,
        "Nothing outside the mask counts, and it says nothing of whether the motion is smooth.",
    ),
    "test/psnr_background": MetricKey("PSNR outside of that mask", "dB", True, "It says nothing of what moves."),
    "test/psnr_covisible": MetricKey(
        "PSNR where the training images show the same surface",
        "dB",
        True,
        "What no training image shows is left out, however wrong it is drawn.",
    ),
    "test/ssim": MetricKey(
        "SSIM, 11 px Gaussian window, without the border of 5 px",
        "",
        True,
        "Empty background scores as perfect structure, and each frame is judged alone.",
    ),
    "test/ssim_full": MetricKey(
        "SSIM with the border, mirrored, as torchmetrics has it",
        "",
        True,
        "As SSIM; the mirrored border raises it on white, the more so the smaller the images.",
    ),
    "test/ms_ssim": MetricKey("SSIM over five scales", "", True, "As SSIM; coarse scales forgive what is small."),
    "test/lpips_vgg": MetricKey(
        "LPIPS v0.1, VGG16",
        "",
        False,
        "A plausible texture in a slightly wrong place costs it little, and each frame is judged alone.",
    ),
    "test/lpips_alex": MetricKey(
        "LPIPS v0.1, AlexNet", "", False, "As with VGG16, and the two are not comparable with each other."
    ),
    "test/clip_s": MetricKey(
        "cosine of CLIP image embeddings",
        "",
        True,
        "It compares what is shown, not where: poses, places and small parts hardly change it.",
    ),
    "test/fvd_f": MetricKey(
        "Frechet video distance, frames of each view",
        "",
        False,
        "A few views are a few samples: it ranks methods on equal counts, is no absolute number, and blames no frame.",
    ),
    "test/fvd_v": MetricKey(
        "Frechet video distance, views of each frame",
        "",
        False,
        "The few views are shown several times to fill a clip, and motion does not enter.",
    ),
    "test/fvd_diag": MetricKey(
        "Frechet video distance, diagonals of the view x frame grid",
        "",
        False,
        "Its clips overlap, so they are fewer samples than they seem.",
    ),
    "test/fv4d": MetricKey(
        "Frechet video distance, all images in serpentine order",
        "",
        False,
        "Its clips share images, and an error in time looks like one between views.",
    ),
    "test/fvd_c4d": MetricKey(
        "what Consistent4D's script prints as FVD, in closed form",
        "",
        False,
        "It is no distance of distributions: it compares the means and spreads of paired logits.",
    ),
    "test/video_distance": MetricKey(
        "mean squared distance of the paired I3D logits over the clips of FVD-F",
        "",
        False,
        "Logits of an action classifier: small geometry and exact colours hardly change them.",
    ),
    "test/fid": MetricKey(
        "Frechet distance of image features, of the network in the protocol",
        "",
        False,
        "It compares sets of pictures: frames may be in any order and views exchanged.",
    ),
    "test/psnr_static": MetricKey(
        "PSNR of the same Gaussians, never moved",
        "dB",
        True,
        "It judges the Gaussians without their motion, and so depends on how much the scene moves.",
    ),
    "test/psnr_first_frame": MetricKey(
        "PSNR of frame 0 in the test views",
        "dB",
        True,
        "It sees one moment, which is the one that most training views show.",
    ),
    "train/psnr": MetricKey(
        "PSNR on the frames of the reference video that the fit saw",
        "dB",
        True,
        "It is measured where the fit has looked: a flat cut-out would score as well as a body.",
    ),
    "train/ssim": MetricKey(
        "SSIM on the same frames", "", True, "As the PSNR of these frames: it says nothing of other views."
    ),
    "heldout/psnr": MetricKey(
        "PSNR on the frames of the reference video that the fit did not see",
        "dB",
        True,
        "The camera is the fitted one: depth and the far side do not enter.",
    ),
    "train/flicker": MetricKey(
        "colour change along the true motion of the reference video",
        "",
        False,
        "Shading counts as flicker, so the true video is above 0 too, and a picture that never changes scores well.",
    ),
    "keypoints/pck_0.05": MetricKey(
        "share of drawn keypoints within 5 % of the object's box",
        "",
        True,
        "It counts keypoints as right or wrong: how far off the wrong ones are, and the surface between, do not enter.",
    ),
    "keypoints/pck_0.05_tracks": MetricKey(
        "the same of the tracks that the motion reports",
        "",
        True,
        "The reported tracks may be right where the drawn Gaussians are not.",
    ),
    "keypoints/error_3d": MetricKey(
        "mean distance of drawn keypoints from the truth",
        "world units",
        False,
        "It sees the keypoints alone: not the surface, its colours, or a twist about a bone.",
    ),
    "keypoints/error_3d_tracks": MetricKey(
        "the same of the tracks that the motion reports",
        "world units",
        False,
        "The reported tracks may be right where the drawn Gaussians are not.",
    ),
    "geometry/cd_3d": MetricKey(
        "Chamfer distance of the Gaussians' centres to the true surface, each frame aligned",
        "half of the truth's size",
        False,
        "Where the body is and how large does not enter, and distances below those of the points are noise.",
    ),
    "geometry/cd_4d": MetricKey(
        "the same, the clip aligned as its first frame",
        "half of the truth's size",
        False,
        "Each point may be near another one every time: motion along the surface does not enter.",
    ),
    "geometry/motion": MetricKey(
        "the same between points that are nearest in the first frame",
        "half of the truth's size",
        False,
        "A point that starts beside its partner keeps that distance: it is not below the Chamfer distance at first.",
    ),
    "orbit/specks": MetricKey(
        "roughness of views from around over that of the reference view",
        "",
        False,
        "It knows no truth: smooth and wrong scores as well as smooth and right.",
    ),
    "orbit/holes": MetricKey(
        "share of the outline in views from around that is not covered",
        "",
        False,
        "It knows no truth: a full outline of the wrong shape has no holes.",
    ),
    "motion/flow_epe": MetricKey(
        "mean end-point error of the optical flow",
        "px",
        False,
        "It sees motion across the reference picture alone: not along the line of sight, nor on the far side.",
    ),
    "motion/flow_epe_dynamic": MetricKey(
        "the same inside the true mask of what moves",
        "px",
        False,
        "In one camera: a motion along the line of sight, or at a wrong depth, costs nothing.",
    ),
    "depth/abs_rel": MetricKey(
        "mean relative error of the depth in the reference video",
        "",
        False,
        "It is of the camera that the fit saw, and most of its pixels are background.",
    ),
    "depth/abs_rel_dynamic": MetricKey(
        "the same inside the true mask of what moves", "", False, "Sides that the camera does not see do not enter."
    ),
    "depth/delta_1.25": MetricKey(
        "share of its pixels within a factor of 1.25 of the true depth",
        "",
        True,
        "A quarter of the depth is far more than neighbouring views forgive.",
    ),
    "depth/delta_1.25_dynamic": MetricKey(
        "the same inside the true mask of what moves", "", True, "As that of all pixels."
    ),
}
