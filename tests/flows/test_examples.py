"""Every example at a small size, and at its own size where it must meet its bar (slow)."""

import json
from pathlib import Path

import pytest
import torch

from kg4d.flows.__main__ import EXAMPLES, main, parser
from kg4d.flows.examples import aggregation_ring, drifting_2d, fokker_planck_10d, fokker_planck_30d, porous_medium
from kg4d.flows.examples.outcome import Outcome, Row
from kg4d.utils.cli import run

SMALL = {
    "fokker_planck_10d": lambda: fokker_planck_10d.run(layers=3, count=60, step=0.5),
    "fokker_planck_30d": lambda: fokker_planck_30d.run(dim=2, count=40, step=0.3, chains=500),
    "porous_medium": lambda: porous_medium.run(layers=2, count=200, end=0.05),
    "aggregation_ring": lambda: aggregation_ring.run(spacing=0.7, count=40, end=0.5),
    "drifting_2d": lambda: drifting_2d.run(count=20, steps=3),
}


@pytest.mark.parametrize("name", SMALL)
def test_small_runs_end_with_a_table_and_pictures(name: str, tmp_path: Path):
    outcome: Outcome = SMALL[name]()
    assert all(torch.tensor(row.value).isfinite() for row in outcome.rows)
    for path in outcome.draw(tmp_path / "new"):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(main, parser(), ["--example", "ou_1d", "--out", str(tmp_path / "out")]) == 0
    assert "NO" not in capsys.readouterr().out
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    assert table[0].keys() == {"name", "value", "unit", "at_most"}
    assert (tmp_path / "out" / "ou_1d.png").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--example", "ou_2d"], "no example 'ou_2d' (choose from ou_1d"),
        (["--example", "ou_1d", "--threads", "0"], "is no number of threads"),
        ([], "the following arguments are required: --example"),
    ],
)
def test_wrong_requests(words: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert run(main, parser(), words) == 2
    assert said in capsys.readouterr().err


def test_an_output_that_cannot_be_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").write_text("")
    assert run(main, parser(), ["--example", "ou_1d", "--out", str(tmp_path / "file")]) == 2
    assert "cannot be made" in capsys.readouterr().err


def test_without_matplotlib_nothing_starts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    assert run(main, parser(), ["--example", "ou_1d"]) == 2
    assert 'matplotlib is not installed (pip install "kg4d[flows]")' in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_meet_their_bars(name: str, tmp_path: Path):
    assert run(main, parser(), ["--example", name, "--out", str(tmp_path)]) == 0
    rows = [Row(**row) for row in json.loads((tmp_path / "table.json").read_text())]
    missed = [row.name for row in rows if row.verdict.endswith("NO") and row.unit != "s"]  # time: benchmarks/flows.py
    assert missed == []
    assert len(list(tmp_path.glob("*.png"))) >= 1


def test_the_ring_rests_at_one_over_the_root_of_three():
    """Not at 1/2: the force on a point of a ring, by a sum over its other points."""
    angle = torch.arange(400, dtype=torch.float64) * 2 * torch.pi / 400
    for radius, still in ((aggregation_ring.RADIUS, True), (0.5, False)):
        ring = radius * torch.stack([angle.cos(), angle.sin()], 1)
        x = ring[:1].clone().requires_grad_()
        (force,) = torch.autograd.grad(aggregation_ring.kernel(x - ring).mean(), x)
        assert (float(force.norm()) < 1e-12) is still
    assert float(force.norm()) == pytest.approx(0.5 - 3 * 0.125, abs=1e-9)


def test_the_radial_flow_is_that_of_particles():
    """The reference of the ring, against all pairs of a rosette."""
    x = (aggregation_ring.rosettes(80, torch.Generator().manual_seed(0)) - aggregation_ring.CENTRE).double()
    expected = aggregation_ring.radii(x.norm(dim=-1), 1.0)
    for _ in range(1000):
        leaf = x.clone().requires_grad_()
        value = aggregation_ring.kernel(leaf[:, None] - x).mean(1).sum()
        x = x - 1e-3 * torch.autograd.grad(value, leaf)[0]
    torch.testing.assert_close(x.norm(dim=-1), expected, atol=2e-3, rtol=0)


def test_langevin_chains_agree_with_the_equation_on_a_grid():
    """One coordinate's Fokker-Planck equation by finite volumes, implicit in time."""
    n, h, time = 400, 10 / 400, 0.6
    x = torch.linspace(-5 + h / 2, 5 - h / 2, n, dtype=torch.float64)
    faces = (x[1:] + x[:-1]) / 2
    drift = -(4 * faces**3 - 32 * faces + 5) / 50
    left, right = drift / 2 + 1 / h, drift / 2 - 1 / h  # flux between two cells: left * rho_i + right * rho_(i+1)
    A = torch.zeros(n, n, dtype=torch.float64)
    i = torch.arange(n - 1)
    A[i, i] -= left / h
    A[i, i + 1] -= right / h
    A[i + 1, i] += left / h
    A[i + 1, i + 1] += right / h
    rho = (-x.square() / 2).exp()
    rho = torch.linalg.matrix_exp(time * A) @ (rho / rho.sum())
    chain = fokker_planck_30d.langevin(100_000, 0.005, time, torch.Generator().manual_seed(0))
    bins = torch.histogram(chain, torch.linspace(-5, 5, 51)).hist / 100_000
    assert float((bins - rho.view(50, 8).sum(1)).abs().sum() / 2) < 0.015
