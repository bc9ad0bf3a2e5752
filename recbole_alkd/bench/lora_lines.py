"""The results of ``lora-curve`` in their file: a line of JSON each, added when it is there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_alkd.bench.lora_file import POOLS, StudyExamples
from recbole_alkd.files import json_line
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.identity import settings_hash

_KEYS = ("dataset", "pool", "count", "given", "mrr", "ndcg10", "gains")  # of every result


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The results in ``file``; lines that a kill or a power failure has cut are left out.

    Raises:
        AlkdError: a line that is something else, so that nothing is appended to a file of another kind.
    """
    lines_read = []
    for number, line in enumerate(file.read_bytes().split(b"\n") if file.is_file() else (), 1):
        try:
            result = json.loads(line)
        except (ValueError, RecursionError):
            if line.startswith(b"{") or not line.strip(b"\0 \r"):
                continue
            result = None
        good = isinstance(result, dict) and not set(_KEYS) - set(result)
        if not good or not isinstance(result["count"], int) or not isinstance(result["given"], dict):
            raise AlkdError(f"--out: {str(file)!r}, line {number} is no result of lora-curve's")
        lines_read.append(result)
    return lines_read


def is_done(out: Path, asked: Mapping[str, Any]) -> bool:
    """Whether ``out`` has a result of the data set, pool, count and settings (``given``) of ``asked``."""
    return _key(asked) in map(_key, read_lines(out))


def _key(line: Mapping[str, Any]) -> str:
    pool = line["pool"] if line["count"] else ""
    return json.dumps([line["dataset"], pool, line["count"], line["given"]], sort_keys=True)


def facts_of(study: StudyExamples, pool: str, count: int) -> dict[str, Any]:
    """What a line says of the examples that it is of: how many judge, of how many candidates, and hashes of
    what judges and of what is trained on, which another file of the same data set has not."""
    judging = [study.settings, study.titles, [vars(one) for one in study.held_out]]
    return {
        "held_out": len(study.held_out),
        "candidates": study.settings["llm_candidates"],
        "judged_by": settings_hash({"of": judging}),
        "trained_on": settings_hash({"of": [vars(one) for one in study.pool(pool)[:count]]}),
    }


def check_same(out: Path, study: StudyExamples) -> None:
    """AlkdError where ``out`` has results of the same data set from other examples: they would stand in one
    table, and be taken for those that are asked for. What lines of earlier versions do not say is not
    compared."""
    for line in read_lines(out):
        if line["dataset"] != study.dataset or line["pool"] not in POOLS:
            continue
        own = facts_of(study, line["pool"], line["count"])
        other = next((name for name, value in own.items() if line.get(name, value) != value), None)
        if other is not None:
            raise AlkdError(
                f"--out: {str(out)!r} has results of {study.dataset} from other examples ({other}: "
                f"{line[other]}, here {own[other]}); give another file"
            )


def append_line(out: Path, result: Mapping[str, Any]) -> None:
    """Add a result to ``out``.

    Raises:
        AlkdError: it cannot be written, as where the disk is full.
    """
    try:
        with out.open("a", encoding="utf-8") as stream:
            stream.write(json_line(result))
    except OSError as error:
        what = f"{result['count']} {result['pool']} examples, MRR {result['mrr']}"
        raise AlkdError(
            f"--out: {str(out)!r} cannot be written: {error.strerror}; it lacks the result of {what}"
        ) from None
