"""``recbole-alkd runs``: what lies in ``checkpoint_dir``, listed, shown, pruned."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_alkd.files import PART
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.trainer.logs import TENSORBOARD
from recbole_alkd.trainer.run_folder import RESULT, STAGES_FOLDER

_RUN = re.compile(r".+-[0-9a-f]{10}$")
_STORES = (".sqlite", ".sqlite-wal", ".jsonl", ".db")  # what may hold labels
DAY = 86400.0


@dataclass(frozen=True)
class Run:
    """A run folder. ``state``: finished, running, or unfinished (the next start with its settings resumes
    there)."""

    path: Path
    state: str
    size: int
    time: float
    result: dict[str, Any]

    def line(self) -> str:
        day = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.time))
        return f"{self.path.name}  {self.state}  {day}  {self.size / 2**20:,.1f} MiB{self._found()}"

    def _found(self) -> str:
        comparison = self.result.get("comparison")
        if not isinstance(comparison, dict):
            return ""
        try:
            return (
                f"  distilled {comparison['metric']} {comparison['difference']:+.4f}: {comparison['verdict']}"
            )
        except (KeyError, TypeError, ValueError):
            return ""


def find_runs(root: Path) -> list[Run]:
    """The run folders in ``root``, newest first."""
    if not root.is_dir():
        raise AlkdError(
            f"--dir: {os.fspath(root)!r} is no folder; allowed: the checkpoint_dir of runs (RecBole's "
            "default: saved)"
        )
    runs = [
        _run(path)
        for path in root.iterdir()
        if path.is_dir() and not path.is_symlink() and _RUN.match(path.name)
    ]
    return sorted((run for run in runs if run), key=lambda run: run.time, reverse=True)


def prune(root: Path, keep: int | None, older_than: float | None, dry_run: bool = False) -> Iterator[str]:
    """Delete run folders, with their logs, and shared stages; a line for each.

    Labels are never deleted: a folder that holds a label store is left alone, and so is everything outside of
    run folders, their logs and ``stages``. So are running runs and stages that are being trained.

    Args:
        keep: so many of the newest runs stay. older_than: days; younger runs and stages stay.
            At least one is given.
    """
    if keep is None and older_than is None:
        raise AlkdError(
            "runs prune: say what may go: --keep N (the newest N runs stay), --older-than DAYS, or both"
        )
    before = time.time() - (older_than or 0) * DAY
    for place, run in enumerate(find_runs(root)):
        if (keep is not None and place < keep) or (older_than is not None and run.time > before):
            continue
        store = holds_labels(run.path)
        if run.state == "running" or store:
            why = "it is running" if run.state == "running" else f"it holds {store}"
            yield f"left alone: {run.path} ({why})"
            continue
        yield _delete(run.path, dry_run)
        for extra in (
            Path("log") / run.path.name.partition("-")[0] / f"{run.path.name}.log",
            Path(TENSORBOARD) / run.path.name,
        ):
            if extra.exists():
                yield _delete(extra, dry_run)
    if older_than is not None:
        for path in sorted((root / STAGES_FOLDER).glob("*-*")):
            if (
                path.is_dir()
                and _RUN.match(path.name)
                and path.stat().st_mtime <= before
                and not _locked(path)
            ):
                yield _delete(path, dry_run)
        for path in sorted(root.rglob(f".*{PART}")):
            if path.is_file() and path.stat().st_mtime <= before:
                yield _delete(path, dry_run)


def holds_labels(folder: Path) -> str | None:
    """The name of a file below ``folder`` that may hold labels, or None."""
    return next((file.name for file in _files(folder) if file.name.endswith(_STORES)), None)


def add_runs_command(commands: Any) -> None:
    """``recbole-alkd runs list | show | prune``."""
    parser = commands.add_parser("runs", help="list, show or prune run folders", allow_abbrev=False)
    ways = parser.add_subparsers(dest="way", required=True, metavar="list | show | prune")
    listing = ways.add_parser("list", help="a line for each run, the newest first")
    listing.set_defaults(run=_list)
    show = ways.add_parser("show", help="what a run gave, and how to run it again")
    show.add_argument("name", help="the folder's name, or the beginning or end of it")
    show.set_defaults(run=_show)
    away = ways.add_parser(
        "prune", help="delete run folders and their logs, and unused shared stages; never labels"
    )
    away.add_argument("--keep", type=int, default=None, metavar="N", help="the newest N runs stay")
    away.add_argument(
        "--older-than", type=float, default=None, metavar="DAYS", help="younger runs and stages stay"
    )
    away.add_argument("--dry-run", action="store_true", help="only say what would go")
    away.set_defaults(run=_prune)
    for one in (listing, show, away):
        one.add_argument(
            "--dir", type=Path, default=Path("saved"), metavar="FOLDER", help="checkpoint_dir (%(default)s)"
        )


def _list(args: argparse.Namespace) -> None:
    runs = find_runs(args.dir)
    for run in runs:
        print(run.line())
    print(
        f"{len(runs)} run{'s' * (len(runs) != 1)}, {sum(run.size for run in runs) / 2**20:,.1f} MiB in "
        f"{args.dir}"
    )


def _show(args: argparse.Namespace) -> None:
    runs = find_runs(args.dir)
    matches = [
        run
        for run in runs
        if args.name and (run.path.name.startswith(args.name) or run.path.name.endswith(args.name))
    ]
    if len(matches) != 1:
        names = ", ".join(run.path.name for run in (matches or runs)[:5])
        raise AlkdError(
            f"runs show: {args.name!r} fits {len(matches)} of {len(runs)} runs; "
            f"allowed: the name of one, as {names}"
        )
    run = matches[0]
    print(run.line())
    stages = run.result.get("stages", {})
    for name, stage in {**stages, **run.result.get("baselines", {})}.items():
        print(
            f"  {name:<24}"
            + "  ".join(f"{metric} {value:.4f}" for metric, value in stage.get("test", {}).items())
        )
    for key in ("began", "ended", "seconds", "log", "tensorboard", "versions"):
        if key in run.result:
            print(f"  {key}: {run.result[key]}")
    if "again" in run.result:
        print(f"run it again: recbole-alkd run --again {run.path / RESULT}")


def _prune(args: argparse.Namespace) -> None:
    for name, value in (("--keep", args.keep), ("--older-than", args.older_than)):
        if value is not None and not value >= 0:
            raise AlkdError(f"runs prune: {name} {value:g} is not allowed; allowed: a number of at least 0")
    for line in prune(args.dir, args.keep, args.older_than, args.dry_run):
        print(line)


def _run(path: Path) -> Run | None:
    """The run in a folder; None where nothing says that it is one of ours."""
    if not (path / ".lock").is_file():
        return None
    result: dict[str, Any] = {}
    state = "unfinished"
    if (path / RESULT).is_file():
        state = "finished"
        try:
            content = json.loads((path / RESULT).read_text(encoding="utf-8"))
            result = content if isinstance(content, dict) else {}
        except (OSError, ValueError, RecursionError):
            state = "finished, result unreadable"
    elif _locked(path):
        state = "running"
    files = list(_files(path))
    newest = max((file.lstat().st_mtime for file in files), default=path.stat().st_mtime)
    return Run(path, state, sum(file.lstat().st_size for file in files), newest, result)


def _files(path: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(path):
        yield from (Path(folder) / name for name in names)


def _locked(path: Path) -> bool:
    """Whether a living process holds the folder."""
    try:
        with open(path / ".lock") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _delete(path: Path, dry_run: bool) -> str:
    if not dry_run:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return f"{'would delete' if dry_run else 'deleted'}: {path}"
