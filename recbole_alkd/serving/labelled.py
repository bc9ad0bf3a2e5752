"""What a label changed: the LLM's ranking of a session beside the lists of the recommenders of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recbole_alkd.settings.error import AlkdError

LABELLED = "labelled.jsonl"  # in a run folder
HINTS = "hints.json"  # beside it: the rules of the LLM that stood in every prompt, a list of lines
# key in a line -> what a reader calls it, in the order of the table
COLUMNS = {
    "llm": "LLM",
    "teacher": "teacher recommender",
    "student": "student",
    "student_longer": "trained longer",
    "distilled": "distilled",
}


def labelled_sessions(run: Path) -> Iterator[dict[str, Any]]:
    """The labelled sessions of a finished run, line by line.

    Raises:
        AlkdError: the folder has none, or a line of it is damaged.
    """
    file = run / LABELLED
    try:
        stream = open(file, encoding="utf-8")  # noqa: SIM115  (closed below; a missing file has words of its own)
    except OSError:
        raise AlkdError(f"{run}: no {LABELLED} in it; allowed: the folder of a finished run") from None
    with stream:
        for number, line in enumerate(stream, 1):
            try:
                record = json.loads(line)
                _ = record["session"], record["history"], record["target"]
            except (ValueError, KeyError, TypeError, RecursionError):
                raise AlkdError(
                    f"{file}, line {number}: not a labelled session; the file is damaged"
                ) from None
            yield record


def hints(run: Path) -> list[str]:
    """The rules that stood in the prompts of a run's labels; none where it had none, or is of an earlier
    version.

    Raises:
        AlkdError: the file is damaged.
    """
    file = run / HINTS
    try:
        lines = json.loads(file.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError):
        lines = None
    if not isinstance(lines, list) or not all(isinstance(one, str) for one in lines):
        raise AlkdError(f"{file}: no list of lines; the file is damaged")
    return lines


def labelled_session(run: Path, session: str) -> dict[str, Any]:
    """One labelled session by its id; AlkdError that shows a few ids where there is none of that name."""
    known, unit = [], "session"
    for record in labelled_sessions(run):
        if record["session"] == session:
            return record
        known.append(record["session"])
        unit = record.get("unit", unit)
    shown = ", ".join(known[:5]) or "none"
    raise AlkdError(
        f"--session: {session[:80]!r} is not one of the {len(known):,} labelled {unit}s; such as: {shown}"
    )
