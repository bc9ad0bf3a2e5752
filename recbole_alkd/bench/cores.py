"""How many threads a run of a benchmark may use: no more than there are cores for it.
How they wait: ``recbole_alkd.threads``."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

from recbole_alkd.settings.error import AlkdError

CGROUP = Path("/sys/fs/cgroup")


def threads_of_a_run(
    jobs: int, environment: Mapping[str, str] | None = None, cores: int | None = None
) -> int:
    """OMP_NUM_THREADS where it is set (at most one thread a core), else the cores divided by the runs side by
    side.

    Args:
        jobs: runs side by side. environment: instead of the process's. cores: instead of ``usable_cores``.

    Raises:
        AlkdError: OMP_NUM_THREADS is no integer >= 1. A list, for nested parallel regions,
            counts by its first number.
    """
    cores = usable_cores() if cores is None else cores
    text = (os.environ if environment is None else environment).get("OMP_NUM_THREADS", "").strip()
    if not text:
        return max(1, cores // jobs)
    first = text.split(",")[0].strip()
    if not (first.isascii() and first.isdigit() and int(first) > 0):
        raise AlkdError(
            f"OMP_NUM_THREADS: {text[:40]!r} is not allowed; allowed: an integer >= 1, or not set at all"
        )
    return min(int(first), cores)


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Cores that this process may use: of its CPU affinity (``taskset``),
    and within the quota of its container."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(affinity, _quota(cgroup))))


def _quota(cgroup: Path) -> float:
    """The share of CPU time that the control group (version 2, then 1) of a container gives, in cores."""
    try:
        most, _, period = (cgroup / "cpu.max").read_text().strip().partition(" ")
        return int(most) / int(period) if most != "max" else math.inf
    except (OSError, ValueError, ZeroDivisionError):
        pass
    try:
        most, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(most) / int(period) if int(most) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf
