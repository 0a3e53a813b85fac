"""The priors that need no download against the truth of the rendered scenes: flow, tracks, transfer, mattes.

Positions count as right within a share of the longer side of the object's box. "Kept" are those of weight > 0.5.
"""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import cv2
import torch
from torch import Tensor

from benchmarks._harness import Row, arguments, report
from kg4d.data.records import Keypoints, Scene
from kg4d.data.scene import load_scene
from kg4d.data.studies.noisy_detections import add_noise
from kg4d.data.studies.settings import DetectionsConfig
from kg4d.errors import InputError
from kg4d.keypoints.triangulation import triangulate
from kg4d.lift.seeding import reconcile_views
from kg4d.metrics.keypoints import box_sizes
from kg4d.priors.base import KeypointTracks
from kg4d.priors.flow import DisFlow
from kg4d.priors.keypoints.features import VGG_TRACKING_SIDE, build_features
from kg4d.priors.keypoints.point_tracking import ChainTracker, KltTracker
from kg4d.priors.keypoints.settings import FeaturesConfig, PointTrackingConfig, TransferConfig
from kg4d.priors.keypoints.transfer import ChainTransfer
from kg4d.priors.matting import KeyMatting
from kg4d.priors.redetect import redetected
from kg4d.priors.settings import FlowConfig, MattingConfig, PriorsConfig

SCENES = ("cesium_man", "fox", "drone")
ANGLE = 22.5  # between the views of the ring
TRUTH = "truth of gltf4d"
QUIET = PriorsConfig(progress_bar=False)


@dataclass
class Judged:
    """Keypoints beside their truth, of any number of images, in a row each."""

    error: Tensor  # px
    share: Tensor  # error in object boxes
    weight: Tensor
    seen: Tensor  # here and in the first image

    def rows(self, name: str) -> list[Row]:
        """How many are right, and whether the weights know."""
        kept = self.weight > 0.5
        good = self.share <= 0.1
        return [
            row(f"{name}: PCK@.05", (self.share <= 0.05)[self.seen], "", "higher"),
            row(f"{name}: PCK@.1", good[self.seen], "", "higher"),
            row(f"{name}: mean error", self.error[self.seen], "px", "lower"),
            row(f"{name}: median error", self.error[self.seen].median()[None], "px", "lower"),
            row(f"{name}: kept", kept[self.seen], "", "higher"),
            row(f"{name}: PCK@.1 of kept", good[self.seen & kept], "", "higher"),
            row(f"{name}: PCK@.1 of kept, hidden ones too", good[kept], "", "higher"),
            row(f"{name}: median error of kept", self.error[kept].median()[None], "px", "lower"),
        ]


def row(claim: str, values: Tensor, unit: str, better: str) -> Row:
    """The mean of a figure that is only recorded."""
    return Row(claim, values.double().mean().item(), unit, None, better, TRUTH)


def judged(tracks: KeypointTracks, truth: Tensor, visible: Tensor, sizes: Tensor) -> Judged:
    """Compare images 1, 2, ... (image 0 is given) with the truth; `visible` (M, J) includes image 0."""
    error = (tracks.uv - truth).norm(dim=-1)
    shares = error / sizes[:, None]
    known = visible[:1].expand_as(visible)  # a keypoint that the first image hides cannot be found by its look
    parts = (error, shares, tracks.weights, visible & known)
    return Judged(*(part[1:][known[1:]] for part in parts))


