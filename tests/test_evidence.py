import re
from pathlib import Path

import pytest
import torch

from evidence.plan import ROOT, Arm, Group, Job, jobs, read_plan, share_in_plan
from evidence.report import TABLES, Values, arms_of, brief_table, gap_closed, replace_between, table
from evidence.run import job_of, left_to_do, run_folder
from kg4d.config.load import load_config
from kg4d.config.schema import ExperimentConfig
from kg4d.runs.folder import RunFolder, run_hash
from kg4d.stages.checkpoints import read_checkpoint
from kg4d.sweeps import sharing
from kg4d.sweeps.attempt import End, attempt
from tests.tiny_runs import TINY

PLAN = read_plan()
SCENES = ["a", "b"]


@pytest.fixture
def no_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KG4D_DATA", str(tmp_path))


@pytest.mark.usefixtures("no_data")
def test_without_the_data_set_the_synthetic_characters_are_fitted() -> None:
    assert {job.scene for job in jobs(PLAN, Path("out"))} == {"walker", "swimmer"}


@pytest.mark.parametrize("group", PLAN.groups)
def test_every_arm_is_a_valid_configuration_of_its_own(group: str) -> None:
    one = [job for job in jobs(PLAN, Path("out")) if job.group == group and job.seed == 0]
    first = [job for job in one if job.scene == one[0].scene]
    made = {job.arm: load_config(ExperimentConfig, job.config, job.overrides) for job in first}
    assert list(made) == list(PLAN.groups[group].arms)
    assert len({repr({**vars(config), "variants": None}) for config in made.values()}) == len(made)


