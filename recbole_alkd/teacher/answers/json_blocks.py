"""The JSON in an LLM's answer: lists of items, objects with ids, ranks and scores,
a ranking beside the candidates it is of.

Numbers stay as they were written, objects keep the order of their keys, and repeated keys are kept.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from recbole_alkd.teacher.answers.mentions import ID_WORDS, NO_ID_WORDS, Ids, id_mentions
from recbole_alkd.teacher.answers.places import Lists, Mention, normal
from recbole_alkd.teacher.answers.rows import item_id, number
from recbole_alkd.teacher.answers.titles import Titles

_COMMENTS = frozenset(
    [
        "reason",
        "reasons",
        "reasoning",
        "explanation",
        "analysis",
        "thought",
        "thoughts",
        "comment",
        "note",
        "notes",
    ]
)
RANKS = frozenset(["rank", "position", "pos", "place"])
SCORES = frozenset(
    ["score", "probability", "prob", "likelihood", "relevance", "confidence", "similarity", "weight"]
)
# keys of what is no answer, and of what is one
OFFERED_KEY = re.compile(
    r"(?i)(candidate|offered|option|input|history|watched|bought|chosen|session|context|query|exclu|omit|reject|not_|remaining|draft|"
    r"initial|reason|thought|think|analys|expla|consider|similar|comment|note|meta|id_map|titles?\Z)"
)
ANSWER_KEY = re.compile(
    r"(?i)(rank|answer|result|recommend|final|top|order|sorted|list|output|items|predict|selected|best)"
)
_START = re.compile(r"[\[{](?=\s*[\"\[{\d\-\]}])")
_MARKED = re.compile(r"<?(?:ID[\s:#_-]*)?(.*?)>?", re.DOTALL | re.IGNORECASE)
_TRIES = 300  # places at which JSON is looked for


@dataclass(frozen=True)
class JsonBlock:
    """The items of one list in a JSON value. ``key``: what the object around it calls it.
    start, end: of the whole value."""

    key: str
    mentions: list[Mention]
    start: int
    end: int

    @property
    def is_offered(self) -> bool:
        return bool(OFFERED_KEY.match(self.key)) and not re.search(r"(?i)rank|sort|order", self.key)

    @property
    def is_answer(self) -> bool:
        return bool(ANSWER_KEY.search(self.key)) and not self.is_offered


def json_blocks(text: str, ids: Ids, titles: Titles | None) -> Iterator[list[JsonBlock]]:
    """The lists of every JSON value in ``text`` that names items, value by value."""
    decoder = json.JSONDecoder(
        parse_int=str, parse_float=str, parse_constant=str, object_pairs_hook=tuple, strict=False
    )
    behind = work = 0
    for tried, place in enumerate(_START.finditer(text)):
        if tried >= _TRIES or work > 4 * len(text) + 100_000:
            return
        start = place.start()
        if start < behind:
            continue
        try:
            value, behind = decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            work += error.pos - start
            continue
        except (RecursionError, ValueError):
            work += 100_000
            continue
        if (
            isinstance(value, list)
            and len(value) < 2
            and not any(isinstance(entry, (list, tuple)) for entry in value)
        ):
            behind = start + 1  # a footnote [1], or one of several such lists: for the reader of texts
            continue
        named = [
            JsonBlock(key, mentions, start, behind)
            for key, mentions in _Reader(ids, titles).blocks(value)
            if any(mention.tokens for mention in mentions)
        ]
        if named:
            yield named
        else:
            behind = start + 1


class _Reader:
    def __init__(self, ids: Ids, titles: Titles | None) -> None:
        self.ids, self.titles = ids, titles

    def blocks(self, value: Any, key: str = "") -> list[tuple[str, list[Mention]]]:
        """(key, items) of every list in ``value``, depth first; ``object_pairs_hook=tuple`` has made objects
        tuples of pairs."""
        lists: list[tuple[str, list[Mention]]] = []
        if isinstance(value, list):
            self._list(value, key, lists)
        elif isinstance(value, tuple):
            self._object(value, key, lists)
        elif isinstance(value, str):
            lists.append((key, self._scalar(value)))
        return lists

    def _list(self, values: list[Any], key: str, lists: list[tuple[str, list[Mention]]]) -> None:
        pairs = _as_pairs(values, self.ids)
        if pairs:
            self._object(pairs, key, lists)
            return
        mine: list[Mention] = []
        below: list[tuple[str, list[Mention]]] = []
        for value in _by_rank(values, self.ids):
            if isinstance(value, list):
                self._list(value, key, below)
                mine += [mention for _, mentions in below for mention in mentions]
                below.clear()
            elif isinstance(value, tuple):
                inner: list[tuple[str, list[Mention]]] = []
                self._object(value, key, inner)
                mine += [mention for name, mentions in inner if name == key for mention in mentions]
                lists += [(name, mentions) for name, mentions in inner if name != key]
            elif isinstance(value, str):
                mine += self._scalar(value) or [Mention(0, 0, ())]
        lists.append((key, mine))

    def _object(
        self, pairs: tuple[tuple[str, Any], ...], key: str, lists: list[tuple[str, list[Mention]]]
    ) -> None:
        own = _own_ids(pairs)
        if own:
            marked = (f"ID{value}" if value in self.ids.exact else value for value in own)
            lists.append((key, [mention for value in marked for mention in self._scalar(value)]))
            return
        nested: list[tuple[str, Any]] = [
            (name, value) for name, value in pairs if isinstance(value, (list, tuple))
        ]
        if nested and all(isinstance(value, tuple) for _, value in nested):
            if all(_own_ids(value) for _, value in nested):  # {"1": {"id": 30}, ...}
                self._list([value for _, value in nested], key, lists)
                return
            if all(self.ids.find(name)[0] for name, _ in nested):  # {"30": {"score": .9}, ...}
                self._list([(("id", name), *value) for name, value in nested], key, lists)
                return
        scalars = [(name, value) for name, value in pairs if isinstance(value, str)]
        answers = [
            value for name, value in scalars if ANSWER_KEY.search(name) and not OFFERED_KEY.match(name)
        ]
        named = [mention for value in answers for mention in self._scalar(value) if mention.tokens]
        mine = named or [mention for value in _values(scalars, self.ids) for mention in self._scalar(value)]
        if mine:
            lists.append((key, mine))
        for name, value in nested:
            (self._list if isinstance(value, list) else self._object)(
                value, name if not name.isdigit() else key, lists
            )

    def _scalar(self, value: str) -> list[Mention]:
        """The items that one JSON string or number names."""
        text = normal(value)
        inner = _MARKED.fullmatch(text.strip())
        for name in (text.strip(), inner[1].strip() if inner else ""):
            tokens, how = self.ids.find(name)
            if tokens:
                return [Mention(0, 0, tokens, how=how)]
        tokens = self.titles.find(text) if self.titles else ()
        if tokens:
            return [Mention(0, 0, tokens, how="title")]
        mentions = [m for m in id_mentions(text, self.ids, Lists(text), self.titles) if m.marked or m.element]
        listed = bool(mentions) and mentions[0].start <= 1
        kept = [m for m in mentions if m.marked or m.inside >= 0 or listed]
        return kept if any(m.tokens for m in kept) else []


def _own_ids(pairs: tuple[tuple[str, Any], ...]) -> list[str]:
    return [value for name, value in pairs if name.casefold() in ID_WORDS and isinstance(value, str)]


def _number(text: Any) -> float | None:
    try:
        return float(text) if isinstance(text, str) else None
    except ValueError:
        return number(text)


def _as_pairs(values: list[Any], ids: Ids) -> tuple[tuple[str, str], ...]:
    """``[["318", 0.9], ...]``, ``[[1, 318], ...]`` and ``[{"318": 0.9}, ...]`` as one object;
    of any other list nothing."""
    if len(values) < 2:
        return ()
    pairs: list[tuple[str, str]] = []
    for value in values:
        pair = value[0] if isinstance(value, tuple) and len(value) == 1 else value
        if not (
            isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(part, str) for part in pair)
        ):
            return ()
        pairs.append((pair[0], pair[1]))
    places = [name for name, _ in pairs] == [str(place) for place in range(1, len(pairs) + 1)]
    named = [all(item_id(pair[side], ids) for pair in pairs) for side in (0, 1)]
    beside = all(_number(value) is not None for _, value in pairs)
    return tuple(pairs) if (places and named[1]) or (named[0] and beside and not named[1]) else ()


def _by_rank(values: list[Any], ids: Ids) -> list[Any]:
    """Objects in the order of their ranks, or else of their scores, where all of them have one;
    any other list as it is."""
    objects = [value for value in values if isinstance(value, tuple)]
    if len(objects) < len(values) or not all(
        _own_ids(v) or all(isinstance(inner, str) for _, inner in v) for v in objects
    ):
        return values
    for keys, sign in ((RANKS, 1.0), (SCORES, -1.0)):
        numbers = [
            next((_number(v) for name, v in value if name.casefold() in keys), None) for value in objects
        ]
        known = [number for number in numbers if number is not None]
        if len(known) == len(values) and len(set(known)) > 1:
            return [
                value
                for value, _ in sorted(
                    zip(objects, known, strict=True), key=lambda pair: _place(pair[1], sign)
                )
            ]
    return values


def _place(number: float, sign: float) -> float:
    return math.inf if math.isnan(number) else sign * number


def _values(pairs: list[tuple[str, str]], ids: Ids) -> list[str]:
    """What of an object may name items: its values, or its keys where the values are their ranks
    or scores."""
    beside = NO_ID_WORDS | _COMMENTS
    kept = [(name, value) for name, value in pairs if name.casefold() not in beside]
    named = [sum(bool(item_id(pair[side], ids)) for pair in kept) for side in (0, 1)]
    numbers = [_number(value) for _, value in kept]
    places = [name for name, _ in kept] == [str(place) for place in range(1, len(kept) + 1)]
    ranks = sorted(n for n in numbers if n is not None) == list(range(1, len(kept) + 1))
    scored = named[0] == len(kept) and None not in numbers and not places
    if (
        kept
        and named[0]
        and (ranks or named[0] > named[1] or scored)
        and not (places and named[1] == len(kept))
    ):
        sign = 1.0 if ranks else -1.0
        scores = [math.nan if number is None else number for number in numbers]
        if all(number is None for number in numbers):
            return [name for name, _ in kept]
        return [
            name
            for (name, _), _ in sorted(zip(kept, scores, strict=True), key=lambda pair: _place(pair[1], sign))
        ]
    return [value for _, value in kept]
