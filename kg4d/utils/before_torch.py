"""Process settings that have to be made before torch loads: import this first.

They affect speed only, never a result.
"""

import ctypes
import os
import sys

# torch's OpenMP reads this when it loads: waiting threads spin this many times, then sleep. By default they would spin
# on, and when another program uses one of the cores a training step would take five times as long.
os.environ.setdefault("GOMP_SPINCOUNT", "30000")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def _keep_memory() -> None:
    """Let glibc keep freed blocks of up to 32 MiB.

    By default it returns them to the system at once, and every training step has to map the pages of its images again.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries than glibc have none
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, 32 << 20)
            mallopt(_M_TRIM_THRESHOLD, 1 << 30)


_keep_memory()
