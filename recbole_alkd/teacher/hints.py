"""Hints (paper, Module 1): the LLM sums up, in a few numbered rules, how recommendations follow from
behaviour.

The LLM is shown cases, training sessions with what the teacher recommender puts first for them, and its rules
then stand in every ranking prompt. They are made once, kept in the label store, and reused
(``labelling.hints``): labels are known by the hints' key, which is a hash of everything that decides them,
not by their text.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence

from recbole_alkd.llm.answers.thoughts import without_thoughts
from recbole_alkd.llm.messages import sendable
from recbole_alkd.teacher.prompt import Prompt, title_of
from recbole_alkd.teacher.records import Instance, TeacherContext

logger = logging.getLogger(__name__)

MAX_HINTS = 10
MAX_HINT = 300  # characters

_NUMBER = re.compile(r"^\s*(?:[*_#>]+\s*)?(?:\(?\d{1,2}[.):]|[-*•])[*_]*\s+(?=\S)")


def hint_key(context: TeacherContext, prompt: Prompt, asked: str) -> str:
    """The key of the hints that ``asked``, a name of LLM and settings, gives; "none" without hints."""
    if not context.settings.teacher.llm_hints or not context.hint_key:
        return "none"
    parts = [asked, context.hint_key, str(context.settings.teacher.llm_seed)]
    parts += [prompt[key] for key in ("hints.system", "hints.case", "hints.user")]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def as_lines(rules: Sequence[str]) -> str:
    """Hints as they stand in a prompt: numbered lines, "" without any."""
    return "\n".join(f"{number}. {hint}" for number, hint in enumerate(map(sendable, rules), start=1))


def needed(hint_key: str, rules: Sequence[str] | None) -> str:
    """``as_lines`` of the hints that a teacher was given; ValueError where it has a key of hints and was
    given none."""
    if hint_key == "none":
        return ""
    if rules is None:
        raise ValueError(
            "hints are asked for before the first ranking: give them to `prepare` (Materials.hints)"
        )
    lines = as_lines(rules)
    logger.info("hints of the LLM (%s in the label store):\n%s", hint_key, lines or "(none)")
    return lines


def hint_messages(
    prompt: Prompt, cases: Sequence[Instance], titles: Mapping[str, str]
) -> list[dict[str, str]]:
    """The chat that asks for hints."""

    def lines(items: Sequence[str]) -> str:
        return "\n".join(f"- {title_of(item, titles)}" for item in items)

    shown = [
        prompt["hints.case"]
        .format(number=number, history=lines(case.history), candidates=lines(case.candidates))
        .strip()
        for number, case in enumerate(cases, start=1)
    ]
    user = prompt["hints.user"].format(cases="\n\n".join(shown) + "\n")
    return [
        {"role": "system", "content": prompt["hints.system"].strip()},
        {"role": "user", "content": user.strip()},
    ]


def read_rules(text: str) -> tuple[str, ...]:
    """``parse_hints`` of an answer that was paid for: should it fail, there are no hints,
    and the log says why."""
    try:
        return parse_hints(text)
    except Exception as error:
        logger.warning(
            "the hints could not be read (%s: %s); they are kept as they came", type(error).__name__, error
        )
        return ()


def parse_hints(text: str) -> tuple[str, ...]:
    """The numbered (or bulleted) points of ``text``, each on one line;
    what stands before the first is left out."""
    text = without_thoughts(sendable(text))
    hints: list[str] = []
    open_point = False
    for line in text.splitlines():
        start = _NUMBER.match(line)
        if start:
            hints.append(line[start.end() :])
            open_point = True
        elif not line.strip():
            open_point = False
        elif open_point:
            hints[-1] += " " + line
    cleaned = (
        " ".join(hint.replace("**", "").replace("<", "(").replace(">", ")").split())[:MAX_HINT]
        for hint in hints
    )
    return tuple(dict.fromkeys(hint for hint in cleaned if hint))[:MAX_HINTS]
