"""The comparison of finished runs: the page says what their files say, asks no network, and names what is wrong."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from kg4d import fit as fit_command
from kg4d import report as command
from kg4d.comparison.arms import Comparison
from kg4d.comparison.films import write_side_by_side
from kg4d.comparison.finished import find_runs
from kg4d.comparison.page import write_page
from kg4d.data.spans import Span
from kg4d.data.videos import read_clip
from kg4d.errors import InputError
from kg4d.pipeline import fit
from kg4d.tracking.tables import number_text
from kg4d.utils.cli import run
from tests.tiny_runs import TINY, tiny

SHORT = ("static.steps=2", "dynamic.steps=2", "refine.steps=1", "wgf.weight=0", "export.formats=[mp4]")


class Page(HTMLParser):
    """Rows of tables by their head, addresses that are referred to, and elements that were left open."""

    VOID = ("meta", "link", "input", "img", "rect", "wbr", "polyline")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: dict[str, list[str]] = {}
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.head, self.cells = "", list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.head, self.cells = "", []
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag
        if tag == "tr":
            self.rows[self.head.strip()] = [cell.strip() for cell in self.cells]

    def handle_data(self, data: str) -> None:
        if "td" in self.open:
            self.cells[-1] += data
        elif "th" in self.open:
            self.head += data


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs of one experiment: variants that differ in a setting."""
    output = tmp_path_factory.mktemp("runs")
    first, second = tiny(output, *SHORT), tiny(output, *SHORT, "kfc.weight=0")
    return fit(replace(first, variants={"full": []})), fit(replace(second, variants={"no_kfc": []}))


