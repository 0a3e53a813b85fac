"""Prepare many clips on Ray Data: one scene a clip, in a folder that all machines see or at a URL.

    python deploy/ray/prepare_clips.py clips.txt --out s3://bucket/scenes --cores 2 cache=s3://bucket/cache frames=16

It needs `pip install "ray[data]"`. `clips.txt` has the path of one clip a line, as every machine sees it. What is
prepared already is left alone, so the same call goes on after a stop. A clip that fails stops no other: `--report`
lists it with its error.
"""

import argparse
import csv
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kg4d.utils.files import replacing
from kg4d.utils.names import name_of_scene
from kg4d.utils.object_storage import StoredFolder, is_url


def scene_of(clip: str, out: str) -> str:
    """Where the scene of a clip lies: clips of one name in different folders have different scenes."""
    return f"{out.rstrip('/')}/{name_of_scene(clip)}-{hashlib.sha256(clip.encode()).hexdigest()[:8]}"


def prepare_clip(row: dict[str, str], out: str, cores: int, settings: Sequence[str]) -> dict[str, str]:
    """Prepare one clip, if it is not prepared yet.

    Args:
        row: With its path as `text`.
        out: Folder or URL above the scenes.
        cores: Threads that it may use.
        settings: `key=value` for `kg4d.prepare`.

    Returns:
        The clip, its scene, and the line with its error, which is empty where there was none.
    """
    clip = row["text"].strip()
    scene = scene_of(clip, out)
    if is_url(scene):
        stored = StoredFolder(scene)
        if stored.listing() is not None:
            return {"clip": clip, "scene": scene, "error": ""}
        with tempfile.TemporaryDirectory(prefix="kg4d-") as folder:
            local = Path(folder) / "scene"
            error = _prepare(clip, local, cores, settings)
            if not error:
                stored.put(local)
    else:
        error = "" if Path(scene).is_dir() else _prepare(clip, Path(scene), cores, settings)
    return {"clip": clip, "scene": scene, "error": error}


def _prepare(clip: str, scene: Path, cores: int, settings: Sequence[str]) -> str:
    """In a process of its own: what a clip breaks or leaks ends with it."""
    command = [sys.executable, "-m", "kg4d.prepare", "--input", clip, "--out", str(scene), *settings]
    threads = {"OMP_NUM_THREADS": str(cores)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **threads})
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it left no message"])[-1]


def main() -> int:
    """Prepare the clips of a list on the cluster that Ray finds; the exit status is 1 where one failed."""
    import ray.data

    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("clips", help="text file with the path of one clip a line")
    options.add_argument("--out", required=True, help="folder or URL above the scenes")
    options.add_argument("--cores", type=int, default=2, help="cores of each clip")
    options.add_argument("--report", type=Path, default=Path("prepared.csv"), help="clip, scene and error of each")
    options.add_argument("settings", nargs="*", metavar="key=value", help="settings of kg4d.prepare")
    arguments = options.parse_intermixed_args()
    clips = [line for line in Path(arguments.clips).read_text(encoding="utf-8").splitlines() if line.strip()]
    how = {"out": arguments.out, "cores": arguments.cores, "settings": arguments.settings}
    rows = ray.data.from_items([{"text": clip} for clip in clips]).repartition(target_num_rows_per_block=1)
    prepared = rows.map(prepare_clip, fn_kwargs=how, num_cpus=arguments.cores).take_all()
    with replacing(arguments.report) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["clip", "scene", "error"])
        writer.writeheader()
        writer.writerows(sorted(prepared, key=lambda row: row["clip"]))
    failed = sum(bool(row["error"]) for row in prepared)
    sys.stdout.write(
        f"{len(prepared) - failed} of {len(prepared)} clips are prepared; {arguments.report} has the rest\n"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
