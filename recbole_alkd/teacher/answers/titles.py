"""Finds every place in an LLM's answer that names a candidate by its title, for answers that name no ids."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence

from recbole_alkd.teacher.answers.places import Lists, Mention, normal

_TITLE_WORDS = 40
_WORD = re.compile(r"\w+")
_BEFORE_TITLE = re.compile(r"[\s>\])\"'`*_:|(–—=.-]+")
_YEAR = re.compile(r"\s*\(\d{4}\)\s*$")
_ARTICLE = re.compile(r"^(.*), (the|a|an|le|la|les|il|das|der|die|el|los)$", re.DOTALL)


class Titles:
    """The candidates by the words of their titles. ``Matrix, The (1999)`` is also found as ``The Matrix``."""

    def __init__(self, titles: Mapping[str, str], candidates: Sequence[str]) -> None:
        self._titles, self._candidates = titles, candidates
        self._own: dict[str, str] = {}

    @functools.cached_property
    def by_words(self) -> dict[tuple[str, ...], list[str]]:
        """The words of a title -> the candidates that have it. Made when first needed: most
        answers name ids."""
        tokens: dict[tuple[str, ...], list[str]] = {}
        for token in dict.fromkeys(self._candidates):
            for name in _forms(normal(self._titles.get(token, "")[:2000]).casefold()):
                words = tuple(_WORD.findall(name)[:_TITLE_WORDS])
                if words and token not in tokens.setdefault(words, []):
                    tokens[words].append(token)
        return tokens

    @functools.cached_property
    def beginnings(self) -> set[tuple[str, ...]]:
        """The first words of every title, for any number of them."""
        return {words[:length] for words in self.by_words for length in range(1, len(words) + 1)}

    @functools.cached_property
    def first(self) -> re.Pattern[str]:
        """Where a title may start."""
        firsts = "|".join(
            map(re.escape, sorted({words[0] for words in self.by_words}, key=len, reverse=True))
        )
        return re.compile(rf"\b(?:{firsts})\b", re.IGNORECASE) if firsts else re.compile(r"(?!)")

    def end_behind(self, token: str, text: str, place: int) -> int:
        """Where the title of ``token`` ends if it stands behind ``place``, else 0."""
        title = self._own.get(token)
        if title is None:
            title = self._own[token] = normal(self._titles.get(token, "")[:2000]).strip().casefold()
        start = _BEFORE_TITLE.match(text, place, place + 16)
        begin = start.end() if start else place
        end = begin + len(title)
        return end if title and text[begin:end].casefold() == title else 0

    def stands_before(self, token: str, text: str, place: int) -> bool:
        """Whether the title of ``token`` ends at ``place``, but for spaces and marks."""
        title = normal(self._titles.get(token, "")[:2000]).strip().casefold()
        before = text[max(0, place - len(title) - 16) : place].rstrip(" \t\"'`*_:|(\u2013\u2014-").casefold()
        return bool(title) and before.endswith(title)

    def find(self, text: str) -> tuple[str, ...]:
        """The tokens whose title is ``text``."""
        return tuple(self.by_words.get(tuple(_WORD.findall(text[:2000].casefold())[:_TITLE_WORDS]), ()))


def _forms(title: str) -> list[str]:
    bare = _YEAR.sub("", title)
    article = _ARTICLE.match(bare)
    moved = f"{article[2]} {article[1]}" if article else bare
    return [title, bare, moved, moved + title[len(bare) :]]


def title_mentions(text: str, titles: Titles, brackets: Lists) -> Iterator[Mention]:
    """Every place in a normalised ``text`` where a title stands, the longest where several start."""
    behind = 0
    for first in titles.first.finditer(text):
        start = first.start()
        if start < behind:
            continue
        words: tuple[str, ...] = ()
        tokens: list[str] = []
        for word in _WORD.finditer(text, start):
            words += (word.group().casefold(),)
            if words not in titles.beginnings:
                break
            if words in titles.by_words:
                behind, tokens = word.end(), titles.by_words[words]
        if tokens:
            yield Mention(start, behind, tuple(tokens), how="title", inside=brackets.at(start))