@pytest.fixture
def copied(pair: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """The same, to be damaged."""
    return tuple(Path(shutil.copytree(path, tmp_path / path.parent.name)) for path in pair)  # type: ignore[return-value]


def page_of(*runs: Path, out: Path, against: str | None = None) -> tuple[str, Page]:
    found = find_runs(runs)
    write_page(out / "report.html", Comparison.of(found.runs, found.left_out, against))
    text = (out / "report.html").read_text(encoding="utf-8")
    return text, Page(text)


def edit(path: Path, change: Callable[[dict], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_the_page_has_the_figures_of_the_runs(pair: tuple[Path, Path], tmp_path: Path) -> None:
    text, page = page_of(*pair, out=tmp_path)
    assert page.open == []
    first, second = (json.loads((path / "metrics.json").read_text()) for path in pair)
    for key, head in {"test/psnr": "test/psnr ↑ dB", "keypoints/error_3d": "keypoints/error_3d ↓ world units"}.items():
        cells, values = page.rows[head], (first["metrics"][key], second["metrics"][key])
        assert cells[0] == number_text(values[0])
        assert cells[1] == f"{number_text(values[1])} {values[1] - values[0]:+.3g}"
    views = [page.rows[f"view {view} ({azimuth}°)"] for view, azimuth in enumerate((-75, 15, 105, 195))]
    shown = first["per_view"]["test/ssim_full"]  # the table of the last metric is read last
    assert [row[0] for row in views] == [number_text(value) for value in shown]
    record = json.loads((pair[0] / "run.json").read_text())
    assert page.rows["dynamic, renders"][0] == str(record["stages"]["dynamic"]["renders"])
    assert page.rows["kfc.weight"][1] == "0.0"
    assert "seed" not in page.rows
    assert "Shading counts as flicker" in text
    assert 'aria-label="static/loss over the steps, a line for each of full, no_kfc"' in text


def test_it_asks_nothing_of_a_network(pair: tuple[Path, Path], tmp_path: Path) -> None:
    text, page = page_of(*pair, out=tmp_path)
    assert page.addresses
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert not re.search(r"https?://|//[a-z]+\.|url\(|@import", re.sub(r"base64,[\w+/=]+", "", text))


def test_videos_stand_beside_each_other(pair: tuple[Path, Path], tmp_path: Path) -> None:
    text, _ = page_of(*pair, out=tmp_path)
    assert text.count("<video") == 2 * 6  # reference, four held-out views, orbit
    found = find_runs(pair)
    written = write_side_by_side(Comparison.of(found.runs), tmp_path / "video")
    assert [path.stem for path in written] == [
        f"walker_{v}" for v in ("reference", *map("test_{}".format, range(4)), "orbit")
    ]
    beside = read_clip(written[1], Span(100)).frames[..., :3]
    single = read_clip(pair[1] / "export/video/test_0.mp4", Span(100)).frames[..., :3]
    assert beside.shape[1:3] == (32, 3 * 32)
    assert (beside[:, :, 64:] - single[:, :, :32]).abs().mean() < 0.02  # truth, full, no_kfc
    assert (beside[:, :, :32] - single[:, :, 32:64]).abs().mean() < 0.02


def test_the_command_writes_page_tables_and_videos(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    above = pair[0].parents[1]
    words = ["--runs", str(above), "--out", str(tmp_path), "--against", "no_kfc"]
    assert run(command.main, command.parser(), words) == 0
    assert f"report   {tmp_path / 'report.html'}" in capsys.readouterr().out
    assert json.loads((tmp_path / "table.json").read_text())["compared_to"] == "no_kfc"
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "table.md", "table.csv", "table.json", "video"}


def test_a_fit_ends_with_the_page_of_its_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "two.yaml").write_text(
        f"extends: {Path('experiments/kg4d.yaml').resolve()}\nname: two\nvariants: {{one: [], other: [kfc.weight=0]}}\n"
    )
    words = [*TINY, *SHORT, "lift.steps=5", f"output={tmp_path}"]
    arguments = ["--config", str(tmp_path / "two.yaml"), *words]
    assert run(fit_command.main, fit_command.parser(), [*arguments, "--variant", "other"]) == 0
    page = tmp_path / "two" / "report.html"
    assert "one/seed0: not finished" in page.read_text(encoding="utf-8")
    assert run(fit_command.main, fit_command.parser(), [*arguments, "--resume"]) == 0
    assert f"report   {page}" in capsys.readouterr().out
    assert Page(page.read_text(encoding="utf-8")).rows["kfc.weight"][1] == "0.0"


@pytest.mark.parametrize(
    "what", ["no run", "nothing", "unfinished", "damaged metrics", "damaged record", "no such arm"]
)
def test_bad_input_is_one_line(
    copied: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    first, second = copied
    words = ["--runs", str(first), str(second), "--out", str(tmp_path / "out")]
    if what == "no run":
        (tmp_path / "empty").mkdir()
        words[1] = str(tmp_path / "empty")
    elif what == "nothing":
        words[1] = str(tmp_path / "nowhere")
    elif what == "unfinished":
        (first / "metrics.json").unlink()
    elif what == "damaged metrics":
        (first / "metrics.json").write_text('{"metrics": {"test/psnr": "high"}}')
    elif what == "damaged record":
        edit(first / "run.json", lambda record: record["stages"]["static"].pop("renders"))
    else:
        words += ["--against", "fulll"]
    assert run(command.main, command.parser(), words) == 2
    message = capsys.readouterr().err
    assert message.startswith("kg4d: error: ")
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_unfinished_run_below_a_folder_is_named_on_the_page(copied: tuple[Path, Path], tmp_path: Path) -> None:
    (copied[1] / "metrics.json").unlink()
    text, page = page_of(tmp_path, out=tmp_path / "out")
    assert f"{copied[1]}: left out, the run is not finished" in text
    assert len(page.rows["test/psnr ↑ dB"]) == 1


def test_what_is_not_comparable_is_said_and_not_subtracted(copied: tuple[Path, Path], tmp_path: Path) -> None:
    def other_protocol(measured: dict) -> None:
        measured["protocol"]["name"] = "sv4d-21"
        measured["provenance"]["trained_on_test_views"] = True

    def other_machine(record: dict) -> None:
        record |= {"device": "another", "git_commit": "0" * 40}

    edit(copied[1] / "metrics.json", other_protocol)
    edit(copied[1] / "run.json", other_machine)
    text, page = page_of(*copied, out=tmp_path / "out")
    for said in ("different protocols", "seen the test views", "no scene and seed in common", "different machines"):
        assert said in text
    assert re.fullmatch(r"[\d.]+", page.rows["test/psnr ↑ dB"][1])  # no difference beside it


def test_runs_of_one_name_are_told_apart_by_their_folders(copied: tuple[Path, Path], tmp_path: Path) -> None:
    again = shutil.copytree(copied[0], tmp_path / "again")
    found = find_runs([copied[0], again, copied[0]])
    assert list(Comparison.of(found.runs).arms) == [str(copied[0]), str(again)]


def test_what_people_write_is_text_on_the_page(copied: tuple[Path, Path], tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    edit(copied[0] / "metrics.json", lambda measured: measured["provenance"]["skipped"].update({"test/own": hostile}))
    text, page = page_of(*copied, out=tmp_path / "out")
    assert hostile not in text
    assert page.rows["test/own"][0] == hostile


def test_a_run_without_videos_shows_its_last_preview(copied: tuple[Path, Path], tmp_path: Path) -> None:
    for path in copied:
        shutil.rmtree(path / "export")
    text, _ = page_of(*copied, out=tmp_path / "out")
    assert "<video" not in text
    assert text.count("data:image/png") == 2


def test_there_is_no_comparison_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has none below"):
        find_runs([tmp_path])
