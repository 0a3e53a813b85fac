"""The evaluator: keys, means, views, reasons for what is missing, and the file."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from PIL import Image

from kg4d.errors import InputError
from kg4d.metrics.folders import read_folders
from kg4d.metrics.image import masked_psnr, object_mask, psnr
from kg4d.metrics.keys import METRIC_KEYS
from kg4d.metrics.protocols import GLTF4D, PROTOCOLS, get_protocol
from kg4d.metrics.suite import (
    FEATURE_METRICS,
    IMAGE_METRICS,
    Evaluation,
    evaluate_grid,
    training_metrics,
    write_metrics_json,
)


def grids(views: int = 2, frames: int = 3, size: int = 16) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(views, frames, size, size, 3, generator=generator)
    predicted = target + 0.1 * torch.rand(target.shape, generator=generator)
    alpha = torch.zeros(views, frames, size, size, 1)
    alpha[:, :, 7, 7] = 1
    return predicted, target, alpha


def eight_bits(images: torch.Tensor) -> torch.Tensor:
    return (images.clamp(0, 1) * 255).round() / 255


def test_a_protocol_can_be_narrowed_to_some_of_its_metrics() -> None:
    narrow = get_protocol("gltf4d", ["test/ssim", "test/psnr"])
    evaluation = evaluate_grid(*grids(), protocol=narrow)
    assert list(evaluation.metrics) == ["test/psnr", "test/ssim"]
    assert evaluation.skipped == {}
    assert get_protocol("gltf4d", []) is GLTF4D
    with pytest.raises(InputError, match="test/flicker"):
        get_protocol("gltf4d", ["test/flicker"])


def test_psnr_is_the_mean_over_images_and_views_are_listed() -> None:
    predicted, target, alpha = grids()
    evaluation = evaluate_grid(predicted, target, alpha)
    a, b = (eight_bits(x).flatten(0, 1).permute(0, 3, 1, 2) for x in (predicted, target))
    expected = psnr(a, b).reshape(2, 3)
    assert evaluation.metrics["test/psnr"] == pytest.approx(expected.mean().item(), rel=1e-6)
    assert evaluation.per_view["test/psnr"] == pytest.approx(expected.mean(1).tolist(), rel=1e-6)
    mask = object_mask(alpha.flatten(0, 1).permute(0, 3, 1, 2))
    assert evaluation.metrics["test/psnr_masked"] == pytest.approx(masked_psnr(a, b, mask).mean().item(), rel=1e-6)


def test_a_run_and_its_saved_images_score_the_same(tmp_path: Path) -> None:
    predicted, target, _ = grids()
    direct = evaluate_grid(predicted, target, None)
    for name, grid in (("pred", predicted), ("target", target)):
        (tmp_path / name).mkdir()
        for view, video in enumerate(grid):
            for frame, image in enumerate(video):
                pixels = (image.clamp(0, 1) * 255).round().byte().numpy()
                Image.fromarray(pixels).save(tmp_path / name / f"v{view}_{frame}.png")
    read = read_folders(tmp_path / "pred", tmp_path / "target")
    assert evaluate_grid(read.predicted, read.target, read.target_alpha).metrics == direct.metrics


def test_what_cannot_be_computed_has_a_reason() -> None:
    predicted, target, alpha = grids()
    evaluation = evaluate_grid(predicted, target, None)
    assert evaluation.skipped["test/psnr_masked"] == "the target images have no alpha channel"
    assert "at least 176 px" in evaluation.skipped["test/ms_ssim"]
    nothing = evaluate_grid(predicted, target, torch.zeros_like(alpha))
    assert "test/psnr_masked" not in nothing.metrics
    assert "nothing to measure" in nothing.skipped["test/psnr_masked"]


def test_a_view_without_the_object_is_null_and_does_not_spoil_the_mean(tmp_path: Path) -> None:
    predicted, target, alpha = grids()
    alpha[1] = 0
    evaluation = evaluate_grid(predicted, target, alpha)
    first, second = evaluation.per_view["test/psnr_masked"]
    assert second is None
    assert evaluation.metrics["test/psnr_masked"] == first


def test_provenance_counts_and_names_deviations() -> None:
    provenance = evaluate_grid(*grids()).provenance
    assert provenance["counts"] == {"views": 2, "frames": 3, "images": 6, "height": 16, "width": 16}
    assert provenance["deviations"] == [
        "2 views instead of 4",
        "3 frames instead of 16",
        "16 x 16 px instead of 256 x 256 px",
    ]
    assert provenance["versions"]["torch"] == torch.__version__


def test_progress_reaches_the_end() -> None:
    calls: list[tuple[str, int, int]] = []
    evaluate_grid(*grids(views=3, frames=7), progress=lambda *call: calls.append(call))
    psnr_calls = [call for call in calls if call[0] == "test/psnr"]
    assert psnr_calls[-1] == ("test/psnr", 21, 21)
    assert [done for _, done, _ in psnr_calls] == sorted({done for _, done, _ in psnr_calls})


def test_training_metrics_are_those_of_the_images() -> None:
    predicted, target, _ = grids(views=1, frames=4)
    a, b = (eight_bits(x[0]).permute(0, 3, 1, 2) for x in (predicted, target))
    assert training_metrics(predicted[0], target[0])["train/psnr"] == pytest.approx(psnr(a, b).mean().item())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_only_finite_values_are_recorded(value: float) -> None:
    evaluation = Evaluation()
    evaluation.record("a", 1.0)
    evaluation.record("a", value)
    assert evaluation.metrics == {}
    assert "a" in evaluation.skipped
    evaluation.record("a", torch.tensor(2.0), [1.0, float("nan")])
    assert (evaluation.metrics, evaluation.skipped) == ({"a": 2.0}, {})
    assert evaluation.per_view == {"a": [1.0, None]}


def test_the_file_has_the_four_parts_and_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.json"
    write_metrics_json(path, Evaluation(metrics={"test/psnr": 1.0}), GLTF4D)
    evaluation = evaluate_grid(*grids())
    write_metrics_json(path, evaluation, GLTF4D)
    record = json.loads(path.read_text())
    assert list(record) == ["metrics", "per_view", "protocol", "provenance"]
    assert record["metrics"] == evaluation.metrics
    assert record["protocol"] == json.loads(json.dumps(asdict(GLTF4D)))
    assert record["provenance"]["skipped"] == evaluation.skipped
    assert [p.name for p in path.parent.iterdir()] == ["metrics.json"]


def test_a_file_never_holds_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_metrics_json(tmp_path / "metrics.json", Evaluation(metrics={"a": float("nan")}), GLTF4D)
    assert list(tmp_path.iterdir()) == []


def test_protocols_only_name_known_keys() -> None:
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        assert set(protocol.metrics) <= set(METRIC_KEYS)
        assert set(protocol.networks) <= set(protocol.metrics)


def test_an_unknown_protocol_is_refused() -> None:
    assert get_protocol("gltf4d") is GLTF4D
    with pytest.raises(InputError, match="choose one of gltf4d"):
        get_protocol("nosuch")


def test_every_key_has_a_metric_that_knows_which_direction_is_better() -> None:
    metrics = IMAGE_METRICS | FEATURE_METRICS
    assert set(metrics) == {key for protocol in PROTOCOLS.values() for key in protocol.metrics}
    for key, metric in metrics.items():
        assert metric.higher_is_better is METRIC_KEYS[key].higher_is_better, key
