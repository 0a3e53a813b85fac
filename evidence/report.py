"""Write the tables of the finished runs: all of them to evidence/tables.md, the main ones to docs/evidence.md.

    python -m evidence.report

Everything between the markers `<!-- tables -->` and `<!-- /tables -->` is replaced; the reading around it is written by
hand.
"""

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from evidence.plan import ROOT, Group, compared_with, jobs, read_plan, scenes_of
from evidence.run import OUTPUT, run_folder
from kg4d.metrics.intervals import paired_difference
from kg4d.tracking.tables import difference_text
from kg4d.utils.files import replacing

PAGE = ROOT / "docs" / "evidence.md"
TABLES = ROOT / "evidence" / "tables.md"
MAIN = ("presets", "method", "handles")  # groups that the page has too,
BRIEFLY = ("test/psnr", "keypoints/error_3d", "train/psnr")  # with these metrics
METRICS = {
    "test/psnr": ("PSNR, dB", "{:.2f}"),
    "test/psnr_masked": ("masked PSNR, dB", "{:.2f}"),
    "keypoints/error_3d": ("3D error of drawn keypoints", "{:.3f}"),
    "keypoints/error_3d_tracks": ("3D error of the reported tracks", "{:.3f}"),
    "test/lpips_vgg": ("LPIPS-VGG", "{:.4f}"),
    "test/fvd_f": ("FVD-F", "{:.0f}"),
    "train/psnr": ("reference view, dB", "{:.2f}"),
    "orbit/specks": ("specks in views from around", "{:.2f}"),
    "orbit/holes": ("holes in views from around", "{:.3f}"),
    "heldout/psnr": ("frames between, reference view, dB", "{:.2f}"),
}
Values = dict[tuple[str, str, str, int], dict[str, float]]  # group, arm, scene, seed -> metric -> value


def read_results() -> Values:
    """Metrics of all runs that are done."""
    found = {}
    for job in jobs(read_plan(), OUTPUT):
        reached = run_folder(job.group, job.arm, job.scene, job.seed).read_metrics()
        if reached is not None:
            found[job.group, job.arm, job.scene, job.seed] = reached["metrics"]
    return found


def table(values: Values, name: str, group: Group, scenes: Sequence[str], mirrored: Sequence[str] = ()) -> list[str]:
    """One group: for each metric a row per arm, with the scenes, their mean and the paired difference.

    Args:
        values: Of all runs.
        name: Of the group.
        group: Its arms and metrics.
        scenes: What mean and difference are over.
        mirrored: Shown only: they are no scenes of their own.
    """
    lines: list[str] = []
    for metric in group.metrics or METRICS:
        label, number = METRICS[metric]
        base = compared_with(name, group)
        rows = [_row(values, (name, arm), base, metric, number, scenes, mirrored) for arm in group.arms]
        if any(rows):
            head = ["", *scenes, "mean", f"minus {group.against}", *mirrored]
            lines += [f"**{label}**", "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
            lines += [row for row in rows if row] + [""]
    return [f"### {group.title}", "", arms_of(group), "", *lines] if lines else []


def brief_table(values: Values, name: str, group: Group, scenes: Sequence[str]) -> list[str]:
    """One group in one table: the first of its metrics as in `table`, of the others the means over the scenes."""
    measured = {metric for (its_group, *_), found in values.items() if its_group == name for metric in found}
    metrics = [metric for metric in BRIEFLY if metric in measured]
    if not metrics:
        return []
    first, *others = (METRICS[metric][0] for metric in metrics)
    head = [first, *scenes, "mean", f"minus {group.against}", *others]
    rows = []
    for arm in group.arms:
        parts = [
            _row(values, (name, arm), compared_with(name, group), metric, METRICS[metric][1], scenes, ())
            for metric in metrics
        ]
        if parts[0] is not None:
            means = ["–" if part is None else part.split(" | ")[1 + len(scenes)] for part in parts[1:]]
            rows.append(" | ".join([parts[0].removesuffix(" |"), *means]) + " |")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *rows, ""]
    return [f"### {group.title}", "", arms_of(group), "", *lines]


