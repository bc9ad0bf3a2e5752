"""The door of the console command: every error leaves as one line, with an exit code.

2: what a user can fix. 1: what nobody foresaw. 130: interrupted. The traceback of an error that nobody
foresaw is in the run's log; ``--traceback`` (or RECBOLE_ALKD_TRACEBACK=1 in the environment) shows that of
any error.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from recbole_alkd.settings.error import AlkdError, ToldError, what_went_on

TRACEBACK = "RECBOLE_ALKD_TRACEBACK"
_LONGEST = 500  # characters of a message


def leave(command: Callable[[], int | None]) -> NoReturn:
    """Run a command and end the process with its exit code."""
    if "--traceback" in sys.argv:  # before RecBole reads the command line
        sys.argv = [word for word in sys.argv if word != "--traceback"]
        os.environ[TRACEBACK] = "1"
    _open_outputs()
    try:
        code = command()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(
            "interrupted: labels and finished stages are kept; the same command resumes there",
            file=sys.stderr,
        )
        code = 130
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception as error:
        line, code = told(error)
        print(f"error: {line}", file=sys.stderr)
    sys.exit(code or 0)


def _open_outputs() -> None:
    """Where the process was started with a closed output (``>&-``), what it says goes nowhere, and no file
    that it opens gets the number of an output."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (as long as the process)


def told(error: BaseException) -> tuple[str, int]:
    """``error`` in one line, and the exit code; its traceback goes to the screen where that is asked for."""
    if isinstance(error, ToldError):
        return str(error), error.code
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    if not isinstance(error, Exception):  # such as a SystemExit of somebody's
        return f"{type(error).__name__}: {error}", 1
    return describe(error), 2 if _fixable(error) else 1


def describe(error: Exception) -> str:
    """``error`` in one line: what a user is told of it."""
    words = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    if isinstance(error, AlkdError):
        return " ".join(str(error).split("\n")) or "no reason is given"
    words = words if len(words) <= _LONGEST else f"{words[:_LONGEST]}..."
    words = f"{type(error).__name__}: {words}" if words else type(error).__name__
    where = what_went_on(error)
    words = f"{where}: {words}" if where else words
    if _fixable(error):
        return words
    log = write_to_log(error)
    kept = f"the traceback is in {log}" if log else "--traceback shows where"
    return f"{words} ({kept}; nobody foresaw this one: please report it with the traceback and your settings)"


def write_to_log(error: Exception) -> str | None:
    """Write the traceback into the run's log file, not to the screen;
    the file's path, or None where no run has begun."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    record = logging.LogRecord("recbole_alkd", logging.CRITICAL, __file__, 0, text, None, None)
    path = None
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            try:
                handler.emit(record)
                handler.flush()
            except (OSError, ValueError):
                continue
            path = handler.baseFilename
    return os.path.relpath(path) if path else None


def _fixable(error: Exception) -> bool:
    """Whether a user can do something about it: an error of ours, of files and disks,
    or of RecBole's reading of settings."""
    if isinstance(error, (AlkdError, OSError)):
        return True
    frames = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    return bool(frames) and frames[-1].parts[-3:-1] == ("recbole", "config")
