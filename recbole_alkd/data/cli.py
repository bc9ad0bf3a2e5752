"""The console commands ``recbole-alkd sessions``, make_sessions with the same names,
and ``recbole-alkd import``."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path
from typing import Any

from recbole_alkd.data.argument_types import separator, window
from recbole_alkd.data.importers import import_alkdrec
from recbole_alkd.data.leave_one_out import LONGEST, PUBLISHED, import_recbole_gnn
from recbole_alkd.data.own_settings import benchmark_settings, settings_text
from recbole_alkd.data.reading import TIME_UNITS
from recbole_alkd.data.rows import AUGMENTATIONS, ORDERS
from recbole_alkd.data.sessions import make_sessions
from recbole_alkd.help_words import DefaultsShown


def add_sessions_command(subparsers: Any) -> argparse.ArgumentParser:
    """Mount ``sessions`` on what ``ArgumentParser.add_subparsers()`` returned; ``args.run(args)`` runs it.

    Every keyword of ``make_sessions`` is an option, spelt with dashes or underscores, with the same default.
    """
    parser = subparsers.add_parser(
        "sessions",
        help="turn raw clicks into session files",
        description="Cut clicks into sessions, split the sessions, and write RecBole's atomic files.",
        formatter_class=DefaultsShown,
    )
    defaults = {
        name: parameter.default for name, parameter in inspect.signature(make_sessions).parameters.items()
    }

    def add(name: str, text: str, **how: Any) -> None:
        spellings = dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}"))
        default = defaults[name]
        how |= {"required": True} if default is inspect.Parameter.empty else {"default": default}
        parser.add_argument(*spellings, dest=name, help=text, **how)

    add("inter", "clicks: a RecBole .inter file or CSV; plain, .gz or .xz", metavar="FILE")
    add("out", "folder of the new data set; its last part names the data set", metavar="FOLDER")
    add("user_field", "column of the user", metavar="NAME")
    add("item_field", "column of the item", metavar="NAME")
    add("time_field", "column of the timestamp", metavar="NAME")
    add("session_field", "column that is the session already; then --window is not used", metavar="NAME")
    add(
        "window",
        "seconds of a session, in UTC; none: the user is the session",
        type=window,
        metavar="SECONDS",
    )
    add("min_length", "records of a session, at least", type=int, metavar="N")
    add("max_length", "items of a history, at most; the last ones are kept", type=int, metavar="N")
    add("split", "shares of the sessions in train, valid and test", type=float, nargs=3, metavar="SHARE")
    add("order", "split at random, or by the time of the last click", choices=ORDERS)
    add(
        "augmentation",
        "training rows: one for every item after the first, or one a session",
        choices=AUGMENTATIONS,
    )
    add("seed", "seed of the random split", type=int, metavar="N")
    add("time_unit", "unit of the timestamps; without it they are whole seconds", choices=tuple(TIME_UNITS))
    add(
        "titles",
        "titles: a RecBole .item file or CSV; without it, the .item file beside the clicks",
        metavar="FILE",
    )
    add("title_field", "column of the titles; without it, title, movie_title or name", metavar="NAME")
    add("separator", "between columns; without it, the first line tells", type=separator, metavar="TEXT")
    add(
        "encoding",
        "of the files, such as latin-1; without it, UTF-8 or what a byte order mark says",
        metavar="NAME",
    )
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Make the sessions, print the counts and the RecBole settings that read them.
    AlkdError as ``make_sessions`` raises it."""
    names = inspect.signature(make_sessions).parameters
    counts = make_sessions(**{name: getattr(args, name) for name in names})
    for name, count in counts.items():
        print(f"{name:20}{count:>12,}")
    _print_settings(args.out, benchmark_settings(max_length=args.max_length))
    return 0


