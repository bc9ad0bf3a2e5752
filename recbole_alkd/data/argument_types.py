"""What words on a command line say, for the commands that read clicks."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path


def whole_or(word: str, *others: str) -> int | None:
    """A whole number, or None for one of ``others``; ArgumentTypeError for anything else."""
    if word.lower() in others:
        return None
    try:
        return int(word)
    except ValueError:
        raise ArgumentTypeError(f"{word!r} is not allowed; allowed: a whole number, or {others[0]}") from None


def window(word: str) -> int | None:
    """Seconds of a session, or None for ``none``: the user is the session."""
    return whole_or(word, "none", "~")


def last_items(word: str) -> int | None:
    """How many of a session's items count, or None for ``all``."""
    return whole_or(word, "all")


def separator(word: str) -> str:
    """What stands between columns; a tab is hard to type."""
    return {"tab": "\t", "\\t": "\t"}.get(word.lower(), word)


def filled(word: str) -> str:
    """Where something lies; ArgumentTypeError for an empty word, which would be the working directory: a
    variable of a script that is not set gives one."""
    if not word:
        raise ArgumentTypeError("'' is no path; allowed: a file or folder")
    return word


def path(word: str) -> Path:
    """``filled``, as a path."""
    return Path(filled(word))
