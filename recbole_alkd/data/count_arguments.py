"""The arguments of ``recbole-alkd count``, which Spark's maker of the same counts has too."""

from __future__ import annotations

import argparse

from recbole_alkd.data.argument_types import filled, last_items, path, window
from recbole_alkd.data.click_blocks import ClickColumns
from recbole_alkd.data.pairs import LONGEST_GAP
from recbole_alkd.data.partial_counts import CountSettings
from recbole_alkd.data.reading import TIME_UNITS
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.places import check_folder

_MOST_ITEMS = 257  # a gap is kept in one byte


def add_count_arguments(parser: argparse.ArgumentParser, inter: str) -> None:
    """Add them to ``parser``. ``inter``: the help of ``--inter``, as each command reads clicks of its own."""
    usual = ClickColumns()
    add = parser.add_argument
    add("--inter", required=True, type=filled, metavar="PART", help=inter)
    add(
        "--out", required=True, type=path, metavar="FOLDER", help="folder for the files of counts, one a part"
    )
    add(
        "--user-field",
        default=usual.session,
        metavar="NAME",
        help="column of the user (default: %(default)s)",
    )
    add(
        "--session-field",
        metavar="NAME",
        help="column that is the session already; then --window is not used",
    )
    add("--item-field", default=usual.item, metavar="NAME", help="column of the item (default: %(default)s)")
    add("--time-field", default=usual.time, metavar="NAME", help="column of the time (default: %(default)s)")
    add(
        "--window",
        type=window,
        default=usual.window,
        metavar="SECONDS",
        help="a user's clicks with the same floor(time / SECONDS), UTC, are a session; none: all of them "
        "(default: %(default)s)",
    )
    add("--time-unit", choices=tuple(TIME_UNITS), help="of times that are numbers; without it, whole seconds")
    add(
        "--min-length",
        type=int,
        default=2,
        metavar="N",
        help="clicks of a session, at least (default: %(default)s)",
    )
    add(
        "--last-items",
        type=last_items,
        default=20,
        metavar="N",
        help="how many of a session's newest clicks count, or all (default: %(default)s)",
    )


def columns_and_settings(args: argparse.Namespace) -> tuple[ClickColumns, CountSettings]:
    """What the arguments say: where clicks have what, and how sessions are counted.

    Args:
        args: with ``--separator`` and ``--encoding`` beside those of ``add_count_arguments``, where the
            command reads text.

    Raises:
        AlkdError: a number that is not allowed, or a folder that cannot be made.
    """
    check_folder("--out", args.out)
    seconds = None if args.session_field else args.window
    for key, value, most in (
        ("--last-items", args.last_items, _MOST_ITEMS),
        ("--min-length", args.min_length, None),
        ("--window", seconds, None),
    ):
        least = 1 if key == "--window" else 2
        if value is not None and not least <= value <= (most or value):
            span = f"of at least {least}" if most is None else f"from {least} to {most}"
            raise AlkdError(f"{key}: {value} is not allowed; allowed: a whole number {span}")
    text = (getattr(args, "separator", None), getattr(args, "encoding", None))
    session = args.session_field or args.user_field
    columns = ClickColumns(session, args.item_field, args.time_field, seconds, args.time_unit, *text)
    longest = LONGEST_GAP if args.last_items is None else args.last_items - 1
    return columns, CountSettings(args.last_items, longest, args.min_length, seconds)