def add_import_command(subparsers: Any) -> argparse.ArgumentParser:
    """Mount ``import`` on what ``ArgumentParser.add_subparsers()`` returned; ``args.run(args)`` runs it."""
    parser = subparsers.add_parser("import", help="turn published data into RecBole files")
    sources = parser.add_subparsers(dest="source", required=True, metavar="SOURCE")
    alkdrec = sources.add_parser(
        "alkdrec",
        help="the ALKDRec authors' release, from a clone of your own",
        description="Write the sessions, titles, recorded GPT-4 rankings and selections of the ALKDRec "
        "authors' release as RecBole "
        "files. The columns of its pickled sessions are found out where they are not named.",
        allow_abbrev=False,
    )
    alkdrec.add_argument("path", type=Path, help="your clone, or its folder with the data")
    alkdrec.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="new data set; its last part names it"
    )
    alkdrec.add_argument("--data", default="ML", metavar="NAME", help="ML or Games (default: %(default)s)")
    alkdrec.add_argument(
        "--items", metavar="COLUMN", help="column with a session's items, as lists or one item a row"
    )
    alkdrec.add_argument(
        "--label", metavar="COLUMN", help="column with the item that follows them, where it is not their last"
    )
    alkdrec.add_argument(
        "--session", metavar="COLUMN", help="column with the session's number, where it is not the row's"
    )
    alkdrec.add_argument(
        "--raw-ids", action="store_true", default=None, help="items are ids of the title file, no row numbers"
    )
    alkdrec.add_argument(
        "--min-items",
        type=int,
        metavar="N",
        help="of a session, with its label (default: 2, or 5 if that fits)",
    )
    alkdrec.set_defaults(run=run_import)
    gnn = sources.add_parser(
        "recbole-gnn",
        help="diginetica as RecBole-GNN's published table evaluates it",
        description="Leave sessions and items with fewer than five clicks out, and the last two items of "
        "every session for "
        "validation and test. Data of other counts than the published are refused.",
        allow_abbrev=False,
    )
    gnn.add_argument("path", type=Path, help="the clicks: a RecBole .inter file or CSV; plain, .gz or .xz")
    gnn.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="new data set; its last part names it"
    )
    gnn.add_argument(
        "--partly", action="store_true", help="write data of other counts than the published too"
    )
    for name, default in (("session", "session_id"), ("item", "item_id"), ("time", "timestamp")):
        gnn.add_argument(
            f"--{name}-field", default=default, metavar="COLUMN", help=f"its {name} (default: %(default)s)"
        )
    gnn.set_defaults(run=run_recbole_gnn)
    return parser


def run_import(args: argparse.Namespace) -> int:
    """Import, print the counts and the RecBole settings that read the files.
    AlkdError as ``import_alkdrec`` raises it."""
    counts = import_alkdrec(
        args.path,
        args.out,
        args.data,
        items_column=args.items,
        label_column=args.label,
        session_column=args.session,
        raw_ids=args.raw_ids,
        min_items=args.min_items,
    )
    print(f"{args.data}.pkl was read as {counts.pop('layout')}")
    for name, count in counts.items():
        print(f"{name:24}{count:>12,}")
    _print_settings(args.out, benchmark_settings())
    return 0


def run_recbole_gnn(args: argparse.Namespace) -> int:
    """Write the files, print the counts beside the published ones.
    AlkdError as ``import_recbole_gnn`` raises it."""
    fields = {f"{name}_field": getattr(args, f"{name}_field") for name in ("session", "item", "time")}
    counts = import_recbole_gnn(args.path, args.out, **fields, partly=args.partly)
    for name, count in counts.items():
        print(f"{name:12}{count:>10,}   published {PUBLISHED[name]:>10,}")
    _print_settings(args.out, benchmark_settings("prefix", LONGEST))
    return 0


def _print_settings(out: Path | str, settings: dict[str, Any]) -> None:
    folder = Path(out).resolve()
    print(
        f"\nuse it with: recbole-alkd run --dataset={folder.name} --data_path={Path(out).parent}\n"
        f"{folder.name}.yaml says so; elsewhere RecBole reads {out} with\n{settings_text(settings)}",
        end="",
    )
