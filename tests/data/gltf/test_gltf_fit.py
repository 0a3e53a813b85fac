import json
from pathlib import Path

from kg4d.pipeline import fit
from tests.data.gltf.box import write_box
from tests.tiny_runs import tiny


def test_a_fit_of_a_gltf_file_is_measured_against_its_surface(tmp_path: Path):
    path = write_box(tmp_path / "box.glb")
    folder = fit(tiny(tmp_path / "runs", f"scene=gltf:{path}#Bend@3", "gaussians.initial_opacity=0.5"))
    found = json.loads((folder / "metrics.json").read_text())
    for key in ("geometry/cd_3d", "geometry/cd_4d", "geometry/motion"):
        assert 0 < found["metrics"][key] < 1
    assert {"depth/abs_rel", "motion/flow_epe", "keypoints/error_3d"} <= set(found["metrics"])
