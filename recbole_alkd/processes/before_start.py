"""What is checked before any process is started: how many they are, and whether they can be told what to
do."""

from __future__ import annotations

import os
from multiprocessing.reduction import ForkingPickler
from typing import Any

from recbole_alkd.processes.places import Places
from recbole_alkd.settings.error import AlkdError

A_CORE = 4  # processes; more only wait for each other, and each holds an interpreter with torch (450 MiB)
_LONGEST = 80  # characters of a value in an error


def check_count(places: Places) -> None:
    """AlkdError where a machine has far more processes than cores."""
    most = max(A_CORE * cores(), 2)
    if places.nproc > most:
        raise AlkdError(
            f"nproc: {places.nproc} is not allowed on {cores()} cores; allowed: 1 to {most} ({A_CORE} a "
            "core; more processes than cores save no time)"
        )


def check_sendable(arguments: tuple[Any, ...]) -> None:
    """AlkdError where an argument of ``run_recbole_alkd`` cannot be sent to another process.

    Args:
        arguments: model, dataset, config_file_list, config_dict, saved.
    """
    names = ("model", "dataset", "config_file_list", "config_dict", "saved")
    for name, value in zip(names, arguments, strict=True):
        for key, part in value.items() if isinstance(value, dict) else [(name, value)]:
            try:
                ForkingPickler.dumps(part)
            except Exception as error:
                shown = repr(part) if len(repr(part)) <= _LONGEST else f"{repr(part)[:_LONGEST]}..."
                raise AlkdError(
                    f"{key}: {shown} cannot be sent to another process ({type(error).__name__}); allowed "
                    "with several processes: numbers, text, lists and dicts of them, functions, classes of "
                    "modules"
                ) from None


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