def arms_of(group: Group) -> str:
    """What the arms of a group are: their preset, and what is changed in it."""
    described = []
    for name, arm in group.arms.items():
        preset = Path(arm.config).stem
        changed = f" with {', '.join(f'`{change}`' for change in arm.set)}" if arm.set else ""
        described.append(f"{name}: `{preset}`{changed}" if changed or name != preset else name)
    return f"Arms: {'; '.join(described)}."


def _row(
    values: Values,
    row: tuple[str, str],
    against: tuple[str, str],
    metric: str,
    number: str,
    scenes: Sequence[str],
    mirrored: Sequence[str],
) -> str | None:
    def of(which: tuple[str, str]) -> dict[str, dict[int, float]]:
        by_scene: dict[str, dict[int, float]] = {}
        for (g, a, scene, seed), found in values.items():
            if (g, a) == which and metric in found:
                by_scene.setdefault(scene, {})[seed] = found[metric]
        return by_scene

    mine, base = of(row), of(against)
    if not mine:
        return None

    def cell(scene: str) -> str:
        sample = list(mine.get(scene, {}).values())
        spread = f" ± {number.format(statistics.stdev(sample))}" if len(sample) > 1 else ""
        return number.format(statistics.mean(sample)) + spread if sample else "–"

    known = [statistics.mean(mine[scene].values()) for scene in scenes if scene in mine]
    mean = number.format(statistics.mean(known)) if len(known) == len(scenes) else "–"
    counted = [{scene: found for scene, found in arm.items() if scene in scenes} for arm in (mine, base)]
    difference = None if row == against else paired_difference(*counted)
    text = "" if difference is None else difference_text(difference, number.replace(":", ":+"))
    return f"| {row[1]} | " + " | ".join([*map(cell, scenes), mean, text, *map(cell, mirrored)]) + " |"


def gap_closed(values: Values, scenes: Sequence[str]) -> list[str]:
    """Which share of the way from the static floor to the all-views ceiling each preset goes, by scene."""

    def mean(arm: str, scene: str) -> float | None:
        sample = [v["test/psnr"] for (g, a, s, _), v in values.items() if (g, a, s) == ("presets", arm, scene)]
        return statistics.mean(sample) if sample else None

    head = ["", *scenes]
    lines = ["**Share of the gap between floor and ceiling that is closed, %**", "", "| " + " | ".join(head) + " |"]
    lines.append("|---" * len(head) + "|")
    for arm in read_plan().groups["presets"].arms:
        if arm not in ("floor", "ceiling"):
            levels = [[mean(which, scene) for which in (arm, "floor", "ceiling")] for scene in scenes]
            lines.append(f"| {arm} | " + " | ".join(_share(*level) for level in levels) + " |")
    return [*lines, ""]


def _share(value: float | None, floor: float | None, ceiling: float | None) -> str:
    if value is None or floor is None or ceiling is None:
        return "–"
    return f"{100 * (value - floor) / (ceiling - floor):.0f}"


def replace_between(page: Path, marker: str, lines: Sequence[str]) -> None:
    """Put lines between `<!-- marker -->` and `<!-- /marker -->` of a page, in place of what is there."""
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(f"<!-- {marker} -->\n", 1)
    after = rest[rest.index(f"<!-- /{marker} -->") :]
    with replacing(page) as part:
        part.write_text(before + "\n".join([f"<!-- {marker} -->", "", *lines]) + after, encoding="utf-8")


def main() -> int:
    """Replace the tables of both pages."""
    plan, values = read_plan(), read_results()
    scenes = list(scenes_of(plan))
    whole, main_ones = [], []
    for name, group in plan.groups.items():
        whole += table(values, name, group, scenes, list(plan.mirrored) if group.mirrored else [])
        main_ones += brief_table(values, name, group, scenes) if name in MAIN else []
        if name == "presets" and whole:
            whole += gap_closed(values, scenes)
    replace_between(TABLES, "tables", whole)
    replace_between(PAGE, "tables", main_ones)
    expected = len(jobs(plan, OUTPUT))
    print(f"{PAGE.relative_to(ROOT)}, {TABLES.relative_to(ROOT)}: {len(values)} of {expected} runs")
    return 0 if len(values) == expected else 1


if __name__ == "__main__":
    sys.exit(main())
