"""Run the fits of the plan side by side, one thread each. What is done stays: call it again to go on.

    python -m evidence.run [--workers 2] [--group presets] [--scene fox] [--seed 0]

Arms whose static stage is the same share it: the first of them fits it, the others load its checkpoint.
"""

import argparse
import multiprocessing
import os
import shutil
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any

import kg4d.runtime  # noqa: F401  (before torch)
from evidence.plan import ROOT, Job, jobs, read_plan

if TYPE_CHECKING:
    from kg4d.config.schema import ExperimentConfig
    from kg4d.runs import RunFolder

OUTPUT = ROOT / "build" / "evidence"
_STATIC_KEYS = (
    *("scene", "seed", "image_size", "background", "renderer", "gaussians", "static", "kfc", "keypoints"),
    *("detections", "guidance", "priors"),
)


def fit_one(job: Job) -> float:
    """Fit one job where it is not done; its wall seconds."""
    import torch

    from kg4d.config.load import load_config
    from kg4d.config.schema import ExperimentConfig
    from kg4d.pipeline import fit
    from kg4d.runs import RunFolder

    torch.set_num_threads(1)
    begin = time.perf_counter()
    config = load_config(ExperimentConfig, job.config, job.overrides)
    folder = RunFolder.of(config)
    if not folder.matches(config):
        folder.begin(config)
        _share_static(config, folder)
    fit(config, resume=True)
    return time.perf_counter() - begin


def _share_static(config: "ExperimentConfig", folder: "RunFolder") -> None:
    """Take over the static stage of another run, where everything that it depends on is the same."""
    from kg4d.files import replacing

    name = "checkpoints/static.ckpt"
    for found in sorted(OUTPUT.glob(f"*/{config.name}/*/seed{config.seed}/{name}")):
        other = type(folder)(found.parents[1])
        if _static_part(other.read_config()) == _static_part(config):
            folder.checkpoints.mkdir(parents=True, exist_ok=True)
            with replacing(folder.path / name) as part:
                shutil.copyfile(found, part)
            return


def _static_part(config: "ExperimentConfig") -> list[Any]:
    return [getattr(config, key) for key in _STATIC_KEYS]


def main() -> int:
    """Run what the command line selects; 1 where a fit failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="fits at a time")
    for name in ("group", "scene", "seed", "arm"):
        parser.add_argument(f"--{name}", nargs="*", help=f"only these {name}s")
    args = parser.parse_args()
    wanted = {name: getattr(args, name) for name in ("group", "scene", "seed", "arm")}
    chosen = [
        job
        for job in jobs(read_plan(), OUTPUT)
        if all(values is None or str(getattr(job, name)) in values for name, values in wanted.items())
    ]
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch when it loads, in the workers
    begin, failed = time.perf_counter(), 0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.workers, mp_context=context) as pool:
        pending = {pool.submit(fit_one, job): job for job in chosen}
        for done, future in enumerate(as_completed(pending), start=1):
            job = pending[future]
            try:
                result = f"{future.result():.0f} s"
            except Exception as error:
                failed += 1
                result = f"FAILED: {error}"
                traceback.print_exception(error)
            minutes = (time.perf_counter() - begin) / 60
            label = f"{job.group}/{job.scene}/{job.arm}/seed{job.seed}"
            print(f"[{done}/{len(chosen)} {minutes:5.1f} min] {label:50s} {result}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
