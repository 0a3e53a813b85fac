"""Whole fits on pretended GPUs: devices are never mixed, and a step waits and launches no more than it is said to."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.pretended_fit import fitted

LIFT = ("lift.steps=5", "lift.trial_steps=2")
DENSITY = (
    "static.density.kind=adaptive",
    "static.density.grad_threshold=1e-9",
    "static.density.max_count=180",
    "static.steps=10",
)


# Without the operations of gsplat: in the last step of the stages, with about a tenth of head-room. `waits` leaves out
# the one that every call of gsplat makes.
MOST_OPERATIONS = {
    "kg4d": {"static": 250, "dynamic": 1040, "refine": 235},
    "recommended": {"static": 250, "dynamic": 1210, "refine": 545},
}


@pytest.mark.parametrize(
    "preset",
    ["kg4d", *(pytest.param(name, marks=pytest.mark.slow) for name in MOST_OPERATIONS if name != "kg4d")],
)
def test_a_preset_fits_on_a_gpu_and_its_steps_cost_what_they_are_said_to(tmp_path: Path, preset: str) -> None:
    run = fitted(tmp_path, *LIFT, file=preset)
    assert run.record["renderer"] == "cuda"
    for stage, most in MOST_OPERATIONS[preset].items():
        last = run.steps[stage][-1]
        # flows are formed once for each pair of frames, and their known pixels found then
        own = [wait for wait in last.waits if "gsplat counts" not in wait and "flow_targets.py" not in wait]
        assert last.operations <= most, stage
        assert len(own) == 1, own  # whether the step is finite
        assert len(last.renders) == (2 if stage == "refine" else 1), stage


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["paper", "hexplane_images", "control_points_images", "hexplane_flow"])
def test_the_other_presets_mix_no_devices(tmp_path: Path, preset: str) -> None:
    assert fitted(tmp_path, *LIFT, file=preset).record["renderer"] == "cuda"


CASES: dict[str, Sequence[str]] = {
    **{f"wgf {letter}": [f"wgf.variant={letter}"] for letter in ("a", "b", "c", "d", "e", "f", "g", "x")},
    "wgf a, fresh": ["wgf.variant=a", "wgf.selection=fresh"],
    "wgf e, fresh": ["wgf.variant=e", "wgf.selection=fresh"],
    "wgf a, plan": ["wgf.variant=a", "wgf.explicit_plan=true"],
    "wgf e, exact": ["wgf.variant=e", "wgf.plan.solver=exact"],
    "wgf isotropic": ["wgf.isotropic=true"],
    "wgf by opacity": ["wgf.mixture=opacity"],
    "wgf by keypoints": ["wgf.flow=keypoints"],
    "strides": ["dynamic.data.strides=[1,2,3]"],
    "all frames": ["dynamic.data.frames_per_step=100"],
    **{
        f"kfc {reading}": ["kfc.mode=heatmap", f"kfc.reading={reading}"]
        for reading in ("joint", "separable", "max", "mean", "literal", "mass")
    },
    "kfc by depth": ["kfc.visibility=depth"],
    "kfc seeded by a view": ["kfc.seeding=view"],
    "kfc not seeded": ["kfc.seeding=none", "kfc.compactness=0"],
    "kfc moves the geometry": ["kfc.detach_geometry=false", "kfc.freeze_after=0.5"],
    "hexplane": ["deformation.kind=hexplane"],
    "control points": ["deformation.kind=control_points", "deformation.control_points.arap.weight=1"],
    "skinned": ["deformation.kind=skinned", *LIFT],
    "skinned, dual quaternions": ["deformation.kind=skinned", "deformation.skinned.blend=dual_quaternion", *LIFT],
    "skinned, not lifted": ["deformation.kind=skinned", "lift.steps=0"],
    "nothing moves": ["deformation.kind=none"],
    "other activation": ["deformation.activation=silu", "deformation.anchor_first=false"],
    "adaptive": [*DENSITY, "static.density.opacity_reset_every=0.2", "static.density.opacity_decay=0.01"],
    "adaptive, absolute gradients": [*DENSITY, "static.density.absgrad=true", "static.density.split_scale=1e-6"],
    "harmonics": [*DENSITY, "gaussians.sh_degree=3", "gaussians.sh_warmup=2", "dynamic.gaussian_rates=1"],
    "many transparent": [*DENSITY, "static.density.opacity_threshold=0.5"],
    "many relocated": ["static.density.opacity_threshold=0.5", "static.steps=10"],
    "no keypoints": ["keypoints.count=0"],
    "three keypoints": ["keypoints.count=3"],
    "isotropic": ["gaussians.isotropic=true"],
    "ball": ["gaussians.init=ball"],
    "noisy detections": ["detections.noise_px=2"],
    "test views": ["dynamic.data.test_views=true"],
    "previews": ["trainer.preview_every=2"],
    "exports": ["export.formats=[ply,spz,mp4,viewer]"],
    "frames without texture": ["frames.textureless=true"],
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_no_setting_mixes_devices(tmp_path: Path, case: str) -> None:
    assert fitted(tmp_path, *CASES[case]).record["renderer"] == "cuda"


@pytest.mark.slow
def test_a_fit_on_the_second_gpu_leaves_the_first_alone(tmp_path: Path) -> None:
    run = fitted(tmp_path, "renderer.device=cuda:1", *DENSITY, gpus=2)
    assert run.record["cuda"]["used"] == "cuda:1"


@pytest.mark.slow
def test_a_run_is_read_back_on_a_gpu(tmp_path: Path) -> None:
    fitted(tmp_path, read_back=True)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["static", "dynamic"])
def test_a_stage_that_was_cut_short_goes_on_where_it_was(tmp_path: Path, stage: str) -> None:
    """The statistics of density control come back on the CPU, and the steps go on on the GPU."""
    run = fitted(tmp_path, *DENSITY, "trainer.checkpoint_every=1", cut_short=(stage, 4))
    assert len(run.steps[stage]) == (10 if stage == "static" else 6)
