"""Reads a ranking out of whatever an LLM answered.

The prompt asks for ``[<ID..>,<ID..>,...]``; answers also come as JSON, as numbered lines, in prose, with titles instead
of ids, cut off in the middle, or with items that were never offered. Ids decide; titles are only used where an answer
names no ids. Nothing here knows the true next item. The time is linear in the length of the answer.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from recbole_alkd.teacher.mentions import ID_WORDS, NO_ID_WORDS, Ids, Lists, Mention, Titles, id_mentions, normal, title_mentions
from recbole_alkd.teacher.thoughts import without_thoughts

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ParsedRanking:
    """A ranking and what had to be mended to get it.

    Attributes:
        items: distinct candidate tokens, best first.
        repairs: how often, by kind: "duplicate" (an item named again), "unknown" (an id that was not offered), "case"
            (an id in other upper and lower case), "title" (an item named by its title), "surplus" (items beyond
            ``top_n``), "truncated" (the list never ends). Empty for a clean answer.
    """

    items: tuple[str, ...]
    repairs: dict[str, int]


def parse_ranking(text: str, candidates: Sequence[str], top_n: int, titles: Mapping[str, str] | None = None) -> ParsedRanking:
    """The ranking in ``text``.

    Args:
        text: the answer.
        candidates: the item tokens that were offered; any text, numbers or not.
        top_n: how many items to keep at most.
        titles: token -> title, for answers that name titles. Of items with the same title, the first candidate that is
            not ranked yet is taken.

    Returns:
        Distinct candidates, at most ``top_n``; none when the answer names none.
    """
    ids = Ids(candidates)
    answer = without_thoughts(normal(text), lambda name: bool(ids.find(name)[0]))
    by_title = Titles(titles, candidates) if titles else None
    found = _from_text(answer, ids, by_title, top_n)
    structured = _from_json(answer, ids, by_title)
    return _ranking(_first_that_lasts([structured, found], top_n), top_n)


def read_ranking(text: str, candidates: Sequence[str], top_n: int, titles: Mapping[str, str] | None = None) -> ParsedRanking:
    """``parse_ranking`` of an answer that was paid for: should it fail, the answer has no ranking, and the log says why."""
    try:
        return parse_ranking(text, candidates, top_n, titles)
    except Exception as error:
        logger.warning("an answer could not be read (%s: %s); it is kept without a ranking", type(error).__name__, error)
        return ParsedRanking((), {"unreadable": 1})


_MOST = 100_000  # mentions that are looked at; an answer with more has gone round in circles


def _names(mentions: Iterable[Mention]) -> set[str]:
    return {mention.tokens[0] for mention in mentions if mention.tokens}


def _first_that_lasts(readings: Sequence[list[Mention]], top_n: int) -> list[Mention]:
    """The first reading, unless a later and less certain one names more than twice as many items."""
    best, size = readings[0], len(_names(readings[0]))
    for reading in readings[1:]:
        names = min(top_n, len(_names(reading)))
        if names > 2 * size:
            best, size = reading, names
    return best


def _from_text(text: str, ids: Ids, titles: Titles | None, top_n: int) -> list[Mention]:
    brackets = Lists(text)
    mentions = list(islice(id_mentions(text, ids, brackets), _MOST))
    readings = [
        _bracketed(mentions),
        [m for m in mentions if m.marked],
        [m for m in mentions if m.marked or m.element],
    ]
    chosen = _first_that_lasts(readings, top_n)
    if titles and 2 * len(_names(chosen)) < top_n:  # else titles cannot name more than twice as many
        chosen = _first_that_lasts([chosen, list(islice(title_mentions(text, titles, brackets), _MOST))], top_n)
    chosen = chosen or [m for m in mentions if m.tokens]
    return _without_cut(chosen, brackets, ids)


def _bracketed(mentions: Iterable[Mention]) -> list[Mention]:
    """The list in square brackets. Of several, those with other items go on, and one with the same items replaces."""
    lists_: dict[int, list[Mention]] = {}
    for mention in mentions:
        if mention.inside >= 0 and (mention.marked or mention.element):
            lists_.setdefault(mention.inside, []).append(mention)
    chosen: list[Mention] = []
    names: set[str] = set()
    for found in lists_.values():
        new = _names(found)
        if not new or (len(new) < 2 and not chosen):
            continue  # such as a footnote [1]
        if not names & new:
            chosen, names = chosen + found, names | new
        elif 2 * len(new) >= len(names):  # the offered items or a draft stood before; the answer is the last list
            chosen, names = found, new
    return chosen


def _without_cut(chosen: list[Mention], brackets: Lists, ids: Ids) -> list[Mention]:
    """Drop the half of an id at the end of an answer that was cut off, and note that it was."""
    if not chosen:
        return chosen
    last = chosen[-1]
    if last.cut:
        name = normal(last.tokens[0]) if last.tokens else ""
        if any(other.startswith(name) and other != name for other in ids.exact):
            return [*chosen[:-1], replace(last, tokens=(), how="truncated")]
    if brackets.unclosed and last.inside == len(brackets.starts) - 1:
        return [*chosen, replace(last, tokens=(), how="truncated")]
    return chosen


_COMMENTS = frozenset(
    ["reason", "reasons", "reasoning", "explanation", "analysis", "thought", "thoughts", "comment", "note", "notes"]
)
_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
_MARKED = re.compile(r"<?(?:ID[\s:#_-]*)?(.*?)>?", re.DOTALL | re.IGNORECASE)


def _from_json(text: str, ids: Ids, titles: Titles | None) -> list[Mention]:
    """The items of the JSON in ``text`` that names the most; nothing where there is none."""
    parts = [match[1] for match in _FENCE.finditer(text)][-100:]
    first, last = re.search(r"[\[{]", text), max(text.rfind("]"), text.rfind("}"))
    if first and last > first.start():
        parts.append(text[first.start() : last + 1])
    best: list[Mention] = []
    for part in parts:
        try:
            # numbers stay as they were written; objects become tuples of pairs, which keeps their order and repeated keys
            value = json.loads(part, parse_int=str, parse_float=str, object_pairs_hook=tuple)
        except (ValueError, RecursionError):
            continue
        found = list(islice(_json_mentions(value, ids, titles), _MOST))
        if len(_names(found)) >= max(1, len(_names(best))):
            best = found
    return best


def _json_mentions(value: Any, ids: Ids, titles: Titles | None) -> Iterator[Mention]:
    stack = [(value, False)]
    while stack:
        value, listed = stack.pop()
        if isinstance(value, list):
            stack.extend((element, True) for element in reversed(value))
        elif isinstance(value, tuple):
            stack.extend((element, False) for element in reversed(_object_values(value, ids)))
        elif isinstance(value, str):
            found = _text_mentions(normal(value), ids, titles)
            yield from found or ([Mention(0, 0, ())] if listed else [])


def _object_values(pairs: tuple[tuple[str, Any], ...], ids: Ids) -> list[Any]:
    """What of an object may name items: its id, or its values, or its keys where the values are their ranks or scores."""
    own = [value for key, value in pairs if key.casefold() in ID_WORDS and isinstance(value, str)]
    if own:
        return [f"ID{value}" if value in ids.exact else value for value in own]
    beside = NO_ID_WORDS | _COMMENTS
    kept = [(key, value) for key, value in pairs if not (isinstance(value, str) and key.casefold() in beside)]
    if kept and all(isinstance(value, str) for _, value in kept):
        ranks = [value for _, value in kept] == [str(rank) for rank in range(1, len(kept) + 1)]
        named = [sum(bool(ids.find(pair[side])[0]) for pair in kept) for side in (0, 1)]
        if named[0] and (ranks or named[0] > named[1]):
            return [key for key, _ in kept]
    return [value for _, value in kept]


def _text_mentions(text: str, ids: Ids, titles: Titles | None) -> list[Mention]:
    """The items that one JSON string names."""
    inner = _MARKED.fullmatch(text.strip())
    for name in (text.strip(), inner[1].strip() if inner else ""):
        tokens, how = ids.find(name)
        if tokens:
            return [Mention(0, 0, tokens, how=how)]
    tokens = titles.find(text) if titles else ()
    if tokens:
        return [Mention(0, 0, tokens, how="title")]
    found = [m for m in id_mentions(text, ids, Lists(text)) if m.marked or (m.element and (m.inside >= 0 or m.start <= 1))]
    return found if _names(found) else []


def _ranking(mentions: Iterable[Mention], top_n: int) -> ParsedRanking:
    ranked: dict[str, None] = {}
    repairs: Counter[str] = Counter()
    for mention in mentions:
        token = next((token for token in mention.tokens if token not in ranked), None)
        if token is not None:
            ranked[token] = None
        what = mention.how if token is not None or mention.how == "truncated" else ("duplicate" if mention.tokens else "unknown")
        if what:
            repairs[what] += 1
    if len(ranked) > top_n:
        repairs["surplus"] = len(ranked) - top_n
    return ParsedRanking(tuple(ranked)[:top_n], dict(repairs))
