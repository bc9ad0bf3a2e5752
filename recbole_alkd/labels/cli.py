"""The console command ``recbole-alkd store``: look into a label store, move labels between stores
and files."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from recbole_alkd.labels import tools
from recbole_alkd.labels.cost import read_amount
from recbole_alkd.labels.label import read_time
from recbole_alkd.labels.store import STATUSES, LabelStore
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups.teacher import TeacherSettings


def add_store_command(subparsers: Any) -> argparse.ArgumentParser:
    """Mount ``store`` on what ``ArgumentParser.add_subparsers()`` returned; ``args.run(args)`` runs it."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "store", help="look into a label store; export, import, verify, merge labels"
    )
    commands = parser.add_subparsers(dest="store_command", required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], int | None], text: str) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False
        )
        command.add_argument(
            "--store",
            type=Path,
            default=Path(TeacherSettings().label_store),
            metavar="FILE",
            help="%(default)s",
        )
        command.set_defaults(run=run)
        return command

    listing = add("list", _list, "one line for every label, in the order of storing")
    listing.add_argument("--status", choices=STATUSES)
    listing.add_argument("--teacher", metavar="TEXT", help="only teachers whose name holds this text")
    listing.add_argument("--limit", type=int, metavar="N", help="the first N")
    showing = add(
        "show",
        _show,
        "everything that is kept of one label: its candidates, the answer as it came, the ranking",
    )
    showing.add_argument("key", help="the label's key, or its beginning as `list` shows it")
    add("stats", _stats, "labels, tokens and US dollars of every teacher")
    export = add("export", _export, "write all labels to a file")
    export.add_argument("file", type=Path, help="NAME.jsonl or NAME.parquet (needs pyarrow)")
    export.add_argument("--status", choices=STATUSES)
    importing = add(
        "import", _import, "put the labels of an exported file into the store; a key that exists stays"
    )
    importing.add_argument("file", type=Path, help="NAME.jsonl or NAME.parquet (needs pyarrow)")
    add("verify", _verify, "read everything, and name what is damaged")
    add(
        "repair",
        _repair,
        "save what can be read of a damaged store in a new file in its place; the damaged one is kept",
    )
    merging = add("merge", _merge, "put the labels of another store into this one; a key that exists stays")
    merging.add_argument("other", type=Path, help="the other store")
    return parser


def main(argv: Sequence[str]) -> int:
    """``recbole-alkd store ARGV``; the exit code: 1 when ``verify`` finds something."""
    parser = argparse.ArgumentParser(prog="recbole-alkd")
    add_store_command(parser.add_subparsers(required=True))
    args = parser.parse_args(["store", *argv])
    return args.run(args) or 0


def _list(args: argparse.Namespace) -> None:
    with tools.open_existing(args.store) as store:
        sys.stdout.writelines(
            map(_text, islice(tools.list_labels(store, args.status, args.teacher), args.limit))
        )


def _text(line: tools.Line) -> str:
    key, status, teacher, prompt, completion, _, usd, when = line
    usd = read_amount(usd)
    price = "-" if usd is None else f"{usd:.6f}"
    return f"{key[:16]}  {_when(when)}  {status:6}  {f'{prompt}+{completion}':>11}  {price:>10}  {teacher}\n"


def _show(args: argparse.Namespace) -> None:
    with tools.open_existing(args.store) as store:
        keys = [
            key
            for (key,) in store.query(
                "SELECT key FROM labels WHERE substr(key, 1, ?) = ? LIMIT 9", [len(args.key), args.key]
            )
        ]
        label = store.get(keys[0]) if len(keys) == 1 else None
        if label is None:
            problem = (
                f"{len(keys)} labels begin so, such as {keys[0]} and {keys[1]}"
                if keys
                else "no label begins so"
            )
            raise AlkdError(
                f"key: {args.key!r} is not allowed: {problem} in {args.store}; "
                "allowed: one of `recbole-alkd store list`"
            )
    usd = "no price" if label.usd is None else f"{label.usd:.6f} USD"
    print(
        f"key         {label.key}\n"
        f"status      {label.status}, {_when(label.time)}, {label.seconds:.1f} s\n"
        f"teacher     {_shown(label.teacher)}\n"
        f"tokens      {label.prompt_tokens:,} prompt + {label.completion_tokens:,} completion, {usd}\n"
        f"repairs     {', '.join(f'{name} {count}' for name, count in label.repairs.items()) or 'none'}\n"
        f"candidates  {_shown(' '.join(label.candidates))}\n"
        f"ranking     {_shown(' '.join(label.ranking)) or 'none'}\n"
        f"answer as it came:\n{_shown(label.raw)}"
    )


