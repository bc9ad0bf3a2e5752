"""The console command ``recbole-alkd sessions``: make_sessions with the same names."""

from __future__ import annotations

import argparse
import inspect
from typing import Any

from recbole_alkd.data.instances import AUGMENTATIONS, ORDERS
from recbole_alkd.data.reading import TIME_UNITS
from recbole_alkd.data.sessions import make_sessions


def add_sessions_command(subparsers: Any) -> argparse.ArgumentParser:
    """Mount ``sessions`` on what ``ArgumentParser.add_subparsers()`` returned; ``args.run(args)`` runs it.

    Every keyword of ``make_sessions`` is an option, spelt with dashes or underscores, with the same default.
    """
    parser = subparsers.add_parser(
        "sessions",
        help="turn raw clicks into session files",
        description="Cut clicks into sessions, split the sessions, and write RecBole's atomic files.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    defaults = {name: parameter.default for name, parameter in inspect.signature(make_sessions).parameters.items()}

    def add(name: str, text: str, **how: Any) -> None:
        spellings = dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}"))
        default = defaults[name]
        how |= {"required": True} if default is inspect.Parameter.empty else {"default": default}
        parser.add_argument(*spellings, dest=name, help=text, **how)

    add("inter", "clicks: a RecBole .inter file, plain, .gz or .xz", metavar="FILE")
    add("out", "folder of the new data set; its last part names the data set", metavar="FOLDER")
    add("user_field", "column of the user", metavar="NAME")
    add("item_field", "column of the item", metavar="NAME")
    add("time_field", "column of the timestamp", metavar="NAME")
    add("session_field", "column that is the session already; then --window is not used", metavar="NAME")
    add("window", "seconds of a session, in UTC; none: the user is the session", type=_window, metavar="SECONDS")
    add("min_length", "records of a session, at least", type=int, metavar="N")
    add("max_length", "items of a history, at most; the last ones are kept", type=int, metavar="N")
    add("split", "shares of the sessions in train, valid and test", type=float, nargs=3, metavar="SHARE")
    add("order", "split at random, or by the time of the last click", choices=ORDERS)
    add("augmentation", "training rows: one for every item after the first, or one a session", choices=AUGMENTATIONS)
    add("seed", "seed of the random split", type=int, metavar="N")
    add("time_unit", "unit of the timestamps; without it they are whole seconds", choices=tuple(TIME_UNITS))
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Make the sessions, print the counts and the RecBole settings that read them. AlkdError as ``make_sessions`` raises it."""
    names = inspect.signature(make_sessions).parameters
    counts = make_sessions(**{name: getattr(args, name) for name in names})
    for name, count in counts.items():
        print(f"{name:20}{count:>12,}")
    print(
        f"\nRecBole reads {args.out} with\n"
        "USER_ID_FIELD: session_id\n"
        f"ITEM_ID_FIELD: {args.item_field}\n"
        f"load_col: {{inter: [session_id, {args.item_field}_list, {args.item_field}]}}\n"
        f"alias_of_item_id: [{args.item_field}_list]\n"
        "benchmark_filename: [train, valid, test]\n"
        f"MAX_ITEM_LIST_LENGTH: {args.max_length}"
    )
    return 0


def _window(text: str) -> int | None:
    return None if text.lower() in ("none", "~") else int(text)
