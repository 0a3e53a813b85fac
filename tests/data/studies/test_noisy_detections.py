import pytest
import torch

from kg4d.data.records import Keypoints
from kg4d.data.studies.noisy_detections import add_noise
from kg4d.data.studies.settings import DetectionsConfig

FRAMES, RING, JOINTS = 60, 40, 20


def perfect() -> Keypoints:
    generator = torch.Generator().manual_seed(99)
    weights = torch.ones(FRAMES, JOINTS)
    weights[:, -1] = 0.0  # never seen; its pixels are far off
    uv = 50 + 100 * torch.rand(FRAMES, JOINTS, 2, generator=generator)
    uv[:, -1] = 1e6
    return Keypoints(
        names=tuple(str(j) for j in range(JOINTS)),
        parents=(-1,) * JOINTS,
        uv=uv,
        weights=weights,
        ring_uv=50 + 100 * torch.rand(RING, JOINTS, 2, generator=generator),
        ring_weights=torch.ones(RING, JOINTS),
        truth=torch.zeros(FRAMES, JOINTS, 3),
    )


def noisy(config: DetectionsConfig, seed: int = 0) -> Keypoints:
    found = add_noise(perfect(), config, seed)
    assert found is not None
    return found


def test_without_noise_nothing_is_touched() -> None:
    given = perfect()
    assert add_noise(given, DetectionsConfig(), 0) is given
    assert add_noise(None, DetectionsConfig(noise_px=3.0), 0) is None


def test_the_noise_has_the_deviation_asked_for_in_the_video_and_in_the_ring() -> None:
    found = noisy(DetectionsConfig(noise_px=3.0))
    assert found.ring_uv is not None
    for offset in ((found.uv - perfect().uv)[:, :-1], found.ring_uv - perfect().ring_uv):
        assert offset.std().item() == pytest.approx(3.0, rel=0.06)
        assert offset.mean().item() == pytest.approx(0.0, abs=0.2)
    assert torch.equal(found.weights, perfect().weights)


def test_outliers_land_in_the_box_of_what_is_seen() -> None:
    found = noisy(DetectionsConfig(outliers=0.3))
    moved = (found.uv != perfect().uv).any(-1)
    assert moved[:, :-1].float().mean().item() == pytest.approx(0.3, abs=0.04)
    assert not moved[:, -1].any()  # what is not seen is not moved either
    assert bool(((found.uv[moved] >= 50) & (found.uv[moved] <= 150)).all())
    assert (found.uv - perfect().uv)[moved].norm(dim=-1).mean() > 30


def test_what_is_missing_has_no_weight() -> None:
    found = noisy(DetectionsConfig(missing=0.2))
    assert found.ring_weights is not None
    assert (found.weights[:, :-1] == 0).float().mean().item() == pytest.approx(0.2, abs=0.04)
    assert (found.ring_weights == 0).float().mean().item() == pytest.approx(0.2, abs=0.05)
    assert torch.equal(found.uv, perfect().uv)


def test_the_seed_is_that_of_the_run_unless_it_is_given() -> None:
    config = DetectionsConfig(noise_px=1.0, outliers=0.1, missing=0.1)
    first, again, other = noisy(config, 0), noisy(config, 0), noisy(config, 1)
    assert torch.equal(first.uv, again.uv)
    assert not torch.equal(first.uv, other.uv)
    fixed = DetectionsConfig(noise_px=1.0, outliers=0.1, missing=0.1, seed=0)
    assert torch.equal(noisy(fixed, 1).uv, first.uv)


def test_the_truth_and_the_rest_stay() -> None:
    found = noisy(DetectionsConfig(noise_px=9.0, outliers=0.5, missing=0.5))
    assert found.truth is not None
    assert torch.equal(found.truth, torch.zeros(FRAMES, JOINTS, 3))
    assert found.names == perfect().names


def test_an_image_that_shows_no_keypoint_stays_empty_and_finite() -> None:
    given = perfect()
    given.weights[3] = 0.0
    found = add_noise(given, DetectionsConfig(noise_px=3.0, outliers=1.0, missing=0.5), 0)
    assert found is not None
    assert (found.weights[3] == 0).all()
    assert found.uv.isfinite().all()


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("noise_px", {"noise_px": -1.0}),
        ("outliers", {"outliers": 1.1}),
        ("missing", {"missing": -0.1}),
        ("noise_px", {"noise_px": float("nan")}),
    ],
)
def test_impossible_noise_is_refused(key: str, settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"detections.{key}"):
        DetectionsConfig(**settings)  # type: ignore[arg-type]
