"""The evaluator's network metrics, on small networks whose answers can be worked out."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kg4d.metrics.feature_cache import FeatureCache
from kg4d.metrics.feature_networks import Networks
from kg4d.metrics.frechet import frechet_distance
from kg4d.metrics.protocols import GLTF4D, PROTOCOLS, VGG16_MEANS
from kg4d.metrics.suite import Evaluation, evaluate_grid

I3D = "i3d-kinetics-400"


class Mean(nn.Module):
    """Images to their mean colour."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


class Difference(nn.Module):
    """Two batches in [-1, 1] to their mean absolute difference."""

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        return (pred - target).abs().mean((1, 2, 3))


class Motion(nn.Module):
    """Videos in [-1, 1] to the mean colour of the first frame and the mean change a frame; counts its calls."""

    calls = 0

    def forward(self, video: Tensor) -> Tensor:
        self.calls += len(video)
        colours = video.mean((3, 4))
        return torch.cat((colours[:, :, 0], (colours[:, :, -1] - colours[:, :, 0]) / video.shape[2]), 1)


def networks(cache: Path | None = None) -> Networks:
    modules = {"lpips-vgg": Difference(), "lpips-alex": Difference(), I3D: Motion(), "fid": Mean(), "clip": Mean()}
    return Networks(modules, feature_cache=FeatureCache(cache) if cache else None)


