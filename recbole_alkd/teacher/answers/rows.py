"""Rows of an LLM's answer that hold an item beside its place or its score, in the order that these numbers
say.

``1,318`` and ``#1 318`` (places first), ``318,1`` (ranks behind), ``<ID318>: 0.9`` and ``318 | 85%`` (scores
behind).
"""

from __future__ import annotations

import re

from recbole_alkd.teacher.answers.mentions import Ids

_ROW = re.compile(
    r"[ \t>*|+•-]*(?P<hash>#?)(?P<one>[^\s,;|:=()]+?)[ \t*_`\"'|]*(?P<gap>[,;|:=\t]|->|→|[ \t])[ "
    r"\t*_`\"'|(#]*"
    r"(?:(?P<name>score|rank|probability|relevance)[ \t]*[:=]?[ \t]*)?(?P<two>[^\s,;|:=()]+?)[ "
    r"\t)*_`\"'|,;]*",
    re.IGNORECASE,
)
# with the title between: "<ID318> Heat: 0.9"
_TITLED = re.compile(
    r"[ \t>*|+•-]*(?P<one><ID[^<>\s]+>)[^\n]*[:|=(][ \t*_]*(?P<name>(?:score|probability|relevance)[ \t:=]*)?"
    r"(?P<two>\d*\.\d+|\d+(?:\.\d+)?%)[ \t)*_|]*",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?P<value>-?(?:\d+(?:\.\d+)?|\.\d+))(?P<unit>%|/\d+)?")
_MARK = re.compile(r"[\"'`*_]*<?(?:ID[#:_-]?)?(?P<id>.+?)>?[\"'`*_]*", re.IGNORECASE)
_ORDINAL = re.compile(r"(\d{1,4})(?:st|nd|rd|th)?", re.IGNORECASE)
_LONGEST = 200  # characters of a row


def number(text: str) -> float | None:
    """The number that ``text`` is: ``0.9``, ``90%``, ``9/10``.
    The units of one list are the same, so they may be left out."""
    match = _NUMBER.fullmatch(text.strip())
    return float(match["value"]) if match else None


def item_id(text: str, ids: Ids) -> str | None:
    """``text`` without marks, such as ``318`` for ``<ID318>``, if it is a candidate's id."""
    match = _MARK.fullmatch(text.strip())
    for name in (text.strip(), match["id"] if match else ""):
        if ids.find(name)[0]:
            return name
    return None


def in_order(text: str, ids: Ids) -> str:
    """``text`` with every run of such rows as lines of ``<ID..>``, best first. Other lines stay as
    they are."""
    lines = text.split("\n")
    if len(lines) < 2:
        return text
    out: list[str] = []
    run: list[tuple[str, re.Match[str]]] = []
    for line in [*lines, None]:
        row = (
            (_ROW.fullmatch(line) or _TITLED.fullmatch(line))
            if line is not None and len(line) <= _LONGEST
            else None
        )
        if row and line is not None and any(c.isalnum() for c in line):  # no rule of a table
            run.append((line, row))
            continue
        out += _ordered(run, ids)
        run = []
        if line is not None:
            out.append(line)
    return "\n".join(out)


def _ordered(run: list[tuple[str, re.Match[str]]], ids: Ids) -> list[str]:
    lines = [line for line, _ in run]
    for start in (0, 1):  # the first row may be the names of the columns
        rows = [row for _, row in run[start:]]
        if len(rows) < 2:
            break
        ordered = _by_places(rows, ids) or _by_numbers(rows, ids)
        if ordered:
            return lines[:start] + [f"<ID{name}>" for name in ordered]
    return lines


def _by_places(rows: list[re.Match[str]], ids: Ids) -> list[str] | None:
    """Rows of place and item."""
    places = [_ORDINAL.fullmatch(row["one"]) for row in rows]
    if [int(place[1]) for place in places if place] != list(range(1, len(rows) + 1)):
        return None
    return _all([item_id(row["two"], ids) for row in rows])


def _by_numbers(rows: list[re.Match[str]], ids: Ids) -> list[str] | None:
    """Rows of item and rank or score."""
    names = _all([item_id(row["one"], ids) for row in rows])
    values = [number(row["two"]) for row in rows]
    known = [value for value in values if value is not None]
    if names is None or len(known) < len(rows) or len(set(names)) < len(rows) or len(set(known)) < 2:
        return None
    ranks = sorted(known) == list(range(1, len(rows) + 1))
    said = all(row["name"] or not row["two"].isdigit() for row in rows)  # 0.9, 90%, "score 7"
    if not ranks and not said:
        return None  # two columns of ids, perhaps
    if all((row["name"] or "").casefold() == "rank" for row in rows):
        ranks = True
    order = sorted(zip(known, names, strict=True), key=lambda pair: pair[0] if ranks else -pair[0])
    return [name for _, name in order]


def _all(names: list[str | None]) -> list[str] | None:
    known = [name for name in names if name is not None]
    return known if len(known) == len(names) else None