def test_a_plan_names_the_arm_it_compares_to(tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    groups = "{g: {title: t, against: nobody, arms: {}}}"
    text = f"scenes: {{}}, mirrored: {{}}, synthetic: {{}}, seeds: [], common: [], groups: {groups}"
    plan.write_text("{" + text + "}", encoding="utf-8")
    with pytest.raises(ValueError, match="nobody"):
        read_plan(plan)


def test_a_group_may_have_fewer_seeds(tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    arms = "against: a, arms: {a: {config: configs/kg4d.yaml}}"
    groups = f"{{all: {{title: t, {arms}}}, few: {{title: t, seeds: [1], {arms}}}}}"
    scenes = "scenes: {a: [scene=nowhere]}, mirrored: {}, synthetic: {walker: ['scene=synthetic:walker']}"
    text = f"{{{scenes}, seeds: [0, 1], common: [], groups: {groups}}}"
    plan.write_text(text, encoding="utf-8")
    found = [(job.group, job.seed) for job in jobs(read_plan(plan), tmp_path)]
    assert found == [("all", 0), ("all", 1), ("few", 1)]


def presets() -> Values:
    psnr = {"hexplane_images": 18.0, "recommended": 24.0, "floor": 17.0, "ceiling": 27.0}
    return {
        ("presets", arm, scene, seed): {"test/psnr": value + 0.5 * seed}
        for arm, value in psnr.items()
        for scene in SCENES
        for seed in (0, 1)
    }


def test_tables_show_means_spreads_and_paired_differences() -> None:
    text = "\n".join(table(presets(), "presets", PLAN.groups["presets"], SCENES))
    assert "| hexplane_images | 18.25 ± 0.35 | 18.25 ± 0.35 | 18.25 |  |" in text
    assert "| recommended | 24.25 ± 0.35 | 24.25 ± 0.35 | 24.25 | +6.00 (+6.00 to +6.00) |" in text
    assert "LPIPS" not in text  # nobody measured it
    assert "| kg4d |" not in text


def test_the_page_has_one_table_a_group_its_first_metric_whole_and_the_means_of_others() -> None:
    values = {key: {**found, "train/psnr": found["test/psnr"] + 6} for key, found in presets().items()}
    lines = brief_table(values, "presets", PLAN.groups["presets"], SCENES)
    assert "| PSNR, dB | a | b | mean | minus hexplane_images | reference view, dB |" in lines
    assert "| hexplane_images | 18.25 ± 0.35 | 18.25 ± 0.35 | 18.25 |  | 24.25 |" in lines
    assert "| recommended | 24.25 ± 0.35 | 24.25 ± 0.35 | 24.25 | +6.00 (+6.00 to +6.00) | 30.25 |" in lines
    del values["presets", "floor", "a", 0]["train/psnr"], values["presets", "floor", "a", 1]["train/psnr"]
    assert "| floor | 17.25 ± 0.35 | 17.25 ± 0.35 | 17.25 | -1.00 (-1.00 to -1.00) | – |" in brief_table(
        values, "presets", PLAN.groups["presets"], SCENES
    )
    assert brief_table(values, "method", PLAN.groups["method"], SCENES) == []


def test_the_page_has_no_figure_that_the_whole_tables_lack() -> None:
    page, tables = (between((ROOT / name).read_text(encoding="utf-8")) for name in ("docs/evidence.md", TABLES))
    figures = re.findall(r"(?<=\| )[-+]?\d+\.\d[^|]*(?= \|)", page)
    assert len(figures) > 100
    assert set(figures) <= set(re.findall(r"(?<=\| )[-+]?\d+\.\d[^|]*(?= \|)", tables))


def between(text: str) -> str:
    return text.split("<!-- tables -->")[1].split("<!-- /tables -->")[0]


def test_a_section_says_what_its_arms_are() -> None:
    group = Group(title="t", against="hexplane_images")
    group.arms["hexplane_images"] = Arm("configs/hexplane_images.yaml")
    group.arms["mine"] = Arm("configs/kg4d.yaml")
    group.arms["few"] = Arm("configs/kg4d.yaml", ["keypoints.count=6", "wgf.weight=0"])
    expected = "Arms: hexplane_images; mine: `kg4d`; few: `kg4d` with `keypoints.count=6`, `wgf.weight=0`."
    assert arms_of(group) == expected
    assert expected in table({("t", "few", "a", 0): {"test/psnr": 1.0}}, "t", group, ["a"])


def test_a_group_that_was_not_run_has_no_table() -> None:
    assert table(presets(), "detections", PLAN.groups["detections"], SCENES) == []


def test_a_mean_over_scenes_needs_all_of_them() -> None:
    values = {key: value for key, value in presets().items() if key[:3] != ("presets", "recommended", "b")}
    text = "\n".join(table(values, "presets", PLAN.groups["presets"], SCENES))
    assert "| recommended | 24.25 ± 0.35 | – | – | +6.00 (+6.00 to +6.00) |" in text


def test_mirrored_scenes_are_shown_and_not_counted() -> None:
    values = {
        ("presets", arm, scene, 0): {"test/psnr": 18.0 + (arm == "recommended") * effect}
        for arm in ("hexplane_images", "recommended")
        for effect, scene in zip((5.0, 6.0, 7.0, 1.0), ("a", "b", "c", "a_mirrored"), strict=True)
    }
    text = "\n".join(table(values, "presets", PLAN.groups["presets"], ["a", "b", "c"], ["a_mirrored"]))
    assert "| recommended | 23.00 | 24.00 | 25.00 | 24.00 | +6.00 [+3.52, +8.48] | 19.00 |" in text


def test_only_groups_that_ask_for_them_have_mirrored_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("fox", "cesium_man", "drone"):
        (tmp_path / "gltf4d" / name).mkdir(parents=True)
    monkeypatch.setenv("KG4D_DATA", str(tmp_path))
    found = {group: {job.scene for job in jobs(PLAN, Path("out")) if job.group == group} for group in PLAN.groups}
    assert found["presets"] - found["method"] == {"fox_mirrored", "cesium_man_mirrored"}
    assert found["method"] == {"fox", "cesium_man", "drone"}
    job = next(job for job in jobs(PLAN, Path("out")) if job.scene == "fox_mirrored")
    config = load_config(ExperimentConfig, job.config, job.overrides)
    assert config.world.mirrored
    assert config.scene == str(tmp_path / "gltf4d" / "fox")


def test_an_interval_is_that_of_the_scenes_whatever_seeds_they_have() -> None:
    """Scenes differ by 1, seeds by little: nine pairs are no nine independent differences."""
    values = {
        ("presets", arm, scene, seed): {"test/psnr": 18.0 + (arm == "recommended") * (5.0 + effect + 0.01 * seed)}
        for arm in ("hexplane_images", "recommended")
        for effect, scene in enumerate("abc")
        for seed in range(3)
    }
    text = "\n".join(table(values, "presets", PLAN.groups["presets"], ["a", "b", "c"]))
    assert "| +6.01 [+3.53, +8.49] |" in text  # 4.303 / sqrt(3) about the mean of 5.01, 6.01 and 7.01


def test_the_gap_reaches_from_the_floor_to_the_ceiling() -> None:
    lines = gap_closed(presets(), SCENES)
    assert "| recommended | 70 | 70 |" in lines
    assert "| hexplane_images | 10 | 10 |" in lines
    assert not any("ceiling |" in line for line in lines)


def test_what_stands_between_two_markers_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a -->\nold\n<!-- /a -->\nafter <!-- b -->\n", encoding="utf-8")
    for _ in range(2):
        replace_between(page, "a", ["one", "two", ""])
    assert page.read_text(encoding="utf-8") == "before\n<!-- a -->\n\none\ntwo\n<!-- /a -->\nafter <!-- b -->\n"


def test_a_group_can_be_compared_with_an_arm_of_another() -> None:
    values = presets() | {
        ("detections", "noisy", s, seed): {"test/psnr": 22.0 + 0.5 * seed} for s in SCENES for seed in (0, 1)
    }
    text = "\n".join(table(values, "detections", PLAN.groups["detections"], SCENES))
    assert "| noisy | 22.25 ± 0.35 | 22.25 ± 0.35 | 22.25 | -2.00 (-2.00 to -2.00) |" in text
    assert "minus presets/recommended" in text


def stages_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *changed: str) -> set[str]:
    """Of a finished run, by a run with some settings changed."""
    monkeypatch.setattr(sharing, "reseal", lambda path, run: None)
    first, second = (
        load_config(ExperimentConfig, None, [f"output={tmp_path}/{group}", *words])
        for group, words in (("first", ()), ("second", changed))
    )
    RunFolder.of(first).begin(first)
    done, new = RunFolder.of(first).checkpoints, RunFolder.of(second).checkpoints
    done.mkdir(parents=True, exist_ok=True)
    for stage in ("static", "dynamic", "refine"):
        (done / f"{stage}.ckpt").write_text(stage)
    share_in_plan(second)
    assert all(file.read_text() == file.stem for file in new.glob("*.ckpt"))
    return {file.stem for file in new.glob("*.ckpt")}


@pytest.mark.parametrize(
    ("changed", "stages"),
    [
        ("evaluation.networks=false", {"static", "dynamic", "refine"}),
        ("wgf.weight=7", {"static"}),
        ("lift.weight=7", {"static"}),
        ("kfc.weight=7", set()),
        ("detections.noise_px=1", set()),
        ("world.mirrored=true", set()),
        ("optimizer.eps=1e-3", set()),
        ("static.steps=7", set()),
    ],
)
def test_runs_share_the_stages_that_would_come_out_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str, stages: set[str]
) -> None:
    assert stages_taken_over(tmp_path, monkeypatch, changed) == stages


