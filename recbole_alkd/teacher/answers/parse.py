"""Reads a ranking out of whatever an LLM answered.

The prompt asks for ``[<ID..>,<ID..>,...]``; answers also come as JSON, as numbered lines, in prose, with
titles instead of ids, cut off in the middle, or with items that were never offered. Ids decide; titles are
only used where an answer names no ids. Nothing here knows the true next item.
The time is linear in the length of the answer.

Of several lists the last one counts. What the model thinks is no list, nor are the candidates in the order in
which they were shown, nor numbers in prose.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise

from recbole_alkd.llm.answers.thoughts import without_thoughts
from recbole_alkd.teacher.answers.blocks import MOST, PROSE, Block, id_blocks, title_blocks
from recbole_alkd.teacher.answers.drafts import _order, cut_echo, folded_lists
from recbole_alkd.teacher.answers.mentions import LONG_ID, Ids, id_mentions
from recbole_alkd.teacher.answers.places import Lists, Mention, normal
from recbole_alkd.teacher.answers.rows import in_order
from recbole_alkd.teacher.answers.titles import Titles

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ParsedRanking:
    """A ranking and what had to be repaired to get it.

    Attributes:
        items: distinct candidate tokens, best first.
        repairs: how often, by kind: "duplicate" (an item named again), "unknown" (an id that was not
            offered), "case" (an id in other upper and lower case), "title" (an item named by its title),
            "surplus" (items beyond ``top_n``), "truncated" (the list never ends). Empty for a clean answer.
    """

    items: tuple[str, ...]
    repairs: dict[str, int]


def parse_ranking(
    text: str,
    candidates: Sequence[str],
    top_n: int,
    titles: Mapping[str, str] | None = None,
    *,
    cut: bool = False,
) -> ParsedRanking:
    """The ranking in ``text``.

    Args:
        text: the answer.
        candidates: the item tokens that were offered, in the order in which they were shown; any text,
            numbers or not. An answer that only repeats them (three or more) in this order is none.
        top_n: how many items to keep at most.
        titles: token -> title, for answers that name titles. Of items with the same title, the first
            candidate that is not ranked yet is taken.
        cut: whether the answer is known to have been cut off at its end.

    Returns:
        Distinct candidates, at most ``top_n``; none when the answer names none.
    """
    ids, shown = Ids(candidates), tuple(dict.fromkeys(candidates))
    answer = in_order(without_thoughts(normal(text), lambda name: bool(ids.find(name)[0])), ids)
    by_title = Titles(titles, candidates) if titles else None
    brackets = Lists(answer)
    blocks = [_without_prose_numbers(block, answer) for block in id_blocks(answer, ids, by_title, brackets)]
    chosen = _last_list(blocks, shown, top_n)
    if by_title and 2 * len(_names(chosen)) < top_n:  # else titles cannot name more than twice as many
        named = _last_list(title_blocks(answer, by_title, brackets), shown, top_n)
        if min(top_n, len(_names(named))) > 2 * len(_names(chosen)):
            chosen = named
    if top_n > 2 and _is_numbering(chosen, answer, by_title):
        chosen = []
    chosen = chosen or _in_prose(answer, ids, brackets, shown)
    return _ranking(_without_cut(chosen, answer, brackets, ids, cut), top_n)


def read_ranking(
    text: str,
    candidates: Sequence[str],
    top_n: int,
    titles: Mapping[str, str] | None = None,
    *,
    cut: bool = False,
) -> ParsedRanking:
    """``parse_ranking`` of an answer that was paid for: should it fail, the answer has no ranking,
    and the log says why."""
    try:
        return parse_ranking(text, candidates, top_n, titles, cut=cut)
    except Exception as error:
        logger.warning(
            "an answer could not be read (%s: %s); it is kept without a ranking", type(error).__name__, error
        )
        return ParsedRanking((), {"unreadable": 1})


_NUMBERED = re.compile(r"^[ \t]*(\d{1,4})[ \t]+\S+[ \t]*$", re.MULTILINE)  # "1 318", line by line

_WORD = re.compile(r"[^\W\d_]{2,}")
_BETWEEN = frozenset(
    ["and", "then", "or", "item", "items", "id", "finally", "lastly", "next", "followed", "by"]
)
_BEHIND_NUMBER = re.compile(r"(?:\d[.):]|[-*•])[ \t]*\Z")
_ANNOUNCES = re.compile(
    r"(?i)ids?|items?|rank\w*|answers?|final|results?|output|is|my|the|list|top|best|ordered|json"
)


def _names(mentions: Iterable[Mention]) -> set[str]:
    return {mention.tokens[0] for mention in mentions if mention.tokens}


def _last_list(blocks: Sequence[Block], shown: tuple[str, ...], top_n: int) -> list[Mention]:
    """The list that is the answer: the last that is as good as those before it. Parts of one list go on."""
    for some in ([block for block in blocks if not block.is_offered], blocks):
        last = folded_lists(some, shown, top_n)
        if last:
            return last
    return []


def _is_short_number(mention: Mention) -> bool:
    """Whether it can be a number of prose as well: a few digits without the mark of an id."""
    name = mention.tokens[0] if mention.tokens and not mention.marked and mention.how != "title" else ""
    return name.isdecimal() and len(name) < LONG_ID


def _without_prose_numbers(block: Block, text: str) -> Block:
    """In a sentence, short numbers are items only where three or more follow each other without other words:
    of ``12 or 7`` and ``3 of the 5`` nothing is left."""
    if block.level != PROSE or not all(
        _is_short_number(mention) or not mention.tokens for mention in block.mentions
    ):
        return block
    if all(text[mention.start - 1 : mention.start] in ("(", "[") for mention in block.mentions):
        return block  # titles with their ids; see _is_numbering
    runs: list[list[Mention]] = []
    for mention in block.mentions:
        gap = text[runs[-1][-1].end : mention.start] if runs else ""
        if not runs or any(word.casefold() not in _BETWEEN for word in _WORD.findall(gap)):
            runs.append([])
        runs[-1].append(mention)
    # <item>5</item>
    kept = [run for run in runs if len(_names(run)) > 2 or text[run[0].start - 1 : run[0].start] == ">"]
    return replace(block, mentions=[mention for run in kept for mention in run])


def _is_numbering(mentions: list[Mention], text: str, titles: Titles | None) -> bool:
    """Whether short numbers count remarks and name nothing: ``(1) I cannot ... (50) no``.

    So it is where each stands in brackets, none has its title beside it, and they are one or two, or count
    from 1 with words between them; or where a text with words begins with one and names no other.
    """
    named = [mention for mention in mentions if mention.tokens]
    if (
        not named
        or not all(map(_is_short_number, named))
        or not _has_words(text[: named[0].start] + text[named[-1].end :])
    ):
        return False
    names = _order(named)
    around = [text[m.start - 1 : m.start] + text[m.end : m.end + 1] for m in named if m.start]
    if len(around) < len(named) or any(pair not in ("()", "[]") for pair in around):
        return len(names) == 1 and not text[: named[0].start].strip()
    if titles and any(_has_title(mention, text, titles) for mention in named):
        return False
    counts = names == tuple(str(place) for place in range(1, len(names) + 1))
    apart = all(_has_words(text[one.end : other.start]) for one, other in pairwise(named))
    listed = any(
        _BEHIND_NUMBER.search(text[max(0, mention.start - 12) : mention.start - 1]) for mention in named
    )
    return (len(names) < 3 and not listed) or (counts and apart)


def _has_title(mention: Mention, text: str, titles: Titles) -> bool:
    token = mention.tokens[0]
    return bool(titles.end_behind(token, text, mention.end)) or titles.stands_before(
        token, text, mention.start
    )


def _has_words(text: str) -> bool:
    return any(not _ANNOUNCES.fullmatch(word) for word in _WORD.findall(text))


def _in_prose(text: str, ids: Ids, brackets: Lists, shown: tuple[str, ...]) -> list[Mention]:
    """Ids in running text, where there is no list: those that cannot be numbers of prose,
    or lines of nothing but ids."""
    mentions = [m for m in islice(id_mentions(text, ids, brackets), MOST) if m.tokens]
    lines = [m for m in mentions if _in_line_of_ids(m, text)]
    numbers = [match.start(1) for match in _NUMBERED.finditer(text)]
    if len(numbers) > 1 and [int(match[1]) for match in _NUMBERED.finditer(text)] == list(
        range(1, len(numbers) + 1)
    ):
        lines = [m for m in lines if m.start not in set(numbers)]
    sure = [m for m in mentions if not m.tokens[0].isdecimal() or _is_named(m, text)]
    long = [m for m in mentions if len(m.tokens[0]) >= LONG_ID]
    chosen = lines if len(_names(lines)) > 1 else sure or (long if len(_names(long)) > 1 else [])
    return cut_echo(chosen, shown)


def _in_line_of_ids(mention: Mention, text: str) -> bool:
    line = text[text.rfind("\n", 0, mention.start) + 1 :][:10_000].partition("\n")[0]
    return len(line) < 10_000 and not any(c.isalpha() for c in line)


_BEFORE = ("item", "items", "movie", "film", "product", "game", "song", "book", "id", "ids", "#")


def _is_named(mention: Mention, text: str) -> bool:
    """Whether a number stands behind the name of what it numbers: ``Item 30``, ``30号``."""
    before = text[max(0, mention.start - 12) : mention.start].rstrip(" \t#:.").casefold()
    return before.endswith(_BEFORE) or text[mention.end : mention.end + 1] in ("号", "號", "番")


def _without_cut(chosen: list[Mention], text: str, brackets: Lists, ids: Ids, cut: bool) -> list[Mention]:
    """Drop the half of an id at the end of an answer that was cut off, and note that it was."""
    if not chosen:
        return chosen
    last = chosen[-1]
    open_list = brackets.unclosed and last.inside == len(brackets.starts) - 1
    if last.cut or (last.end == len(text) and (cut or open_list)):
        name = normal(last.tokens[0]) if last.tokens else ""
        if any(other.startswith(name) and other != name for other in ids.exact):
            return [*chosen[:-1], replace(last, tokens=(), how="truncated")]
    if open_list:
        return [*chosen, replace(last, tokens=(), how="truncated")]
    return chosen


def _ranking(mentions: Iterable[Mention], top_n: int) -> ParsedRanking:
    ranked: dict[str, None] = {}
    repairs: Counter[str] = Counter()
    for mention in mentions:
        token = next((token for token in mention.tokens if token not in ranked), None)
        if token is not None:
            ranked[token] = None
        what = (
            mention.how
            if token is not None or mention.how == "truncated"
            else ("duplicate" if mention.tokens else "unknown")
        )
        if what:
            repairs[what] += 1
    if len(ranked) > top_n:
        repairs["surplus"] = len(ranked) - top_n
    return ParsedRanking(tuple(ranked)[:top_n], dict(repairs))
