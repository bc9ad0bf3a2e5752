"""Threads that wait without spinning, so that a busy machine makes a run slower by what others take,
and not ten times slower.

Threads of OpenMP wait for each other by spinning; where another process holds a core they spin for whole time
slices.
"""

from __future__ import annotations

import os
import sys

# GNU's and Intel's OpenMP, which read these once, when torch is first imported
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}


def wait_passively() -> None:
    """Have this process's threads, and those of its children, wait passively.

    What the environment says already stays. Nothing is set where torch was imported before: it would come too
    late here, and whoever imported it has an environment of their own.
    """
    if "torch" not in sys.modules:
        for name, value in PASSIVE.items():
            os.environ.setdefault(name, value)