def _shown(text: str) -> str:
    """Somebody else's text for a terminal: nothing but letters and line ends."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def _stats(args: argparse.Namespace) -> None:
    with tools.open_existing(args.store) as store:
        teachers = tools.stats(store)
    ok, failed = sum(teacher.ok for teacher in teachers), sum(teacher.failed for teacher in teachers)
    print(f"{args.store}: {ok:,} ok, {failed:,} failed, {args.store.stat().st_size / 1e6:,.1f} MB")
    for teacher in teachers:
        usd = "no price" if teacher.usd is None else f"{teacher.usd:,.4f} USD"
        replaced = f", {teacher.replaced:,} failed ones replaced" if teacher.replaced else ""
        replaced += f", hints {teacher.hints:,} times" if teacher.hints else ""
        print(
            f"\n{teacher.teacher or '(no teacher)'}\n"
            f"  {teacher.ok:,} ok, {teacher.failed:,} failed{replaced}\n"
            f"  {teacher.prompt_tokens:,} prompt + {teacher.completion_tokens:,} completion tokens, {usd}, "
            f"{teacher.seconds:,.1f} s\n"
            f"  {_when(teacher.first)} to {_when(teacher.last)}"
        )


def _export(args: argparse.Namespace) -> None:
    with tools.open_existing(args.store) as store:
        print(f"{tools.export_labels(store, args.file, args.status):,} labels written to {args.file}")


def _import(args: argparse.Namespace) -> None:
    with LabelStore(args.store) as store:
        _report(tools.import_labels(store, args.file), args.file, args.store)


def _verify(args: argparse.Namespace) -> int:
    with tools.open_existing(args.store) as store:
        problems = tools.verify(store)
        count = 0 if problems else len(store)
    print("\n".join(problems) if problems else f"{args.store}: {count:,} labels, all is well")
    return 1 if problems else 0


def _repair(args: argparse.Namespace) -> int:
    done = tools.repair(args.store)
    if done.damaged is None:
        print(f"{args.store}: all is well, nothing to repair")
        return 0
    print("\n".join(f"lost: {text}" for text in done.lost))
    hints = f" and {done.hints:,} hints" if done.hints else ""
    print(
        f"{args.store}: {done.labels:,} labels{hints} saved, {len(done.lost):,} rows lost; "
        f"the damaged file is {done.damaged}"
    )
    print(
        "labels that are lost are asked for again by the next run that wants them; "
        "what they cost stays in `store stats`"
    )
    return 0


def _merge(args: argparse.Namespace) -> None:
    if args.other.resolve() == args.store.resolve():
        raise AlkdError(f"store {str(args.other)!r}: it cannot be merged into itself")
    with tools.open_existing(args.other) as other, LabelStore(args.store) as store:
        _report(tools.merge(store, other), args.other, args.store)


def _report(counts: tuple[int, int], source: Path, target: Path) -> None:
    read, stored = counts
    print(f"{stored:,} of {read:,} labels of {source} are new in {target}")


def _when(seconds: float | None) -> str:
    seconds = read_time(seconds)  # other times cannot be shown
    return _minute(None if seconds is None else int(seconds // 60))


@lru_cache(maxsize=4096)
def _minute(minutes: int | None) -> str:
    return "-" * 16 if minutes is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(60 * minutes))
