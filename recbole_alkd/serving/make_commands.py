"""The console commands ``recbole-alkd count``, ``merge`` and ``table``: a neighbour table from clicks of any
size.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from recbole_alkd.data.argument_types import path, separator
from recbole_alkd.data.count_arguments import add_count_arguments, columns_and_settings
from recbole_alkd.data.count_sessions import count_file
from recbole_alkd.data.partial_counts import ENDING, PartialCounts
from recbole_alkd.data.sum_counts import Sum, files_of_counts
from recbole_alkd.model.grid_tables import Counting
from recbole_alkd.serving.make_counts import TableCounts
from recbole_alkd.serving.make_table import table_bundle
from recbole_alkd.serving.manifest import COUNTS, read_manifest
from recbole_alkd.serving.recommender import find_bundle
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.places import check_folder, check_new_file

_WEIGHED = {
    "repeat": "weight of a session's own items, in medians of the table's edges",
    "backward": "what a pair of items counts the other way round (0 to 1)",
    "gap_decay": "what a pair counts for every item between the two (0 to 1)",
    "decay": "what an item of a session counts, compared with the one after it (0 to 1)",
    "source_exponent": "how much a weight falls with the popularity of the session's item",
    "target_exponent": "the same for the neighbour's own popularity",
}


def add_count_commands(commands: Any) -> None:
    """Mount the commands on what ``ArgumentParser.add_subparsers()`` returned; ``args.run(args)`` runs
    one."""
    count = _add(
        commands, "count", _count, "count which item follows which in a part of the clicks, of any size"
    )
    add_count_arguments(
        count,
        "clicks with whole sessions in them: .inter or CSV (.gz, .xz), Parquet (extra scale), a folder",
    )
    text = "between columns of text; without it, the first line tells"
    count.add_argument("--separator", type=separator, metavar="TEXT", help=text)
    text = "of text, such as latin-1; without it, UTF-8 or what a byte order mark says"
    count.add_argument("--encoding", metavar="NAME", help=text)

    merge = _add(commands, "merge", _merge, "add the counts of several parts, a range of items at a time")
    merge.add_argument(
        "counts",
        nargs="+",
        type=path,
        metavar="COUNTS",
        help=f"files of counts (*{ENDING}), or folders of them",
    )
    merge.add_argument("--out", required=True, type=path, metavar="FILE", help="a file that is not there")

    table = _add(commands, "table", _table, "weigh counts and cut them to a table of neighbours, as a bundle")
    table.add_argument(
        "--counts",
        required=True,
        type=path,
        metavar="FILE",
        help="a file of counts, or a folder with one in it",
    )
    table.add_argument("--out", required=True, type=path, metavar="BUNDLE", help="a folder that is not there")
    table.add_argument(
        "--neighbors", type=int, default=20, metavar="N", help="neighbours an item (default: %(default)s)"
    )
    table.add_argument(
        "--like", type=path, metavar="FOLDER", help="weigh as this bundle's table (or a run's) was weighed"
    )
    usual = Counting()._asdict()
    for name, text in _WEIGHED.items():
        spelt = f"--{name.replace('_', '-')}"
        table.add_argument(
            spelt, type=float, metavar="NUMBER", help=f"{text} (default: --like, or {usual[name]:g})"
        )
    table.add_argument(
        "--titles", type=path, metavar="FILE", help="an .item file, or CSV, with item_id and titles"
    )
    table.add_argument(
        "--name", metavar="NAME", help="of the data, for the card (default: that of the first part)"
    )


def _add(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False
    )
    parser.set_defaults(run=run)
    return parser


def _count(args: argparse.Namespace) -> None:
    file = count_file(Path(args.inter), args.out, *columns_and_settings(args))
    _say(PartialCounts.read(file, verify=False), file)


def _merge(args: argparse.Namespace) -> None:
    if args.out.exists():
        raise AlkdError(f"{args.out} is there already; allowed: a file that is not there")
    if not args.out.name.endswith(ENDING):
        args.out = args.out.with_name(args.out.name + ENDING)
        if args.out.exists():
            raise AlkdError(f"{args.out} is there already; allowed: a file that is not there")
    check_new_file("--out", args.out)
    file = Sum([PartialCounts.read(one) for one in files_of_counts(args.counts)]).write(args.out)
    _say(PartialCounts.read(file, verify=False), file)


def _table(args: argparse.Namespace) -> None:
    check_folder("--out", args.out.parent)
    files = files_of_counts([args.counts])
    if len(files) > 1:
        raise AlkdError(
            f"{args.counts}: {len(files)} files of counts in it; allowed: one. Add them first: "
            "recbole-alkd merge"
        )
    if args.neighbors < 1:
        raise AlkdError(
            f"--neighbors: {args.neighbors} is not allowed; allowed: a whole number of at least 1"
        )
    how, last_items = _weighing(args.like)
    given = {name: getattr(args, name) for name in Counting._fields if getattr(args, name) is not None}
    for name, value in given.items():
        most = 1.0 if name in ("backward", "gap_decay", "decay") else math.inf
        if not 0 <= value <= most or value == math.inf:
            span = "from 0 to 1" if most == 1 else "of at least 0"
            raise AlkdError(f"--{name.replace('_', '-')}: {value:g} is not allowed; allowed: a number {span}")
    out = table_bundle(
        PartialCounts.read(files[0]),
        args.out,
        how._replace(**given),
        args.neighbors,
        last_items,
        args.titles,
        args.name,
    )
    print(f"written: {out}")


def _weighing(like: Path | None) -> tuple[Counting, int]:
    """How a bundle's table was weighed, and how many items of a session count."""
    if like is None:
        return Counting(), 10
    folder = find_bundle(like)
    manifest = read_manifest(folder)
    counted, student = manifest.get("counted"), manifest["student"]
    if student.get("kind") == "table" and (folder / COUNTS).exists():
        return TableCounts.read(folder).made.how, int(student["last_items"])
    if not isinstance(counted, dict) or student.get("kind") != "table":
        raise AlkdError(
            f"{like}: its manifest does not say how its table was weighed; allowed: the bundle of a counted "
            "table"
        )
    try:
        return Counting(**counted["how"]), int(student["last_items"])
    except (KeyError, TypeError, ValueError):
        raise AlkdError(
            f"{folder}: what it says of its table cannot be read; the bundle is damaged"
        ) from None


def _say(counts: PartialCounts, file: Path) -> None:
    clicks, sessions = (sum(getattr(part, name) for part in counts.parts) for name in ("clicks", "sessions"))
    items, entries = len(counts.ids), len(counts.pairs.target)
    what = f"{clicks:,} clicks in {sessions:,} sessions, {items:,} items, {entries:,} counts"
    print(f"written: {file}, {what}, {file.stat().st_size:,} bytes")
