"""The documentation: its page of settings is current, and the site is built without a broken link or a request."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kg4d import fit as fit_command
from kg4d.config.load import load_config
from kg4d.config.reference import settings_page
from kg4d.config.schema import ExperimentConfig
from kg4d.utils.cli import run
from kg4d.utils.plain import flat, plain

ROOT = Path(__file__).parents[1]


def test_the_page_of_settings_is_current() -> None:
    assert (ROOT / "docs/settings.md").read_text() == settings_page() + "\n", "run make docs"


def test_every_setting_is_on_it_and_is_explained() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| (.*?) \| (.*?) \| (.*?) \|$", settings_page(), re.MULTILINE)
    listed = {key: meaning for key, _, _, meaning in rows}
    assert set(flat(plain(ExperimentConfig()))) <= set(listed)
    assert [key for key, meaning in listed.items() if not meaning] == []


def test_a_file_can_be_shown_with_where_values_were_set(capsys: pytest.CaptureFixture[str]) -> None:
    file = ROOT / "experiments/ablation_wgf.yaml"
    words = ["--config", str(file), "--variant", "no_wgf", "--show", "static.steps=7", "seed=0"]
    assert run(fit_command.main, fit_command.parser(), words) == 0
    lines = dict(line.split("  # ") for line in capsys.readouterr().out.splitlines())
    where = {pair.strip().partition("=")[0]: (pair.strip().partition("=")[2], origin) for pair, origin in lines.items()}
    assert where["static.steps"] == ("7", "command line")
    assert where["wgf.weight"] == ("0.0", "variant no_wgf")
    assert where["refine.steps"][1].endswith("configs/base.yaml")
    assert where["gaussians.sh_warmup"][1] == "default"
    settings = set(flat(plain(load_config(ExperimentConfig, file))))
    assert {key for key in settings if not key.startswith("variants")} <= set(where)


@pytest.mark.slow
def test_the_site_is_built_strictly_and_its_pages_ask_nobody(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    offline = {
        **os.environ,
        "NO_MKDOCS_2_WARNING": "1",
        "https_proxy": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
    }
    done = subprocess.run(command, cwd=ROOT, env=offline, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(tmp_path / "site").as_posix(): path.read_text() for path in tmp_path.rglob("*.html")}
    assert {"index.html", "faq.html", "settings.html", "api/losses.html"} <= set(pages)
    for name, page in pages.items():
        fetched = re.findall(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?(https?:[^\"\s>]+)", page)
        assert [url for url in fetched if not url.endswith(".html")] == [], name
    assert "<math" in pages["concepts.html"]
    assert ":math:" not in pages["api/losses.html"]
    assert "sinkhorn" in pages["api/losses.html"]
