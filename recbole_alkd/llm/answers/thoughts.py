"""Leaves out what a model thinks before it answers, whatever the model calls it.

Tags in angles, pipes or brackets (``<think>``, ``<seed:think>``, ``<scratchpad>``, ``<|START_THINKING|>``,
``[THINK]``), closed or not; channels as gpt-oss writes them (``<|channel|>analysis ... <|channel|>final``),
also where their special tokens were dropped (``analysis...assistantfinal...``); any other tag that wraps the
beginning of an answer, or all of it where that is more than a list.
"""

from __future__ import annotations

import bisect
import json
import re
from collections import Counter
from collections.abc import Callable

_WORDS = (
    r"think\w*|thought\w*|reason\w*|reflect\w*|scratch\w*|analy[sz]\w*|monolog\w*|inner\w*|internal\w*|cot|chain\w*|plan|planning|"
    r"draft\w*|deliberat\w*|ponder\w*|brainstorm\w*|rationale|explanation|consider\w*|musing\w*|critique|workings?|antthinking|"
    r"process|steps?|notes?|review|self\w*|understand\w*|comments?"
)
_TAG = re.compile(
    r"<\|?[ "
    rf"]*(?P<close>/|end_(?:of_)?)?(?:start_|begin_(?:of_)?)?(?P<name>(?:\w+[:.-])?(?:{_WORDS})(?:[_-]\w+)*)\b"
    r"[^<>\n]{0,80}>|"
    r"[\[◁](?P<close2>/)?(?P<name2>think(?:ing)?|thoughts?|reasoning)[\]▷]",
    re.IGNORECASE,
)
_CHANNEL = re.compile(
    r"<\|(channel|start|end|return|call|message|constrain)\|?>|<(channel|turn)\|>", re.IGNORECASE
)
_LEAKED = re.compile(r"\A\s*(?:analysis|commentary)(?=[A-Z<\[\"'])")
_FIRST_TAG = re.compile(r"\s*<([A-Za-z][\w:.-]{3,40})>")
_ANSWER_TAG = re.compile(
    r"<(/)?((?:final[_-]?)?(?:answer|rank(?:ing)?|results?|output|response|list|solution|recommendations?))>",
    re.IGNORECASE,
)
# what a list begins with, and five words in lower case, which no title is likely to hold
_LIST_START = re.compile(r"[\[{<`\"'|]|\d{1,4}[.):]?(?=[\s,;])|[-*•]\s", re.IGNORECASE)
_SENTENCE = re.compile(r"(?:(?<![^\W_])[^\W\d_A-Z]+(?:'[a-z]+)?,?\s+){4}[^\W\d_A-Z]+")
# tags that wrap an answer, or a part of one
_ANSWER = re.compile(
    r"(?i)id|answer|final|rank|result|output|response|list|solution|recommend|item|movie|film|product|game|top|json|"
    r"html|body|table|span|strong|code|details|summary|data|root|xml|article|section"
)


def without_thoughts(text: str, is_id: Callable[[str], bool] = lambda name: False) -> str:
    """``text`` without the model's thinking.

    Args:
        is_id: whether a name in angles is an item's id, and no tag.
    """
    # as Gemma's thinking models mark it
    text = text.replace("<unused94>", "<think>").replace("<unused95>", "</think>")
    return _on_lines_of_their_own(_without_wrapper(_without_tags(_without_channels(text)), is_id), is_id)


def _on_lines_of_their_own(text: str, is_id: Callable[[str], bool]) -> str:
    """What stands in the tags of an answer begins and ends a line: ``<answer>1. ...``."""

    def apart(tag: re.Match[str]) -> str:
        if is_id(tag[2]):
            return tag[0]
        return f"\n{tag[0]}" if tag[1] else f"{tag[0]}\n"

    return _ANSWER_TAG.sub(apart, text)


def _without_channels(text: str) -> str:
    if _LEAKED.match(text):
        return text.rpartition("assistantfinal")[2] if "assistantfinal" in text else ""
    if "channel" not in text:
        return text
    parts: list[str] = []
    keep, place, in_channel = True, 0, False
    for token in _CHANNEL.finditer(text):
        between = text[place : token.start()]
        kind = (token[1] or f"/{token[2]}").lower()
        if in_channel:
            name = between.split(maxsplit=1)
            keep = bool(name) and name[0].lower().startswith(("final", "answer", "response"))
            in_channel = False
            # without a marker between the channel's name and its text
            between = name[1] if kind != "message" and keep and len(name) > 1 else ""
        if keep and between:
            parts.append(between)
        place = token.end()
        in_channel = kind == "channel"
        if kind == "start":
            keep = False  # a role follows
        elif kind in ("/channel", "/turn", "end"):
            keep = True
    rest = text[place:]
    if in_channel:
        name = rest.split(maxsplit=1)
        keep = bool(name) and name[0].lower().startswith(("final", "answer", "response"))
        rest = name[1] if keep and len(name) > 1 else ""
    if keep:
        parts.append(rest)
    return " ".join(parts)


def _without_tags(text: str) -> str:
    tags = [
        (tag, (tag["name"] or tag["name2"]).lower(), bool(tag["close"] or tag["close2"]))
        for tag in _TAG.finditer(text)
    ]
    closing: dict[str, list[int]] = {}
    for tag, name, closes in tags:
        if closes:
            closing.setdefault(name, []).append(tag.start())
    parts: list[str] = []
    nested: Counter[str] = Counter()
    start, until, thinking = 0, -1, False
    for tag, name, closes in tags:
        if tag.start() < until:
            continue
        if closes and nested[name]:
            nested[name] -= 1
        elif closes:
            if not thinking:
                parts.clear()  # the opening tag stood in the prompt
            start, thinking = tag.end(), False
        elif thinking:
            nested[name] += 1
        else:
            parts.append(text[start : tag.start()])
            thinking = True
            nested.clear()
            ends = closing.get(name, [])
            index = bisect.bisect_left(ends, tag.end())
            until = ends[index] if index < len(ends) else -1  # what is nested in it ends with it
    if not thinking:
        parts.append(text[start:])
    return " ".join(parts)


def _without_wrapper(text: str, is_id: Callable[[str], bool]) -> str:
    """Without a tag of any other name that opens the text, unless it wraps all of it and holds nothing but a
    list.

    What a model thinks is no answer, whatever its tag: one around sentences alone is not taken for the
    answer's either.
    """
    first = _FIRST_TAG.match(text)
    if not first or _ANSWER.search(first[1]) or is_id(first[1]):
        return text
    end = text.find(f"</{first[1]}>", first.end())
    if end < 0:
        return ""
    rest = text[end + len(first[1]) + 3 :]
    if rest.strip():
        return rest
    inner = text[first.end() : end]
    return inner if _is_bare_list(inner, is_id) else ""


def _is_bare_list(text: str, is_id: Callable[[str], bool]) -> bool:
    """Whether a text is JSON, or begins with a list and holds no sentence."""
    text = text.strip()
    try:
        return isinstance(json.loads(text), (list, dict))
    except (ValueError, RecursionError):
        pass
    word = text.split(maxsplit=1)[0].rstrip(",;:.") if text else ""
    return bool(_LIST_START.match(text) or is_id(word)) and not _SENTENCE.search(text)
