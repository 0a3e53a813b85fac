"""The gradient flows against their closed forms and references: the examples of `kg4d.flows`, one thread."""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

from benchmarks._harness import Row, arguments, report
from kg4d.flows.__main__ import EXAMPLES


def main() -> None:
    """Run every example once: what is measured is an error, not a time."""
    args = arguments(__doc__)
    torch.set_num_threads(1)
    rows = [
        Row(f"{name}: {row.name}", row.value, row.unit, row.at_most, "lower", "closed form or reference")
        for name in EXAMPLES
        for row in importlib.import_module(f"kg4d.flows.examples.{name}").run().rows
    ]
    report(rows, args.json)


if __name__ == "__main__":
    main()
