"""Clicks as they are written: tokens as text, timestamps as exact integers, rows without an id counted.

RecBole itself keeps a timestamp as float32, whose steps are 64 to 128 seconds today,
and so loses the order of clicks.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from decimal import Context, Decimal, DecimalException, Inexact, InvalidOperation
from pathlib import Path

import numpy as np

from recbole_alkd.data.tables import checked_id, open_table, shown
from recbole_alkd.settings.error import AlkdError

# Timestamps without a unit stay the integers they are; with one they become nanoseconds.
TIME_UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_EXACT = Context(prec=60, traps=[Inexact, InvalidOperation])
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Clicks:
    """The clicks of one file that have a user and an item, in file order.

    Attributes:
        path: the file.
        rows: how many rows it has, those without an id among them.
        blank: lines of the rows without a user or an item, which are left out.
        user, item: (N,) codes in order of first appearance.
        time: (N,) int64, in seconds as they stand in the file, or in nanoseconds when a time unit was given.
        line: (N,) the line of each.
        users, items: the tokens behind the codes.
        kinds: name -> RecBole's type, of all columns of an atomic file.
        others: name -> (N,) texts of the other columns that were asked for.
    """

    path: Path
    rows: int
    blank: list[int]
    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    line: np.ndarray
    users: list[str]
    items: list[str]
    kinds: dict[str, str] = field(default_factory=dict)
    others: dict[str, list[str]] = field(default_factory=dict)

    def left_out(self) -> str | None:
        """What to say about rows without an id; None when there are none."""
        if not self.blank:
            return None
        return (
            f"{self.path.name}: {len(self.blank):,} of {self.rows:,} rows have no user or no item and are "
            "left out "
            f"(line {shown(self.blank)})"
        )


def read_clicks(
    path: Path,
    user_field: str,
    item_field: str,
    time_field: str,
    time_unit: str | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    others: Iterable[str] | None = (),
) -> Clicks:
    """Read the clicks of an ``.inter`` file or of CSV, line by line; memory holds codes and distinct tokens,
    not the text.

    An id is the text as it stands, without the spaces around it, whatever type the header gives it: ``007``,
    ``12.0`` and ``1e5`` stay what they are.

    Args:
        time_unit: of numbers; a date (ISO 8601, UTC where it names no zone) needs none.
        separator, encoding: as for ``open_table``.
        others: further columns to keep, those of them that are there. None: every other column.

    Raises:
        AlkdError: file, header, a line with another number of columns, or a timestamp that is not exact in
            whole seconds (in whole nanoseconds with ``time_unit``); it names file, line and value.
    """
    user, item, time, lines = array("q"), array("q"), array("q"), array("q")
    users: dict[str, int] = {}  # texts, of which several may be one token
    items: dict[str, int] = {}
    user_codes: dict[str, int] = {}
    item_codes: dict[str, int] = {}
    blank: list[int] = []
    factor = 1 if time_unit is None else TIME_UNITS[time_unit]
    with open_table(path, separator, encoding) as table:
        at_user = table.index(user_field, "the user or session")
        at_item = table.index(item_field, "the item")
        at_time = table.index(time_field, "the time that orders a session")
        wanted = table.columns if others is None else [name for name in others if name in table.columns]
        kept = {name: (table.columns.index(name), list[str]()) for name in wanted}
        for name in (user_field, item_field, time_field):
            kept.pop(name, None)
        for line, row in table.rows:
            one, other = users.get(row[at_user]), items.get(row[at_item])
            if one is None or other is None:  # a text that is met for the first time
                token, clicked = checked_id(row[at_user], path, line), checked_id(row[at_item], path, line)
                if not token or not clicked:
                    blank.append(line)
                    continue
                one = users[row[at_user]] = user_codes.setdefault(token, len(user_codes))
                other = items[row[at_item]] = item_codes.setdefault(clicked, len(item_codes))
            user.append(one)
            item.append(other)
            lines.append(line)
            try:
                time.append(int(row[at_time]) * factor)
            except (ValueError, OverflowError):
                time.append(exact_time(row[at_time], time_unit, f"{path}, line {line}: {time_field}"))
            for at, texts in kept.values():
                texts.append(row[at])
        kinds = dict(zip(table.columns, table.kinds, strict=False))
    return Clicks(
        path=path,
        rows=len(user) + len(blank),
        blank=blank,
        user=np.array(user, dtype=np.int64),
        item=np.array(item, dtype=np.int64),
        time=np.array(time, dtype=np.int64),
        line=np.array(lines, dtype=np.int64),
        users=list(user_codes),
        items=list(item_codes),
        kinds=kinds,
        others={name: texts for name, (_, texts) in kept.items()},
    )


def exact_time(text: str, unit: str | None, where: str) -> int:
    """A timestamp that may not be one to Python's int: "881250949.0" is one, 881250949.5 needs a unit.

    Args:
        unit: of numbers, of ``TIME_UNITS``, or None. where: what a message begins with.

    Returns:
        seconds, or nanoseconds where there is a unit. AlkdError for what cannot be kept exactly in 64 bits.
    """
    factor = 1 if unit is None else TIME_UNITS[unit]
    try:
        value = _EXACT.multiply(_EXACT.create_decimal(text.strip()), Decimal(factor))
    except DecimalException:
        value = _date(text, unit, where)
    if not value.is_finite() or abs(value) >= 2**63:
        raise AlkdError(f"{where} {text!r} is out of range")
    if value != value.to_integral_value():
        if unit is None:
            raise AlkdError(
                f"{where} {text!r} is not an integer; give its time_unit (session_time_unit): s, ms, us or ns"
            )
        raise AlkdError(f"{where} {text!r} ({unit}) is finer than a nanosecond")
    return int(value)


def _date(text: str, unit: str | None, where: str) -> Decimal:
    """An ISO 8601 date in seconds since 1970, or in nanoseconds where numbers have a unit."""
    try:
        when = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        raise AlkdError(
            f"{where} {text!r} is not a number that can be kept exactly, nor a date such as 2011-12-09 "
            "12:50:00"
        ) from None
    since = (when if when.tzinfo else when.replace(tzinfo=timezone.utc)) - _EPOCH
    microseconds = (since.days * 86400 + since.seconds) * 10**6 + since.microseconds
    return Decimal(microseconds) * 1000 if unit else Decimal(microseconds) / 10**6