def pooled(parts: list[Judged]) -> Judged:
    """All of them as one."""
    names = ("error", "share", "weight", "seen")
    return Judged(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def flow_rows(scenes: list[Scene]) -> list[Row]:
    """End-point error and outliers, of all pixels and of what confidence keeps."""
    rows = []
    for scene in scenes:
        assert scene.flow is not None
        found = DisFlow(FlowConfig())(scene.reference.images)
        error, known = (found.flow - scene.flow.flow).norm(dim=-1), scene.flow.weights > 0
        kept = known & (found.weights > 0.5)
        for name, mask in (("all", known), ("kept", kept)):
            rows.append(row(f"flow dis, {scene.name}, {name}: EPE", error[mask], "px", "lower"))
            rows.append(row(f"flow dis, {scene.name}, {name}: off by > 3 px", error[mask] > 3, "", "lower"))
        rows.append(row(f"flow dis, {scene.name}: kept", kept[known], "", "higher"))
    return rows


def tracking_rows(scenes: list[Scene]) -> list[Row]:
    """Tracks of the reference video from the true keypoints of frame 0."""
    config, features = PointTrackingConfig(), build_features(FeaturesConfig(), VGG_TRACKING_SIDE)
    trackers = {"klt": KltTracker(config), "chain": ChainTracker(features, DisFlow(FlowConfig()), config)}
    rows = []
    for name, tracker in trackers.items():
        parts, start = [], time.perf_counter()
        for scene in scenes:
            assert scene.keypoints is not None
            points, images = scene.keypoints, scene.reference.images
            tracks = tracker(images, points.uv[0])
            parts.append(judged(tracks, points.uv, points.weights > 0, box_sizes(scene.reference.alphas)))
            rows += parts[-1].rows(f"tracks {name}, {scene.name}")
        seconds = (time.perf_counter() - start) / len(scenes)
        rows += pooled(parts).rows(f"tracks {name}, pooled")
        rows += calibration_rows(f"tracks {name}", pooled(parts), 0.05)
        rows.append(Row(f"tracks {name}: a clip of 16 frames", seconds, "s", None, "lower", "itself"))
    return rows


def calibration_rows(name: str, found: Judged, within: float) -> list[Row]:
    """How often a keypoint of a given weight is seen and right."""
    right = found.seen & (found.share <= within)
    rows = []
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        mask = (found.weight >= low) & (found.weight < (low + 0.2 if low < 0.8 else 1.01))
        claim = f"{name}, weights {low:.1f} to {low + 0.2:.1f}: seen and within {within:g} ({int(mask.sum())})"
        rows.append(row(claim, right[mask], "", "higher"))
    return rows


def transfer_rows(scenes: list[Scene]) -> list[Row]:
    """The keypoints of frame 0 in the ring, by angle from it, both signs."""
    transfer = ChainTransfer(build_features(FeaturesConfig()), TransferConfig())
    by_angle: dict[float, list[Judged]] = {}
    start = time.perf_counter()
    for scene in scenes:
        points, ring = scene.keypoints, scene.ring
        assert points is not None
        assert points.ring_uv is not None
        assert points.ring_weights is not None
        assert ring is not None
        first = points.ring_uv[:1]
        found = transfer(ring.images[0], first[0], ring.images[1:])
        sizes = box_sizes(ring.alphas)
        for view in range(1, len(ring)):
            here = KeypointTracks(
                torch.cat([first, found.uv[view - 1 : view]]),
                torch.cat([torch.ones(1, len(first[0])), found.weights[view - 1 : view]]),
            )
            pair = [0, view]
            judgement = judged(here, points.ring_uv[pair], points.ring_weights[pair] > 0, sizes[pair])
            by_angle.setdefault(ANGLE * min(view, len(ring) - view), []).append(judgement)
    seconds = (time.perf_counter() - start) / len(scenes)
    rows = [line for angle in sorted(by_angle) for line in pooled(by_angle[angle]).rows(f"transfer, {angle:g} degrees")]
    near = pooled([part for angle, parts in by_angle.items() if angle <= 90 for part in parts])
    rows += calibration_rows("transfer to 90 degrees", near, 0.1)
    return [*rows, Row("transfer: a ring of 16 views", seconds, "s", None, "lower", "itself")]


def place_rows(scenes: list[Scene]) -> list[Row]:
    """Keypoints of frame 0 in 3D: from perfect views, noisy ones, and those that transfer finds."""
    rows = []
    noise = DetectionsConfig(noise_px=3.0, outliers=0.15, missing=0.2)
    for scene in scenes:
        points = scene.keypoints
        assert points is not None
        assert points.truth is not None
        found = {"noisy": add_noise(points, noise, seed=0), "found": redetected(scene, QUIET).keypoints}
        for name, keypoints in found.items():
            assert keypoints is not None
            for how, used in (("as they are", keypoints), ("agreed", reconcile_views(keypoints, scene.ring))):
                error = (_triangulated(used, scene) - points.truth[0]).norm(dim=-1)
                claim = f"frame 0 in 3D, {scene.name}, {name}, {how}"
                rows.append(row(claim, error[error.isfinite()], "world", "lower"))
    return rows


def _triangulated(keypoints: Keypoints, scene: Scene) -> Tensor:
    assert keypoints.ring_uv is not None
    assert keypoints.ring_weights is not None
    assert scene.ring is not None
    return triangulate(keypoints.ring_uv, keypoints.ring_weights, scene.ring.cameras).points


def matting_rows(scenes: list[Scene]) -> list[Row]:
    """Mattes of the reference video on white."""
    rows = []
    for scene in scenes:
        found = KeyMatting(MattingConfig())(scene.reference.composited(torch.ones(3))) > 0.5
        true = scene.reference.alphas > 0.5
        share = (found & true).flatten(1).sum(1) / (found | true).flatten(1).sum(1)
        rows.append(row(f"matting key, {scene.name}: IoU on white", share, "", "higher"))
    return rows


def main() -> None:
    """Measure whatever the data and the weights allow."""
    args = arguments(__doc__)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    folder = Path(os.environ.get("KG4D_DATA", Path(__file__).parents[2] / "shared" / "data")) / "gltf4d"
    if not folder.is_dir():
        print(f"priors: nothing measured, there is no {folder}: set KG4D_DATA to the folder that holds gltf4d/")
        return
    scenes = [load_scene(folder / name) for name in SCENES]
    rows = [*flow_rows(scenes), *matting_rows(scenes)]
    try:
        build_features(FeaturesConfig())
    except InputError as error:
        print(f"priors: tracks and transfer are not measured: {error}")
    else:
        rows += [*tracking_rows(scenes), *transfer_rows(scenes), *place_rows(scenes)]
    report(rows, args.json)


if __name__ == "__main__":
    main()
