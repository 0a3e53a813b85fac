"""What every command sets in its process before torch loads: import this first.

Nothing here changes a result; both settings are about time alone.
"""

import ctypes
import os
import sys

# Read by the OpenMP of torch when it loads: its threads spin for this long, then wait asleep for one another. They
# would spin on, and where another program has one of the cores a training step would take five times as long.
os.environ.setdefault("GOMP_SPINCOUNT", "30000")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def _keep_memory() -> None:
    """Let glibc keep freed blocks of up to 32 MiB.

    It would give them back to the system at once, and every step of a stage would pay for its images' pages again.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries than glibc have none
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, 32 << 20)
            mallopt(_M_TRIM_THRESHOLD, 1 << 30)


_keep_memory()
