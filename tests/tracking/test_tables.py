import csv
import json

import pytest

from kg4d.metrics.intervals import Ends
from kg4d.tracking.tables import ablation_table, print_metrics, print_table, write_tables

FOX = {
    "full": {
        0: {"test/psnr": 24.0, "test/lpips_vgg": 0.10, "own": 1.0},
        1: {"test/psnr": 26.0, "test/lpips_vgg": 0.12},
    },
    "no_wgf": {0: {"test/psnr": 23.0, "test/lpips_vgg": 0.13}, 1: {"test/psnr": 24.0, "test/lpips_vgg": 0.14}},
    "no_wgf_kfc": {1: {"test/psnr": 20.0}, 2: {"test/psnr": 22.0}},
}
RESULTS = {variant: {"fox": seeds} for variant, seeds in FOX.items()}


def test_mean_std_and_paired_difference_by_hand():
    cells = ablation_table(RESULTS).cells
    full, without = cells["test/psnr", "full"], cells["test/psnr", "no_wgf"]
    assert (full.mean, full.seeds, full.difference) == (25.0, 2, None)
    assert full.std == pytest.approx(2**0.5)
    assert without.difference.mean == pytest.approx(-1.5)
    assert without.difference[1:] == (-2.0, -1.0, Ends.RANGE)


def test_only_common_seeds_are_paired():
    difference = ablation_table(RESULTS).cells["test/psnr", "no_wgf_kfc"].difference
    assert difference == (20.0 - 26.0, None, None, None)


def test_the_pairing_removes_what_seeds_share():
    results = {
        "a": {"fox": {seed: {"m": 100.0 * seed} for seed in range(5)}},
        "b": {"fox": {seed: {"m": 100.0 * seed + 1.0} for seed in range(5)}},
    }
    cell = ablation_table(results).cells["m", "b"]
    assert cell.difference == (1.0, 1.0, 1.0, Ends.INTERVAL)
    assert cell.std > 100


def test_metrics_come_in_the_order_of_the_known_keys_and_unknown_ones_last():
    table = ablation_table(RESULTS)
    assert table.metrics == ("test/psnr", "test/lpips_vgg", "own")
    assert table.variants == ("full", "no_wgf", "no_wgf_kfc")