def test_stages_that_are_shared_belong_to_the_run_that_takes_them(
    tmp_path: Path,
) -> None:
    short = (*TINY, "static.steps=2", "dynamic.steps=2", "refine.steps=1")
    words = [
        (*short, f"output={tmp_path / group}", "name=walker", f"wgf.weight={weight}")
        for group, weight in (("one", 1), ("other", 0))
    ]
    for its in words:
        job = job_of(Job("g", "a", "walker", 0, ROOT / "configs/kg4d.yaml", its), 1, 1)
        assert attempt(job, lambda step, value: True).end is End.DONE
    first, second = (load_config(ExperimentConfig, ROOT / "configs/kg4d.yaml", its) for its in words)
    files = [(RunFolder.of(one).checkpoints / "static.ckpt", run_hash(one)) for one in (first, second)]
    static = [read_checkpoint(path, run=hashed) for path, hashed in files]
    assert torch.equal(static[0]["state_dict"]["model.means"], static[1]["state_dict"]["model.means"])
    assert "already done" in RunFolder.of(second).log.read_text()
    assert RunFolder.of(second).metrics.is_file()


def test_what_lies_there_from_before_is_not_fitted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout of run folders is that of `docs/evidence.md` since its first edition."""
    monkeypatch.setattr("evidence.run.OUTPUT", tmp_path)
    planned = [job for job in jobs(PLAN, tmp_path) if job.group == "method"][:3]
    assert [job.folder.path for job in left_to_do(planned)] == [
        run_folder(job.group, job.arm, job.scene, job.seed).path for job in planned
    ]
    first = job_of(planned[0], 1, 3)
    folder, config = tmp_path / "method" / planned[0].scene / planned[0].arm / "seed0", first.run.config
    RunFolder(folder).begin(config)
    (folder / "checkpoints").mkdir()
    for stage in ("static", "dynamic", "refine"):
        (folder / "checkpoints" / f"{stage}.ckpt").touch()
    (folder / "run.json").touch()
    (folder / "metrics.json").write_text('{"metrics": {}}')
    assert [job.label for job in left_to_do(planned)] == [job_of(one, n, 3).label for n, one in enumerate(planned, 1)][
        1:
    ]
