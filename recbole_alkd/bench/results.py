"""What a run of a plan left behind, read back."""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recbole_alkd.bench.plan import Task
from recbole_alkd.model.scoring import GROUPS


@dataclass(frozen=True)
class Result:
    """A finished run: ranks of the test and valid targets (1 = best), what it cost,
    and of the test part sessions and ``groups``.

    groups: the place of each target in ``model.scoring.GROUPS``.
    """

    task: Task
    test: np.ndarray
    valid: np.ndarray
    sessions: np.ndarray
    groups: np.ndarray
    facts: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What became of a plan: finished runs, the reason of each that failed, and runs that were not asked for
    and are not there."""

    results: list[Result]
    failed: dict[Task, str]
    missing: tuple[Task, ...] = ()


def load_result(task: Task, stem: Path) -> Result | None:
    """A finished run from its pair of files; None where one is missing, cannot be read or lacks something."""
    try:
        facts = json.loads(stem.with_name(f"{stem.name}.json").read_text(encoding="utf-8"))
        with np.load(stem.with_name(f"{stem.name}.npz"), allow_pickle=False) as arrays:
            test, valid = (np.asarray(arrays[name], float) for name in ("test", "valid"))
            sessions, groups = arrays["sessions_test"], arrays["groups_test"]
        numbers = [facts[key] for key in ("parameters", "bytes", "seconds")]
        numbers += [facts["cost"][key] for key in ("labels", "tokens", "seconds")] + [
            facts["cost"]["usd"] or 0
        ]
        whole = all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers)
        whole = whole and isinstance(facts.get("labels") or {}, dict)
    except (
        OSError, EOFError, ValueError, TypeError, KeyError, MemoryError, RecursionError, OverflowError,
        zipfile.BadZipFile, zlib.error,
    ):  # fmt: skip
        return None
    whole = (
        whole
        and test.shape == sessions.shape == groups.shape
        and test.ndim == 1 == valid.ndim
        and len(test) > 0
    )
    ranks = all((np.isfinite(ranks) & (ranks >= 1)).all() for ranks in (test, valid))
    known = groups.dtype.kind in "iu" and np.isin(groups, range(len(GROUPS))).all()
    if not (whole and ranks and known):
        return None
    return Result(task, test, valid, sessions, groups, facts)