def grids(views: int = 3, frames: int = 10, size: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    """Images of one random colour each, in steps of 1/255, so that rounding and resizing change nothing."""
    generator = torch.Generator().manual_seed(0)
    colours = torch.randint(20, 200, (2, views, frames, 1, 1, 3), generator=generator) / 255
    predicted, target = colours.expand(2, views, frames, size, size, 3)
    return predicted, target, torch.ones(views, frames, size, size, 1)


def evaluate(predicted: Tensor, target: Tensor, alpha: Tensor, cache: Path | None = None) -> Evaluation:
    return evaluate_grid(predicted, target, alpha, networks=networks(cache))


def test_every_key_is_either_measured_or_excused() -> None:
    for protocol in PROTOCOLS.values():
        for nets in (networks(), None):
            evaluation = evaluate_grid(*grids(), networks=nets, protocol=protocol)
            assert set(evaluation.metrics) | set(evaluation.skipped) == set(protocol.metrics)
            assert not set(evaluation.metrics) & set(evaluation.skipped)


def test_with_all_networks_only_the_size_stops_a_metric() -> None:
    assert set(evaluate(*grids()).skipped) == {"test/ms_ssim"}


def test_image_networks_see_pairs_in_their_range() -> None:
    predicted, target, alpha = grids()
    evaluation = evaluate(predicted, target, alpha)
    per_view = 2 * (predicted - target).abs().mean((1, 2, 3, 4))
    assert evaluation.metrics["test/lpips_vgg"] == pytest.approx(per_view.mean().item(), rel=1e-5)
    assert evaluation.per_view["test/lpips_alex"] == pytest.approx(per_view.tolist(), rel=1e-5)
    cosine = nn.functional.cosine_similarity(predicted[:, :, 0, 0], target[:, :, 0, 0], dim=-1).mean()
    assert evaluation.metrics["test/clip_s"] == pytest.approx(cosine.item(), rel=1e-5)


def test_fid_is_the_frechet_distance_of_all_images() -> None:
    predicted, target, alpha = grids()
    expected = frechet_distance(predicted[:, :, 0, 0].flatten(0, 1), target[:, :, 0, 0].flatten(0, 1)).item()
    evaluation = evaluate(predicted, target, alpha)
    assert evaluation.metrics["test/fid"] == pytest.approx(expected, rel=1e-4)
    assert evaluation.provenance["samples"]["test/fid"] == {"images": 30, "network": "fid", "rank": 3, "warning": None}


def test_video_distances_are_frechet_distances_of_their_clips() -> None:
    predicted, target, alpha = grids()
    metrics = evaluate(predicted, target, alpha).metrics

    def features(grid: Tensor, last: int) -> Tensor:
        colours = 2 * grid[..., 0, 0, :] - 1
        return torch.cat((colours[:, 0], (colours[:, -1] - colours[:, 0]) / last), 1)

    frames = frechet_distance(features(predicted, 10), features(target, 10)).item()
    assert metrics["test/fvd_f"] == pytest.approx(frames, rel=1e-4)
    views = frechet_distance(features(predicted.transpose(0, 1), 9), features(target.transpose(0, 1), 9)).item()
    assert metrics["test/fvd_v"] == pytest.approx(views, rel=1e-4)


def test_equal_grids_are_perfect() -> None:
    _, target, alpha = grids()
    evaluation = evaluate(target, target, alpha)
    for key, value in evaluation.metrics.items():
        best = {"test/psnr": 100, "test/psnr_masked": 100, "test/ssim": 1, "test/ssim_full": 1, "test/clip_s": 1}
        assert value == pytest.approx(best.get(key, 0), abs=3e-4), (
            key
        )  # SSIM of flat colours: float32 rounding against 9e-4


def test_samples_name_clips_frames_and_rank() -> None:
    samples = evaluate(*grids(views=2)).provenance["samples"]
    assert samples["test/fvd_v"] == {
        "clips": 10,
        "images_per_clip": 2,
        "frames_per_clip": 10,
        "video_input": "crop",
        "warning": None,
        "rank": 6,
    }
    assert samples["test/fvd_f"]["rank"] == 1
    assert samples["test/fvd_c4d"]["video_input"] == "bicubic"
    assert "2 samples in 6 dimensions: covariance of rank 1" in samples["test/fvd_f"]["warning"]


def test_a_single_video_has_no_distribution() -> None:
    evaluation = evaluate(*grids(views=1))
    assert "at least 2 samples" in evaluation.skipped["test/fvd_f"]
    assert {"test/fvd_c4d", "test/video_distance", "test/fvd_v"} <= set(evaluation.metrics)


def test_missing_networks_are_excused_by_their_reason() -> None:
    nets = Networks({"lpips-vgg": Difference()}, missing={I3D: "no weights: run pull"})
    evaluation = evaluate_grid(*grids(), networks=nets)
    assert evaluation.skipped["test/fvd_f"] == "no weights: run pull"
    assert evaluation.skipped["test/fid"] == "no 'vgg16-relu5_3-mean' network was given to the evaluator"
    assert "test/lpips_vgg" in evaluation.metrics
    assert list(evaluation.provenance["networks"]) == ["lpips-vgg"]


def test_true_features_are_cached_by_content(tmp_path: Path) -> None:
    predicted, target, alpha = grids()
    nets = networks(tmp_path)
    motion = nets.modules[I3D]
    first = evaluate_grid(predicted, target, alpha, networks=nets)
    both_sides, motion.calls = motion.calls, 0
    second = evaluate_grid(predicted, target, alpha, networks=nets)
    assert motion.calls == both_sides / 2
    assert second.metrics == first.metrics
    motion.calls = 0
    changed = target.clone()
    changed[0, 0, 0, 0, 0] += 1 / 255
    evaluate_grid(predicted, changed, alpha, networks=nets)
    assert motion.calls == both_sides


def test_a_broken_cache_file_is_written_again(tmp_path: Path) -> None:
    first = evaluate(*grids(), cache=tmp_path)
    for file in tmp_path.iterdir():
        file.write_bytes(b"half a file")
    assert evaluate(*grids(), cache=tmp_path).metrics == first.metrics
    assert all(file.stat().st_size > 20 for file in tmp_path.iterdir())


def test_hashes_follow_the_weights() -> None:
    one, two = nn.Linear(2, 2), nn.Linear(2, 2)
    two.load_state_dict(one.state_dict())
    assert Networks({"fid": one}).hashes == Networks({"fid": two}).hashes
    two.weight.data[0, 0] += 1
    assert Networks({"fid": one}).hashes != Networks({"fid": two}).hashes


def test_protocols_name_a_network_for_every_key_that_needs_one() -> None:
    for protocol in PROTOCOLS.values():
        assert set(protocol.networks.values()) <= {"lpips-vgg", "lpips-alex", I3D, VGG16_MEANS, "clip"}
        plain = set(protocol.metrics) - set(protocol.networks)
        assert plain <= {"test/psnr", "test/psnr_masked", "test/ssim", "test/ssim_full", "test/ms_ssim"}
    assert GLTF4D.networks["test/fv4d"] == I3D
