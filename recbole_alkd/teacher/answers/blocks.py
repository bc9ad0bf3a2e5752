"""Cuts an LLM's answer into blocks, each of which may be its list: a bracketed list, a run of lines,
a JSON array.

``parse.py`` decides which of them is the ranking.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from recbole_alkd.teacher.answers.json_blocks import ANSWER_KEY, JsonBlock, json_blocks
from recbole_alkd.teacher.answers.mentions import Ids, id_mentions
from recbole_alkd.teacher.answers.places import Lists, Mention
from recbole_alkd.teacher.answers.titles import Titles, title_mentions

MOST = 100_000  # mentions that are looked at; an answer with more has gone round in circles
# how surely a block is a list
PROSE, LINES, MARKED, CLOSED = 1, 2, 3, 4

_ANSWER = re.compile(
    r"(?i)\b(final|answer|ranking|ranked|result|results|output|solution|recommendations?|list|order)\b"
)
_OFFERED = re.compile(
    r"(?i)\b(candidates?|offered|options?|given|inputs?|history|exclud\w+|omit\w+|reject\w+|unlikely|watched|bought|drafts?|initial|"
    r"first thoughts?|not (?:recommended|included|chosen|ranked))\b"
)
_BEST = re.compile(
    r"(?i)\b(rank\w*|order\w*|sort\w*|likel\w*|best|top|final\w*|answer|recommended|result\w*)\b"
)
_RULE = re.compile(r"[\s|:+=*_`~>#-]*")
_LETTER = re.compile(r"[^\W\d_]{2}")
_LABEL = re.compile(r"(?i)\W*[^\W\d][^\n:]{1,60}:[\s*_`\"'\[<(]*(?:id[\s:#_-]*)?")
# what may stand before the first item of a line: bullets, numbers, names of fields
_LINE_START = re.compile(
    r"(?i)[\s>*#|(_•+\-–—\[\]\"'`<{]*(?:\(?#?\d{1,4}(?:st|nd|rd|th)?[.):\]]*)?[\s*_|\"'`<:\-–—]*"
    r"(?:(?:item|movie|film|product|game|rank|no|nr|number|item[_ ]?id|id|top|place|position|option)\b"
    r"[\s:#.\"'=]*(?:\d{1,4}\b)?[\s:#.,|\"'\-–—]*)*"
    r"[<\"'*\s]*(?:id[\s:#_-]*)?"
)


@dataclass(frozen=True)
class Block:
    """Mentions that belong together. ``intro``: the words that announce it.
    ``level``: how surely it is a list."""

    mentions: list[Mention]
    start: int
    level: int
    intro: str = ""

    @property
    def names(self) -> list[str]:
        """The items it names, each once, in their order."""
        return list(dict.fromkeys(mention.tokens[0] for mention in self.mentions if mention.tokens))

    @property
    def is_offered(self) -> bool:
        """Whether its announcement says that it is what was given, or what was left out."""
        return bool(_OFFERED.search(self.intro)) and not _BEST.search(self.intro)

    @property
    def is_answer(self) -> bool:
        """Whether its announcement says that it is the answer. ``Recommendation 2:`` is a number
        of a line."""
        return (
            bool(_ANSWER.search(self.intro)) and not re.search(r"\d\W*\Z", self.intro) and self.level >= LINES
        )


def id_blocks(text: str, ids: Ids, titles: Titles | None, brackets: Lists) -> list[Block]:
    """The blocks of ``text`` that name items by their ids, in order."""
    named: list[Block] = []
    spans: list[tuple[int, int]] = []
    for blocks in json_blocks(text, ids, titles):
        spans.append((blocks[0].start, blocks[0].end))
        named += _of_json(blocks, text, brackets)
    mentions = islice(_outside(id_mentions(text, ids, brackets, titles), spans), MOST)
    named += _grouped((m for m in mentions if m.marked or m.element), text)
    return sorted(named, key=lambda block: block.start)


def title_blocks(text: str, titles: Titles, brackets: Lists) -> list[Block]:
    """The blocks of ``text`` that name items by their titles."""
    return _grouped(islice(title_mentions(text, titles, brackets), MOST), text)


def _outside(mentions: Iterable[Mention], spans: Sequence[tuple[int, int]]) -> Iterator[Mention]:
    index = 0
    for mention in mentions:
        while index < len(spans) and spans[index][1] <= mention.start:
            index += 1
        if index == len(spans) or mention.start < spans[index][0]:
            yield mention


def _of_json(blocks: list[JsonBlock], text: str, brackets: Lists) -> Iterator[Block]:
    answers = (
        [block for block in blocks if block.is_answer]
        or [block for block in blocks if not block.is_offered]
        or blocks
    )
    intro = _intro(text, blocks[0].start)
    for block in answers:
        inside = brackets.at(block.start)
        mentions = [
            Mention(block.start, block.end, m.tokens, m.marked, m.element, m.how, inside, m.cut)
            for m in block.mentions
        ]
        one = len({m.tokens for m in mentions}) < 2
        words = block.key if block.key and (block.is_offered or ANSWER_KEY.search(block.key)) else intro
        yield Block(mentions, block.start, LINES if one else CLOSED, words)


def _grouped(mentions: Iterable[Mention], text: str) -> list[Block]:
    groups: list[list[Mention]] = []
    for mention in _own_of_lines(list(mentions), text):
        if not groups or _is_break(groups[-1], mention, text):
            groups.append([])
        groups[-1].append(mention)
    return [_block(group, text) for group in groups]


def _own_of_lines(mentions: list[Mention], text: str) -> list[Mention]:
    """Without what is only spoken of in lines that each begin with an item:
    ``<ID5>: because <ID318> was seen``."""
    begins, dropped = 0, False
    kept: list[Mention] = []
    line: int | None = None
    closed = False
    for mention in mentions:
        start = text.rfind("\n", max(0, mention.start - 500), mention.start)
        if mention.inside >= 0 or start != line:
            line, closed = start, False
            begins += mention.inside < 0 and bool(
                _LINE_START.fullmatch(text[start + 1 : mention.start][:300])
            )
        elif not closed:
            gap = text[kept[-1].end : mention.start]
            words = [
                word
                for word in re.findall(r"[^\W\d_]{2,}", gap)
                if word.casefold() not in ("id", "and", "then", "or", "item")
            ]
            closed = bool(words) and not re.search(
                r"(?i)[,;|/→\n][\s\"'`*_<(\[]*(?:id[\s:#_-]*|\d{1,4}[.):]\s*)*\Z", gap
            )
        if closed:
            dropped = True
        else:
            kept.append(mention)
    return kept if dropped and begins > 1 else mentions


def _is_break(group: list[Mention], mention: Mention, text: str) -> bool:
    last = group[-1]
    if mention.inside != last.inside:
        return True
    if mention.inside >= 0:
        return False
    gap = text[last.end : mention.start]
    if "\n" not in gap:
        return False
    if mention.restarts or len(gap) > 4000:
        return True
    lines = gap.split("\n")
    if any(not line.strip() or (_LETTER.search(line) and not _RULE.fullmatch(line)) for line in lines[1:-1]):
        return True  # an empty line, or one of prose
    if _LABEL.fullmatch(lines[-1]) and not _LINE_START.fullmatch(lines[-1]):
        return True
    # a line that is a list by itself
    return len(group) > 1 and "\n" not in text[group[-2].start : last.start]


def _block(group: list[Mention], text: str) -> Block:
    first = group[0]
    names = {mention.tokens for mention in group if mention.tokens}
    marked = [mention for mention in group if mention.marked]
    # elements beside marked items are numbers in their titles, unless they are many more
    kept = (
        group
        if len(names) > 2 * len({m.tokens for m in marked if m.tokens}) or first.how == "title"
        else marked
    )
    if first.inside >= 0:
        start = text.rfind("[", 0, first.start + 1)
        return Block(
            group if marked and _mixed(group) else kept,
            first.start,
            CLOSED if len(names) > 1 else LINES,
            _intro(text, max(start, 0)),
        )
    line = text.rfind("\n", max(0, first.start - 300), first.start) + 1 or max(0, first.start - 300)
    before = text[line : first.start]
    announced = (
        before.rstrip(" \t\"'`*_<([").removesuffix("ID").rstrip(" \t\"'`*_<([").endswith((":", "=", "："))
    )
    listed = bool(_LINE_START.fullmatch(before)) or announced
    level = PROSE if not listed else MARKED if marked and kept is marked else LINES
    return Block(kept, first.start, level, _intro(text, first.start))


def _mixed(group: list[Mention]) -> bool:
    """Whether marks are left out here and there in one list, as in ``[<ID12>, 13, <ID14>]``."""
    return all(mention.marked or mention.element for mention in group) and sum(
        mention.marked for mention in group
    ) * 2 >= len(group)


def _intro(text: str, start: int) -> str:
    """The words right before a block: of its own line, or else the last line before it that is not empty."""
    before = text[max(0, start - 300) : start]
    line = before.rpartition("\n")[2]
    if not _LETTER.search(_LINE_START.sub("", line, count=1)):
        line = before[: len(before) - len(line)].rstrip().rpartition("\n")[2]
        if (
            not line.rstrip("*_#` ").endswith((":", "："))
            and not line.lstrip().startswith(("#", "**"))
            and len(line.split()) > 6
        ):
            return ""
    # of several sentences or lists in a line, the last
    return re.split(r"[.!?;\]})]\s", line.rstrip())[-1][-120:]
