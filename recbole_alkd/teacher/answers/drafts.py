"""Lists that an answer gives more than once: drafts that it takes back, and echoes of what it was shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from recbole_alkd.teacher.answers.blocks import CLOSED, LINES, PROSE, Block
from recbole_alkd.teacher.answers.places import Mention

# this many candidates in the order in which they were shown are no ranking, even if more were shown
_LAZY = 10


def folded_lists(blocks: Sequence[Block], shown: tuple[str, ...], top_n: int) -> list[Mention]:
    chosen: list[Mention] = []
    names: set[str] = set()
    level, changed = 0, False
    for whole in blocks:
        block = without_echo(whole, shown)
        new = set(block.names)
        if not new:
            if chosen and block.level >= level and block.mentions:
                chosen += block.mentions  # ids that were not offered, at the end of a list
            continue
        # the candidates, one by one
        if changed and len(names) == len(shown) >= 3 and _order(chosen) == shown:
            chosen, names, level = [], set(), 0
        changed = False
        if not chosen or _replaces(block, new, names, level, top_n):
            chosen, names, level, changed = list(block.mentions), new, block.level, True
        elif _goes_on(block, level) and (level < CLOSED or not new & names):
            chosen += block.mentions
            names, changed = names | new, not new <= names
    return cut_echo(chosen, shown)


def _goes_on(block: Block, level: int) -> bool:
    """Whether ``block`` is as much a list as what stood before it;
    one item in brackets goes with other brackets."""
    return block.level == level or (level == CLOSED and block.mentions[0].inside >= 0)


def _replaces(block: Block, new: set[str], names: set[str], level: int, top_n: int) -> bool:
    """Whether ``block`` is the list, and not what stood before it."""
    kept = min(len(names), top_n)
    common = len(new & names)
    if block.is_answer and (len(new) > 1 or kept == 1) and block.level >= min(level, LINES):
        return True
    if block.level > level:
        return 2 * len(new) >= kept
    if block.level < level:
        return len(new) > 2 * len(names) or (block.level > PROSE and bool(common) and len(new) >= kept)
    if level == PROSE or not common or 2 * len(new) < kept:
        return False
    return level == CLOSED or (len(new) > 1 and 2 * common >= len(new))


def _order(mentions: Iterable[Mention]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(mention.tokens[0] for mention in mentions if mention.tokens))


def without_echo(block: Block, shown: tuple[str, ...]) -> Block:
    return replace(block, mentions=cut_echo(block.mentions, shown))


def cut_echo(mentions: list[Mention], shown: tuple[str, ...]) -> list[Mention]:
    """``mentions`` without the candidates in shown order at their beginning, once or several times."""
    end, seen = 0, set[str]()
    for place, mention in enumerate(mentions if len(shown) >= 3 else []):
        token = mention.tokens[0] if mention.tokens else None
        if token is None or token in seen:
            continue
        if token != shown[len(seen)]:
            break
        seen.add(token)
        if len(seen) == len(shown):
            end = place + 1
            seen.clear()
    rest = mentions[end:]
    order = _order(rest)
    return [] if _LAZY <= len(order) < len(shown) and order == shown[: len(order)] else rest
