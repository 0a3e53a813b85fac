import csv
import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import lightning
import pytest
import torch

from kg4d.errors import InputError
from kg4d.formats.mp4 import write_mp4
from kg4d.tracking.settings import TrackingConfig, WandbConfig, WandbMode
from kg4d.tracking.stage_logger import StageLogger
from kg4d.tracking.tables import AblationTable, ablation_table
from kg4d.tracking.tracker import Tracker, log_table
from tests.offline_runs import keep_wandb_in, offline_runs


class Kind(StrEnum):
    GOOD = "good"


@dataclass
class Settings:
    kind: Kind = Kind.GOOD
    values: list[float] = field(default_factory=lambda: [1.0, 2.0])


@dataclass
class SmallExperiment:
    name: str = "walk"
    inner: Settings = field(default_factory=Settings)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


def tracking(mode: WandbMode) -> TrackingConfig:
    return TrackingConfig(WandbConfig(mode=mode, project="test-project", tags=["tag"]))


@pytest.fixture(autouse=True)
def private_home(tmp_path_factory, monkeypatch):
    keep_wandb_in(tmp_path_factory.mktemp("home"), monkeypatch)


@pytest.fixture(scope="module")
def logged(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("walk") / "full" / "seed3"
    experiment = SmallExperiment(tracking=tracking(WandbMode.OFFLINE))
    write_mp4(folder / "orbit.mp4", torch.rand(3, 16, 16, 3), fps=8)
    with Tracker.of(experiment, folder, {"variant": "full"}) as tracker:
        tracker.begin("static")
        for step in range(3):
            tracker.image("preview/static", torch.full((4, 6, 3), step / 2), step + 1)  # before the step's own metrics
            tracker.log("static", step, {"loss": 1.0 - step})
            tracker.log("static", step, {"psnr": 20.0 + step})
        tracker.log("dynamic", 0, {"loss": 5.0})
        tracker.image("preview/dynamic", (torch.rand(4, 6, 3) * 255).byte(), 0)
        tracker.final({"test/psnr": 21.5})
        tracker.video("video/orbit", folder / "orbit.mp4")
        tracker.table("numbers", ["a", "b"], [[1, "x"], [2, None]])
    return folder


def test_a_run_is_named_and_described(logged):
    (run,) = offline_runs(logged)
    assert (run.project, run.group, run.name, run.tags) == ("test-project", "walk", "full/seed3", ["tag"])
    assert run.config["inner"] == {"kind": "good", "values": [1.0, 2.0]}
    assert run.config["tracking"]["wandb"]["mode"] == "offline"
    assert run.summary["test/psnr"] == 21.5
    assert run.job_type == "fit"
    assert run.exit_code == 0


def test_scalars_are_in_wandb_and_in_the_csv(logged):
    (run,) = offline_runs(logged)
    with (logged / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["static/loss"] for row in rows] == ["1.0", "0.0", "-1.0", ""]
    assert [row["static/psnr"] for row in rows] == ["20.0", "21.0", "22.0", ""]
    for row in rows:
        (logged_row,) = [entry for entry in run.history if entry["_step"] == int(row["step"])]
        for name in ("static/loss", "static/psnr", "dynamic/loss"):
            assert logged_row.get(name) == (float(row[name]) if row[name] else None)


def test_steps_only_rise_and_pictures_keep_theirs(logged):
    (run,) = offline_runs(logged)
    steps = [entry["_step"] for entry in run.history]
    assert steps == sorted(set(steps))
    pictures = {entry["_step"] for entry in run.history if "preview/static.path" in entry}
    assert pictures == {1, 2, 3}


def test_media_are_files_in_the_run_folder(logged):
    (run,) = offline_runs(logged)
    everything = {name: value for entry in run.history for name, value in entry.items()}
    files = next(logged.glob("wandb/offline-run-*/files"))
    assert everything["preview/static._type"] == "image-file"
    assert everything["video/orbit._type"] == "video-file"
    assert everything["numbers._type"] == "table-file"
    assert (files / everything["video/orbit.path"]).read_bytes() == (logged / "orbit.mp4").read_bytes()
    table = json.loads((files / everything["numbers.path"]).read_text())
    assert (table["columns"], table["data"]) == (["a", "b"], [[1, "x"], [2, None]])
    kinds = Counter(path.suffix for path in (files / "media").rglob("*") if path.is_file())
    assert kinds == {".png": 4, ".mp4": 1, ".json": 1}


def test_a_resumed_run_goes_on_under_its_id(tmp_path):
    experiment = SmallExperiment(tracking=tracking(WandbMode.OFFLINE))
    with Tracker.of(experiment, tmp_path, {}) as tracker:
        for step in range(4):
            tracker.log("static", step, {"loss": 0.0})
    with Tracker.of(experiment, tmp_path, {}) as tracker:
        for step in range(2, 6):
            tracker.log("static", step, {"loss": 1.0})
    first, second = offline_runs(tmp_path)
    assert first.id == second.id != ""
    assert [entry["_step"] for entry in second.history] == [2, 3, 4, 5]
    with (tmp_path / "metrics.csv").open(newline="") as file:
        assert [row["static/loss"] for row in csv.DictReader(file)] == ["0.0", "0.0", "1.0", "1.0", "1.0", "1.0"]


def test_a_run_that_fails_is_marked_and_keeps_what_it_logged(tmp_path):
    def fail() -> None:
        with Tracker.of(SmallExperiment(tracking=tracking(WandbMode.OFFLINE)), tmp_path, {}) as tracker:
            tracker.log("static", 0, {"loss": 0.5})
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    (run,) = offline_runs(tmp_path)
    assert run.exit_code == 1
    assert [entry["static/loss"] for entry in run.history] == [0.5]
    assert "0.5" in (tmp_path / "metrics.csv").read_text()


def test_the_table_of_an_experiment_is_a_run_of_its_group(tmp_path):
    results = {"full": {"fox": {0: {"test/psnr": 20.0}}}, "no_wgf": {"fox": {0: {"test/psnr": 19.0}}}}
    table = ablation_table(results)
    log_table(tracking(WandbMode.OFFLINE), tmp_path, "walk", table)
    (run,) = offline_runs(tmp_path)
    assert (run.group, run.name, run.job_type) == ("walk", "table", "table")
    (path,) = tmp_path.glob("wandb/offline-run-*/files/media/table/*.json")
    logged = json.loads(path.read_text())
    assert logged["columns"] == table.columns
    assert logged["data"] == table.rows
    assert not (tmp_path / "metrics.csv").exists()


def test_disabled_leaves_the_csv_alone_and_needs_no_wandb(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with Tracker(tracking(WandbMode.DISABLED), tmp_path, "group", "name", {}) as tracker:
        tracker.log("static", 0, {"loss": 1.0})
        tracker.image("preview", torch.zeros(2, 2, 3), 0)
        tracker.video("video", Path("missing.mp4"))
        tracker.table("table", ["a"], [[1]])
        tracker.final({"a": 1.0})
        tracker.watch("static", 0, {"renders_per_second": 1.0})
        tracker.histogram("opacities", torch.zeros(3), 0)
        tracker.points("points", torch.zeros(3, 3), torch.zeros(3, 3))
        assert not tracker.is_shown
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_nothing_is_printed(tmp_path, capfd):
    with Tracker(tracking(WandbMode.OFFLINE), tmp_path, "group", "name", {}) as tracker:
        tracker.log("static", 0, {"loss": 1.0})
    assert capfd.readouterr() == ("", "")


def test_online_without_a_login_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"tracking.wandb.mode: .*\(.*wandb login"):
        Tracker(tracking(WandbMode.ONLINE), tmp_path, "group", "name", {})


class TwoOptimizers(lightning.LightningModule):
    """Steps two optimisers a batch and logs every second batch."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.a, self.b = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)

    def configure_optimizers(self):
        return [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in (self.a, self.b)]

    def training_step(self, batch, batch_idx):
        for optimizer, layer in zip(self.optimizers(), (self.a, self.b), strict=True):
            optimizer.zero_grad()
            self.manual_backward(layer(batch).square().mean())
            optimizer.step()
        if batch_idx % 2 == 0:
            self.log_dict({"loss": float(batch_idx), "step": float(batch_idx)})


def test_what_a_lightning_module_logs_reaches_the_tracker(tmp_path):
    with Tracker(tracking(WandbMode.DISABLED), tmp_path, "group", "name", {}) as tracker:
        for stage in ("static", "dynamic"):
            trainer = lightning.Trainer(
                accelerator="cpu",
                max_epochs=1,
                logger=StageLogger(tracker, stage),
                log_every_n_steps=1,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                default_root_dir=tmp_path,
            )
            trainer.fit(TwoOptimizers(), torch.utils.data.DataLoader(torch.ones(5, 1), batch_size=1))
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["step", "stage", "stage_step", "static/loss", "dynamic/loss"]
    assert rows[1:4] == [
        ["0", "static", "0", "0.0", ""],
        ["2", "static", "2", "2.0", ""],
        ["4", "static", "4", "4.0", ""],
    ]
    assert rows[4:] == [
        ["5", "dynamic", "0", "", "0.0"],
        ["7", "dynamic", "2", "", "2.0"],
        ["9", "dynamic", "4", "", "4.0"],
    ]


def test_in_a_sweep_the_fit_alone_takes_the_id_of_the_agent(tmp_path, monkeypatch):
    table = AblationTable(("full",), (), {})
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    log_table(tracking(WandbMode.OFFLINE), tmp_path / "in a sweep", "experiment", table)
    assert not (tmp_path / "in a sweep").exists()
    monkeypatch.delenv("WANDB_SWEEP_ID")
    log_table(tracking(WandbMode.DISABLED), tmp_path / "alone", "experiment", table)
