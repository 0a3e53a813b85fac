"""What the numbers of the presets look like, and where the error of `recommended` sits.

    python -m evidence.look

Pictures go to docs/images/, the tables to the page between the markers `<!-- where -->` and `<!-- /where -->`.
"""

import statistics
import sys
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from evidence.plan import ROOT, read_plan, scenes_of
from evidence.report import PAGE, replace_between
from evidence.run import run_folder
from kg4d.data.images import write_png
from kg4d.data.records import view_grid
from kg4d.formats.mp4 import contact_sheet
from kg4d.runs.folder import RunFolder
from kg4d.runs.read_back import load_run

SHOWN = (("presets", "hexplane_images"), ("presets", "kg4d"), ("presets", "recommended"), ("detections", "noisy"))
VIEWS = (0, 2)  # to the sides, where depth shows


def finished(arm: str, scenes: Sequence[str], seeds: Sequence[int]) -> list[RunFolder]:
    """Folders of the runs of a preset that are done."""
    folders = [run_folder("presets", arm, scene, seed) for scene in scenes for seed in seeds]
    return [folder for folder in folders if folder.metrics.is_file()]


@torch.no_grad()
def picture(scene: str, seed: int) -> Float[Tensor, "H W 3"] | None:
    """Side views of the middle frame: truth, then the arms in `SHOWN`; None where one of them was not run."""
    folders = [run_folder(group, arm, scene, seed) for group, arm in SHOWN]
    if not all(folder.metrics.is_file() for folder in folders):
        return None
    runs = [load_run(folder.path) for folder in folders]
    test, background = runs[0].scene.test, runs[0].fitted.background
    assert test is not None
    rows = view_grid(test)
    chosen = torch.tensor([rows[view][len(rows[view]) // 2] for view in VIEWS])
    frames = [test[chosen].composited(background)]
    frames += [run.fitted.render(test[chosen].cameras, test[chosen].times).clamp(0, 1) for run in runs]
    return contact_sheet(torch.stack(frames, dim=1).flatten(0, 1), columns=len(frames))


def by_view(scenes: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """PSNR of `recommended` in each test view."""
    found: dict[str, list[Any]] = {}
    for scene in scenes:
        found[scene] = [folder.read_metrics() for folder in finished("recommended", [scene], seeds)]
    found = {scene: runs for scene, runs in found.items() if runs}
    if not found:
        return []
    azimuths = next(iter(found.values()))[0]["protocol"]["azimuths"]
    lines = ["**PSNR of `recommended` by azimuth of the test view, dB**", ""]
    lines += _head([f"{azimuth:g}°" for azimuth in azimuths])
    for scene, runs in found.items():
        views = zip(*(run["per_view"]["test/psnr"] for run in runs), strict=True)
        lines.append(_line(scene, [f"{statistics.mean(view):.2f}" for view in views]))
    return [*lines, ""]


@torch.no_grad()
def by_keypoint(scenes: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """The keypoints of `recommended` that are furthest off, along the reference view and across it."""
    lines = ["**Keypoints of `recommended` that are furthest off** (error along the reference view / across it)", ""]
    lines += _head(["all", "1", "2", "3", "4"])
    for scene in scenes:
        errors, names = [], []
        for folder in finished("recommended", [scene], seeds):
            run = load_run(folder.path)
            keypoints, video = run.scene.keypoints, run.scene.reference
            if keypoints is None or keypoints.truth is None:
                continue
            names = list(keypoints.names)
            off = run.keypoints(video.times) - keypoints.truth
            along = (off * video.cameras.viewmats[:, None, 2, :3]).sum(-1)
            across = (off.square().sum(-1) - along.square()).clamp_min(0).sqrt()
            errors.append(torch.stack([along.abs().mean(0), across.mean(0)]))
        if errors:
            mean = torch.stack(errors).mean(0)
            worst = mean.square().sum(0).argsort(descending=True)[:4].tolist()
            cells = ["{:.3f} / {:.3f}".format(*mean.mean(1).tolist())]
            cells += ["{} {:.3f} / {:.3f}".format(names[j], *mean[:, j].tolist()) for j in worst]
            lines.append(_line(scene, cells))
    return [*lines, ""] if len(lines) > 4 else []


def _head(names: Sequence[str]) -> list[str]:
    return [_line("", names), "|---" * (len(names) + 1) + "|"]


def _line(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"


def main() -> int:
    """Write pictures and tables."""
    plan = read_plan()
    scenes = list(scenes_of(plan))
    lines = [*by_view(scenes, plan.seeds), *by_keypoint(scenes, plan.seeds)]
    columns = ", ".join(f"`{arm}`" + ("" if group == "presets" else f" ({group})") for group, arm in SHOWN)
    lines += [f"Side views of the middle frame, from left to right: truth, {columns}.", ""]
    for scene in scenes:
        sheet = picture(scene, plan.seeds[0])
        if sheet is not None:
            path = ROOT / "docs" / "images" / f"evidence_{scene}.png"
            write_png(path, sheet)
            lines += [f"![{scene} from both sides](images/{path.name})", ""]
    replace_between(PAGE, "where", lines)
    print(f"{PAGE.relative_to(ROOT)}: where the error sits, and pictures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
