"""Run the fits of the plan side by side, one thread each. What is done stays: call it again to go on.

    python -m evidence.run [--workers 2] [--group presets] [--scene fox] [--seed 0]

Arms whose static stage is the same share it: the first of them fits it, the others load its checkpoint. Arms that
differ only in what is measured share all stages.
"""

import argparse
import multiprocessing
import os
import shutil
import sys
import threading
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import yaml

import kg4d.utils.before_torch  # noqa: F401  (before torch)
from evidence.plan import ROOT, Job, jobs, read_plan

if TYPE_CHECKING:
    from kg4d.runs.folder import RunFolder

OUTPUT = ROOT / "build" / "evidence"
_STATIC_KEYS = (
    *("scene", "world", "seed", "image_size", "background", "renderer", "gaussians", "static", "kfc", "keypoints"),
    *("frames", "detections", "guidance", "priors", "depth"),
)
_STAGES = ("static", "dynamic", "refine")
_NO_FIT_KEYS = ("output", "evaluation", "export", "tracking", "variants")
_FITS_PER_PROCESS = 10
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C, where PyYAML has it


def run_folder(group: str, arm: str, scene: str, seed: int) -> "RunFolder":
    """Where a run of the plan lies."""
    from kg4d.runs.folder import RunFolder

    return RunFolder.at(OUTPUT / group, scene, arm, seed)


def fit_one(job: Job) -> float:
    """Fit one job where it is not done; its wall seconds."""
    import torch

    from kg4d.config.load import load_config
    from kg4d.config.schema import ExperimentConfig
    from kg4d.pipeline import fit
    from kg4d.runs.folder import RunFolder, run_hash
    from kg4d.stages.checkpoints import reseal

    torch.set_num_threads(1)
    begin = time.perf_counter()
    config = load_config(ExperimentConfig, job.config, job.overrides)
    folder = RunFolder.of(config)
    if not folder.matches(config):
        folder.begin(config)
        _share_stages(folder, config.name)
        for shared in folder.checkpoints.glob("*.ckpt"):
            reseal(shared, run_hash(config))
    fit(config, resume=True)
    return time.perf_counter() - begin


def _share_stages(folder: "RunFolder", name: str) -> None:
    """Take over the stages of another run of this scene and seed, as far as all that they depend on is the same."""
    from kg4d.utils.files import replacing

    mine = _settings(folder.config)
    others = [
        (path.parent, _settings(type(folder)(path.parents[1]).config))
        for path in sorted(OUTPUT.glob(f"*/{name}/*/{folder.path.name}/checkpoints/static.ckpt"))
        if (path.parents[1] / "config.yaml").is_file()
    ]
    same_fit = [checkpoints for checkpoints, its in others if _fit_part(its) == _fit_part(mine)]
    same_static = [checkpoints for checkpoints, its in others if _static_part(its) == _static_part(mine)]
    taken = [Path("checkpoints", f"{stage}.ckpt") for stage in _STAGES] if same_fit else []
    taken = taken or [Path("checkpoints", "static.ckpt")]
    for giver in [checkpoints.parent for checkpoints in [*same_fit, *same_static][:1]]:
        for file in (*taken, Path(folder.normalisation.name)):
            if (giver / file).is_file():
                with replacing(folder.path / file) as part:
                    shutil.copyfile(giver / file, part)


def _settings(path: Path) -> dict[str, Any]:
    """The configuration of a run as plain data: to build it takes a hundred times as long, and a fit reads dozens."""
    settings: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), _LOADER)
    return settings


def _static_part(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: settings[key] for key in _STATIC_KEYS}


def _fit_part(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in _NO_FIT_KEYS}


def _work_off(todo: "SimpleQueue[Job]", done: "SimpleQueue[tuple[Job, float | Exception]]") -> None:
    """Fit what is to do in a process of its own, which is renewed: its memory grows by some 100 MB a fit.

    `max_tasks_per_child` of an executor would say the same, and leaves it waiting for ever (CPython issue 115634).
    """
    while not todo.empty():
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            for _ in range(_FITS_PER_PROCESS):
                try:
                    job = todo.get_nowait()
                except Empty:
                    return
                try:
                    done.put((job, pool.submit(fit_one, job).result()))
                except BrokenProcessPool as error:
                    done.put((job, error))
                    break
                except Exception as error:
                    done.put((job, error))


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
    begin, todo, done = time.perf_counter(), SimpleQueue[Job](), SimpleQueue[tuple[Job, float | Exception]]()
    for job in chosen:
        todo.put(job)
    for _ in range(args.workers):
        threading.Thread(target=_work_off, args=(todo, done), daemon=True).start()
    failed = 0
    for count in range(1, len(chosen) + 1):
        job, result = done.get()
        if isinstance(result, Exception):
            failed += 1
            traceback.print_exception(result)
        said = f"FAILED: {result}" if isinstance(result, Exception) else f"{result:.0f} s"
        minutes = (time.perf_counter() - begin) / 60
        label = f"{job.group}/{job.scene}/{job.arm}/seed{job.seed}"
        print(f"[{count}/{len(chosen)} {minutes:5.1f} min] {label:50s} {said}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
