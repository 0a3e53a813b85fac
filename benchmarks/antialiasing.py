"""One fit drawn at a quarter, half and twice the size of its images, with the antialiased mode and without.

The static stage is fitted to the ring of frame 0 at 128 px; held-out views of that frame are drawn at other sizes and
compared with the truth of those sizes: images of twice the size, and their means over squares of pixels.

    python benchmarks/antialiasing.py [--scenes synthetic:walker synthetic:swimmer ...] [--json F]
"""

import argparse
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import kg4d.utils.before_torch  # noqa: F401  (before torch, as in every command)

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

from benchmarks._harness import Row, report
from kg4d.config.load import expand
from kg4d.config.schema import ExperimentConfig
from kg4d.pipeline import fit
from kg4d.runs.build import build_scene
from kg4d.runs.read_back import load_run

ROOT = Path(__file__).parent.parent
SIZE, FACTORS = 128, (0.25, 0.5, 1.0, 2.0)
WORDS = (
    *(f"image_size={SIZE}", "dynamic.steps=0", "refine.steps=0", "lift.steps=0", "evaluation.networks=false"),
    *("trainer.progress_bar=false", "tracking.wandb.mode=disabled", "export.formats=[]"),
)


def errors(scene: str, antialiased: bool, folder: Path) -> dict[float, float]:
    """PSNR of the held-out views of frame 0 at each size, dB."""
    words = (*WORDS, f"scene={scene}", f"renderer.antialiased={str(antialiased).lower()}", f"output={folder}")
    config = expand(ExperimentConfig, ROOT / "configs/recommended.yaml", words)[0].config
    run = load_run(fit(config, overwrite=True))
    truth = build_scene(replace(config, image_size=2 * SIZE), run.fitted.renderer).test
    assert truth is not None
    first = truth[torch.nonzero(truth.frames == 0)[:, 0]]
    found = {}
    for factor in FACTORS:
        size = round(factor * SIZE)
        images = first.composited(torch.ones(3)).movedim(-1, 1)
        target = torch.nn.functional.avg_pool2d(images, 2 * SIZE // size).movedim(1, -1)
        drawn = run.fitted.render(first.cameras.resized(size, size), first.times).clamp(0, 1)
        error = (drawn - target).square().mean((1, 2, 3))
        found[factor] = float((-10 * error.log10()).mean())
    return found


def main() -> None:
    """Measure all scenes in both modes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", nargs="+", default=["synthetic:walker", "synthetic:swimmer"])
    parser.add_argument("--json", type=Path, help="write the rows here")
    args = parser.parse_args()
    gains: dict[float, list[float]] = {factor: [] for factor in FACTORS}
    with tempfile.TemporaryDirectory() as folder:
        for scene in args.scenes:
            classic, antialiased = (errors(scene, mode, Path(folder)) for mode in (False, True))
            for factor in FACTORS:
                gains[factor].append(antialiased[factor] - classic[factor])
                print(
                    f"{scene} x{factor:g}: {classic[factor]:.2f} dB, antialiased {antialiased[factor]:.2f}", flush=True
                )
    rows = [
        Row(f"antialiased at x{factor:g}", statistics.mean(gains[factor]), "dB", None, "higher", "without it")
        for factor in FACTORS
    ]
    report(rows, args.json)


if __name__ == "__main__":
    main()
