"""Finds every place in an LLM's answer that names an item by its id.

This is the lower half of ``parse.py``: it says what is named where, and how surely; which of these places
make up the ranking is decided there. Everything is one pass over the text,
so that a 10 MB answer costs seconds, not days.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from recbole_alkd.teacher.answers.places import Lists, Mention, normal
from recbole_alkd.teacher.answers.titles import Titles

LONG_ID = 5  # digits of a number that is no number of prose
# an id with one of these, or with a space, is looked for as a whole
_STRUCTURE = frozenset("[](){}<>,;:\"'`")
_SEPARATORS = frozenset("[](){},;|<>:.=→\n\t")
_BULLETS = " \t>*#|(_•+-"
_QUIET = " \t\"'`*_"
_JOINING = frozenset(["and", "then", "or"])
ID_WORDS = frozenset(["id", "itemid", "item_id"])
NO_ID_WORDS = frozenset(
    ["rank", "no", "nr", "number", "position", "pos", "top", "place", "score", "index", "rating", "year"]
)
NO_ID_WORDS |= {
    "total",
    "count",
    "error",
    "code",
    "step",
    "page",
    "confidence",
    "probability",
    "likelihood",
    "weight",
}
_SPACED_DASH = re.compile(r"\s[-–—]|[-–—]\s")
_TITLE_BEHIND = re.compile(r"[\s\"'`*_]*[:(|–—-]|>[ \t]+\Z")  # "5: Heat", "5 - Heat", "<ID5> Heat"
_TITLE_END = re.compile(r"[,;|\n\]]")
_ANGLE_END = re.compile(r"[>\n]")


class Ids:
    """The candidates by their normalised ids, and the pattern of what may be an id in a text."""

    def __init__(self, candidates: Sequence[str]) -> None:
        self.exact: dict[str, list[str]] = {}
        folded: dict[str, list[str]] = {}
        for token in dict.fromkeys(candidates):
            name = normal(token).strip()
            if name:
                self.exact.setdefault(name, []).append(token)
                folded.setdefault(name.casefold(), []).append(token)
        # 85123A and 85123a are two items where both are candidates
        self.folded = {name: tokens for name, tokens in folded.items() if len(tokens) == 1}
        self.are_numbers = all(name.isdigit() for name in self.exact)
        odd = [name for name in self.exact if any(c.isspace() or c in _STRUCTURE for c in name)]
        plain = set(self.exact).difference(odd)
        self.edges = "_" + "".join(
            sorted({c for name in plain for c in name if not (c.isalnum() or c == "_")})
        )
        # where no id needs other letters than these, a number between Chinese characters is a word by itself
        letter = ("0-9A-Za-z" if all(name.isascii() for name in self.exact) else r"\w") + re.escape(
            self.edges
        )
        # words without a digit are passed over as fast as can be, unless an id has none either
        digit = "" if any(not any(c.isdigit() for c in name) for name in plain) else rf"(?=[{letter}]*[0-9])"
        word = rf"(?<![{letter}]){digit}[{letter}]+"
        whole = "|".join(map(re.escape, sorted(odd, key=len, reverse=True)))
        self.pattern = re.compile(rf"(?<!\w)(?:(?i:id)[_#-]?)?(?:{whole})(?!\w)|{word}" if odd else word)

    def find(self, word: str) -> tuple[tuple[str, ...], str | None]:
        """The tokens that ``word`` can mean, and "case" where its upper and lower case is off."""
        for name in (word, word.strip(self.edges)):
            if name in self.exact:
                return tuple(self.exact[name]), None
            if name.casefold() in self.folded:
                return tuple(self.folded[name.casefold()]), "case"
        return (), None


@dataclass
class _Word:
    """A word with what stands around it, as far as 64 characters on either side."""

    text: str
    start: int
    end: int
    left: str  # from the word before
    right: str  # to the word behind
    last: str  # the word before, lower case; "" where there is none
    following: str  # the word behind, lower case

    @property
    def opens_line(self) -> bool:
        return (not self.last or "\n" in self.left) and not self.left.rpartition("\n")[2].strip(_BULLETS)


_BESIDE = re.compile(r"(\W*)(\w*)")


def _words(text: str, pattern: re.Pattern[str]) -> Iterator[_Word]:
    for match in pattern.finditer(text):
        start, end = match.span()
        left = _BESIDE.match(text[max(0, start - 64) : start][::-1])
        right = _BESIDE.match(text[end : end + 64])
        assert left and right  # the pattern matches every text
        yield _Word(
            match.group(), start, end, left[1][::-1], right[1], left[2][::-1].casefold(), right[2].casefold()
        )


def id_mentions(text: str, ids: Ids, brackets: Lists, titles: Titles | None = None) -> Iterator[Mention]:
    """Every place in a normalised ``text`` that names an id, offered or not, in order.

    With ``titles``, what stands in the title behind an id, as the answer repeats it, names nothing.
    """
    counter, running, numbered, title_until, own_until, restarts = 0, False, -1, 0, 0, False
    for word in _words(text, ids.pattern):
        if word.start < own_until:
            continue
        tokens, how, marked = _find(word.text, ids)
        angle = word.left.endswith("<") and (word.text.startswith("ID") or word.right[:1] in ("", ">", ":"))
        if not (tokens or angle or any(c.isdigit() for c in word.text)):
            continue  # a word of prose
        behind_id = word.last in ID_WORDS and len(word.left) <= 6 and not word.left.strip(" \"':=#<-")
        marked = marked or angle or behind_id
        behind_number = word.start - len(word.left) == numbered
        if not marked and word.text.isdigit():
            if _is_list_number(word, counter, running, ids):
                restarts = int(word.text) == 1 and counter > 1
                counter, running, numbered = int(word.text), True, word.end
                continue
            if _is_other_number(word) and not behind_number:
                continue
        if not marked and word.start < title_until:
            continue
        element = _is_element(word, behind_number, ids)
        if not (tokens or marked or (element and (word.text.isdigit() or not ids.are_numbers))):
            continue
        if titles and len(tokens) == 1 and (marked or element):
            own_until = titles.end_behind(tokens[0], text, word.end)
        # "(1) 318 (2) 260"
        numbers_next = word.right.strip(_QUIET) == "(" and word.following == str(counter + 1)
        if (marked or element) and _TITLE_BEHIND.match(word.right) and not numbers_next:
            # numbers in the title behind an id are no ids
            stop = (_ANGLE_END if word.left.endswith("<") else _TITLE_END).search(
                text, word.end, word.end + 1000
            )
            title_until = stop.start() if stop else word.end + 1000
        cut = word.end == len(text) and word.left[-1:] in ("<", '"', "'")
        yield Mention(
            word.start, word.end, tokens, marked, element, how, brackets.at(word.start), cut, restarts
        )
        restarts = False
        running = running and (behind_number or not word.opens_line)


def _find(word: str, ids: Ids) -> tuple[tuple[str, ...], str | None, bool]:
    """The tokens, the repair, and whether the word carries the mark ID."""
    has_mark = len(word) > 2 and word[:2].casefold() == "id"
    if has_mark:
        tokens, how = ids.find(word[2:].lstrip("_-#"))
        if tokens:
            return tokens, how, True
    tokens, how = ids.find(word)
    return tokens, how, has_mark and not tokens and any(c.isdigit() for c in word)


def _is_element(word: _Word, numbered: bool, ids: Ids) -> bool:
    """Whether ``word`` stands by itself between separators; ``numbered``: behind a list number."""
    left, right = _apart(word.left, word.last), _apart(word.right, word.following)
    # such as 5 in "take 5, 7, 12"
    heads_list = word.right.strip(_QUIET) == "," and bool(ids.find(word.following)[0])
    return (left and right) or heads_list or (numbered and word.following.isdigit())  # "1. 5 2. 7"


def _is_list_number(word: _Word, counter: int, running: bool, ids: Ids) -> bool:
    """Whether ``word`` is the number of a line or a list element, as in ``3. Heat``;
    ``counter`` was the last one.

    ``running``: no line without a number has named an item since.
    """
    if len(word.text) > 4:
        return False
    value = int(word.text)
    in_turn = value == counter + 1 or (value == 1 and word.opens_line)
    mark = word.right.lstrip(" \t*_")[:1]
    joined = word.right in (".", ")") and word.following[:1].isdigit()  # 12.5
    if (word.left[-1:], word.right[:1]) in (("[", "]"), ("(", ")")) and "\n" not in word.right:
        # "[1] 318", and not the items of "[1] [3]"
        apart = not word.right[1:].strip(" \t<\"'`*_:-") and bool(word.right[1:])
        named = (
            word.following.isdigit() or word.following.startswith("id") or bool(ids.find(word.following)[0])
        )
        return apart and named and (value == counter + 1 or value == 1)
    dashed = word.left.rstrip(" ").endswith(("-", "•", "+"))
    if (
        running
        and counter > 1
        and in_turn
        and word.opens_line
        and not (dashed or word.right or word.following)
    ):
        return True  # the list was cut off behind a number; behind a dash there is an item
    if word.opens_line and mark in (".", ")"):
        return in_turn or not joined
    if word.opens_line and in_turn and word.following and "\n" not in word.right:
        return mark not in (",", ";", ">", "]") and (
            mark != "" or "\t" in word.right or not word.following.isdigit()
        )
    if word.right.startswith('":') or (word.right == '"' and not word.following and counter > 0):
        return in_turn  # {"1": "85123A", "2"...
    return in_turn and counter > 0 and mark in (".", ")") and word.left[-1:].isspace() and not joined


def _is_other_number(word: _Word) -> bool:
    """Whether the digits of ``word`` are a rank, a year or half of a decimal number."""
    if word.last in NO_ID_WORDS and len(word.left) <= 6 and "\n" not in word.left:
        return True
    if (
        len(word.text) == 4
        and word.text[:2] in ("19", "20")
        and word.left.endswith("(")
        and word.right.startswith(")")
    ):
        return True
    return (word.left == "." and word.last.isdigit()) or (word.right == "." and word.following.isdigit())


def _apart(gap: str, neighbour: str) -> bool:
    """Whether ``gap`` sets a list element apart from ``neighbour``, the word on its other side ("" at the
    text's end)."""
    if not neighbour or neighbour in _JOINING or _SPACED_DASH.search(gap):
        return True
    return not _SEPARATORS.isdisjoint(gap)