def test_the_three_files_hold_the_same_numbers(tmp_path):
    table = write_tables(tmp_path / "new", RESULTS)
    summary = json.loads((tmp_path / "new" / "table.json").read_text())
    assert summary["compared_to"] == "full"
    assert [list(row.values()) for row in summary["rows"]] == table.rows
    with (tmp_path / "new" / "table.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == table.columns
    assert rows == [["" if value is None else str(value) for value in row] for row in table.rows]
    psnr = dict(zip(table.columns, table.rows[0], strict=True))
    assert (psnr["metric"], psnr["better"], psnr["variant"], psnr["mean"]) == ("test/psnr", "higher", "full", 25.0)


def test_the_markdown_is_readable(tmp_path):
    write_tables(tmp_path, RESULTS)
    lines = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    assert lines[:5] == [
        "| metric | full | no_wgf | no_wgf_kfc |",
        "|---|---|---|---|",
        "| test/psnr ↑ (dB) | 25 ± 1.4 | 23.5 ± 0.71<br>-1.5 (-2 to -1) | 21 ± 1.4<br>-6 |",
        "| test/lpips_vgg ↓ | 0.11 ± 0.014 | 0.135 ± 0.0071<br>+0.025 (+0.02 to +0.03) | – |",
        "| own | 1 | – | – |",
    ]
    assert "over 1 to 2 seeds" in lines[6]
    assert "difference to full" in lines[6]


def test_the_same_results_give_the_same_files(tmp_path):
    for name in ("a", "b"):
        write_tables(tmp_path / name, RESULTS)
    for kind in ("md", "csv", "json"):
        first, second = (tmp_path / name / f"table.{kind}" for name in ("a", "b"))
        assert first.read_bytes() == second.read_bytes()


def test_a_single_run_makes_a_plain_table(tmp_path):
    write_tables(tmp_path, {"full": {"fox": {0: {"test/ssim": 0.91237}}}})
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "| test/ssim ↑ | 0.9124 |" in text
    assert "over 1 seed." in text


def over_scenes(count: int) -> dict[str, dict[str, dict[int, dict[str, float]]]]:
    """Scenes are 20, 21, ... in one variant, 1, 2, ... more in the other; seeds differ by 0.2."""
    return {
        variant: {
            f"scene{scene}": {seed: {"test/psnr": 20.0 + scene + gain * (1 + scene) + 0.2 * seed} for seed in range(2)}
            for scene in range(count)
        }
        for variant, gain in {"full": 0, "more": 1}.items()
    }


def test_over_scenes_the_sample_is_the_mean_of_each_scene():
    cells = ablation_table(over_scenes(3)).cells
    full, more = cells["test/psnr", "full"], cells["test/psnr", "more"]
    assert (full.mean, full.std, full.scenes, full.seeds) == (pytest.approx(21.1), pytest.approx(1.0), 3, 2)
    reach = 4.3027 / 3**0.5  # Student's t of two degrees of freedom
    assert full.spread[1:3] == pytest.approx((21.1 - reach, 21.1 + reach), abs=1e-3)
    assert more.difference[:3] == pytest.approx((2.0, 2 - reach, 2 + reach), abs=1e-3)  # of 1, 2 and 3


def test_a_scene_that_one_variant_lacks_is_not_compared():
    results = over_scenes(3)
    del results["full"]["scene2"]
    cells = ablation_table(results).cells
    assert cells["test/psnr", "full"].scenes == 2
    assert cells["test/psnr", "more"].difference == (pytest.approx(1.5), pytest.approx(1), pytest.approx(2), Ends.RANGE)


def test_the_table_says_that_it_is_over_scenes(tmp_path):
    write_tables(tmp_path, over_scenes(3))
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "| 21.1 ± 1 [18.62, 23.58] | 23.1 ± 2 [18.13, 28.07]<br>+2 [-0.484, +4.48] |" in text
    assert "over 3 scenes (each the mean of 2 seeds), with the 95 % interval" in text
    assert "paired by scene and seed" in text


def test_no_variant_is_an_error():
    with pytest.raises(ValueError, match="at least one variant"):
        ablation_table({})


def test_the_terminal_shows_the_table(capsys):
    print_table(ablation_table(RESULTS))
    shown = capsys.readouterr().out
    for text in ("test/psnr ↑ (dB)", "23.5 ± 0.71", "-1.5 (-2 to -1)", "no_wgf_kfc", "–", "difference to full"):
        assert text in shown


def test_the_terminal_shows_metrics_and_why_others_are_missing(capsys):
    print_metrics({"test/psnr": 24.318, "own": 2.0}, {"test/fid": "no weights"})
    shown = capsys.readouterr().out
    for text in ("test/psnr ↑ (dB)", "24.32", "own", "test/fid ↓", "–", "no weights"):
        assert text in shown


NAMES = [f"a_variant_with_a_long_name_{number}" for number in range(8)]


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, {"COLUMNS": "40"}])
def test_in_a_pipe_a_table_has_its_full_width_and_no_colours(capsys, monkeypatch, environment):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    print_table(ablation_table(dict.fromkeys(NAMES, FOX_SEEDS)))
    lines = capsys.readouterr().out.splitlines()
    assert all(name in lines[1] for name in NAMES)
    assert len([line for line in lines if line.startswith("Mean ± standard deviation")]) == 1
    assert not any("\x1b" in line or "…" in line for line in lines)


def test_a_narrow_terminal_folds_words_and_drops_none(capsys, monkeypatch):
    monkeypatch.setattr("kg4d.utils.console.is_watched", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    print_table(ablation_table(dict.fromkeys(NAMES[:3], FOX_SEEDS)))
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 60
    assert "…" not in out


FOX_SEEDS = {"fox": FOX["full"]}
