"""Pictures a second of the self-contained page in Debian's chromium without a GPU: 16 frames, 1280 x 800."""

import math
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from playwright.sync_api import sync_playwright

from benchmarks._harness import Row, arguments, benchmark_scene, report
from kg4d.formats.page.film import CameraPath, Film
from kg4d.formats.viewer import write_viewer

FRAMES, FPS = 16, 16
SETTLING, COUNTED = 6, 5  # seconds: the page finds how many pixels it can draw; readings of one second
SOFTWARE = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


def film(count: int) -> Film:
    """Gaussians that go sideways, and come back."""
    scene = benchmark_scene(count, 256, 3)
    still = replace(scene.gaussians, colors=scene.features).detach()
    ways = [0.1 * math.sin(2 * math.pi * frame / FRAMES) for frame in range(FRAMES)]
    states = [replace(still, means=still.means + torch.tensor([way, 0.0, 0.0])) for way in ways]
    path = CameraPath("the camera", scene.cameras, torch.zeros(1))
    return Film(f"{count:,} Gaussians", states, torch.linspace(0, 1, FRAMES), FPS, [path])


def main() -> None:
    """Read what the page itself counts."""
    args = arguments(__doc__)
    rows = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=SOFTWARE)
        for count, bar in ((5_000, 30), (50_000, None)):
            file = Path(folder) / f"{count}.html"
            write_viewer(file, film(count))
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(file.as_uri())  # it plays by itself
            page.wait_for_function("document.querySelector('#rate').textContent.includes('pictures')", timeout=60_000)
            time.sleep(SETTLING)
            readings = []
            for _ in range(COUNTED):
                readings.append(float(page.inner_text("#rate").split()[0]))
                time.sleep(1)
            width, height = page.evaluate(
                "(() => { const c = document.querySelector('canvas'); return [c.width, c.height]; })()"
            )
            middle = sorted(readings)[COUNTED // 2]
            size = f"{width} x {height} px, {file.stat().st_size / 1e6:.1f} MB"
            rows.append(Row(f"{count:,} Gaussians, {FRAMES} frames", middle, "a second", bar, "higher", size))
            page.close()
        browser.close()
    report(rows, args.json)


if __name__ == "__main__":
    main()
