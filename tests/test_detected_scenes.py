"""Scenes of a run whose keypoints are made noisy or detected again, by `detections`."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kg4d.config.load import load_config
from kg4d.config.schema import ExperimentConfig
from kg4d.data.records import Keypoints, Scene
from kg4d.data.scene_writer import write_scene
from kg4d.errors import InputError
from kg4d.keypoints.triangulation import agreement, triangulate
from kg4d.lift.seeding import reconcile_views
from kg4d.runs.build import build_run_renderer, build_scene


def scene(*overrides: str) -> Scene:
    small = ["image_size=64", "trainer.progress_bar=false", "renderer.threads=1"]
    config = load_config(ExperimentConfig, None, [*small, *overrides])
    return build_scene(config, build_run_renderer(config))


def keypoints_of(*overrides: str) -> Keypoints:
    found = scene(*overrides).keypoints
    assert found is not None
    return found


def test_noise_follows_the_seed_of_the_run() -> None:
    noise = ("detections.noise_px=3", "detections.outliers=0.15", "detections.missing=0.2")
    perfect, first, other = keypoints_of(), keypoints_of(*noise), keypoints_of(*noise, "seed=1")
    assert not torch.equal(first.uv, perfect.uv)
    assert not torch.equal(first.uv, other.uv)
    assert torch.equal(first.uv, keypoints_of(*noise).uv)
    assert (first.weights > 0).sum() < (perfect.weights > 0).sum()


def test_views_of_the_ring_that_contradict_the_others_lose_their_weight() -> None:
    given = scene()
    assert given.keypoints is not None
    assert given.ring is not None
    assert given.keypoints.truth is not None
    assert given.keypoints.ring_uv is not None
    uv = given.keypoints.ring_uv.clone()
    uv[1] += 15.0
    reconciled = reconcile_views(replace(given.keypoints, ring_uv=uv), given.ring)
    assert reconciled.ring_weights is not None
    placed = triangulate(uv, reconciled.ring_weights, given.ring.cameras)
    assert (placed.points - given.keypoints.truth[0])[placed.valid].norm(dim=-1).max() < 0.02
    assert reconcile_views(given.keypoints, None) is given.keypoints


def test_noisy_views_of_the_ring_are_not_lost_for_their_noise() -> None:
    """Many views are better placed together than the few that happen to agree within the tolerance for clean ones."""
    given = scene()
    keypoints, ring = given.keypoints, given.ring
    assert keypoints is not None
    assert keypoints.ring_uv is not None
    assert keypoints.truth is not None
    assert ring is not None
    size = max(ring.cameras.width, ring.cameras.height)
    generator = torch.Generator().manual_seed(0)
    uv = keypoints.ring_uv + 0.02 * size * torch.randn(keypoints.ring_uv.shape, generator=generator)
    reconciled = reconcile_views(replace(keypoints, ring_uv=uv), ring).ring_weights
    assert reconciled is not None
    strict = agreement(uv, keypoints.ring_weights, ring.cameras, tolerance_px=0.02 * size) * keypoints.ring_weights
    errors = []
    for weights in (reconciled, strict):
        placed = triangulate(uv, weights, ring.cameras)
        errors.append(float((placed.points - keypoints.truth[0])[placed.valid].norm(dim=-1).mean()))
    assert errors[0] < 0.9 * errors[1]


def test_views_that_are_hardly_believed_do_not_widen_the_tolerance() -> None:
    given = scene()
    keypoints, ring = given.keypoints, given.ring
    assert keypoints is not None
    assert keypoints.ring_uv is not None
    assert keypoints.ring_weights is not None
    assert ring is not None
    size = max(ring.cameras.width, ring.cameras.height)
    poor = torch.arange(len(ring)) % 3 > 0
    noise = 0.06 * size * torch.randn(keypoints.ring_uv.shape, generator=torch.Generator().manual_seed(0))
    uv = keypoints.ring_uv + poor[:, None, None] * noise
    weights = keypoints.ring_weights * torch.where(poor, 0.05, 1.0)[:, None]
    reconciled = reconcile_views(replace(keypoints, ring_uv=uv, ring_weights=weights), ring).ring_weights
    assert reconciled is not None
    assert torch.equal(reconciled, weights * agreement(uv, weights, ring.cameras, tolerance_px=0.02 * size))


def test_redetected_through_the_command_line_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KG4D_CACHE", str(tmp_path))  # no weights there: KLT, and a ring without keypoints
    found = keypoints_of("detections.source=found", "priors.tracking.kind=klt")
    perfect = keypoints_of()
    assert torch.equal(found.uv[0], perfect.uv[0])
    assert not torch.equal(found.uv[1], perfect.uv[1])
    assert found.ring_uv is None
    assert list((tmp_path / "priors").glob("*klt*"))


def test_files_are_looked_at_as_large_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector sees more in 96 px than in the 48 px of the fit; what it finds is then in pixels of the fit."""
    large = scene("image_size=96")
    write_scene(large, tmp_path / "scene")
    seen = []

    def found(given: Scene, _: object) -> Scene:
        seen.append(given.reference.images.shape[1:3])
        return given

    monkeypatch.setattr("kg4d.runs.build.redetected", found)
    words = (f"scene={tmp_path / 'scene'}", "image_size=48")
    detected, given = scene(*words, "detections.source=found"), scene(*words)
    assert seen == [(96, 96)]
    assert torch.equal(detected.reference.images, given.reference.images)
    assert detected.keypoints is not None
    assert given.keypoints is not None
    assert torch.equal(detected.keypoints.uv, given.keypoints.uv)


def test_wrong_keys_are_named() -> None:
    with pytest.raises(InputError, match=r"detections\.missing"):
        scene("detections.missing=2")
    with pytest.raises(InputError, match=r"detections\.source"):
        scene("detections.source=perfect")
