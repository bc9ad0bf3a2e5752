"""Hints (paper, Module 1): the LLM sums up, in a few numbered rules, how recommendations follow from behaviour.

The LLM is shown cases, training sessions with what the teacher recommender puts first for them, and its rules then stand
in every ranking prompt. They are made once, kept in the label store, and reused: labels are known by the hints' key,
which is a hash of everything that decides them, not by their text.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence

from recbole_alkd.labels.claims import Claims
from recbole_alkd.labels.hints import Hints, get_hints
from recbole_alkd.labels.side import store_hints
from recbole_alkd.labels.store import LabelStore
from recbole_alkd.llm.answers.thoughts import without_thoughts
from recbole_alkd.llm.messages import sendable
from recbole_alkd.teacher.base import Answer, Instance, LLMTeacher, TeacherContext
from recbole_alkd.teacher.prompt import Prompt, title_of

logger = logging.getLogger(__name__)

MAX_HINTS = 10
MAX_HINT = 300  # characters
Ask = Callable[[Sequence[Mapping[str, str]]], Answer]  # ``raw`` of the answer is what the LLM said

_NUMBER = re.compile(r"^\s*(?:[*_#>]+\s*)?(?:\(?\d{1,2}[.):]|[-*•])[*_]*\s+(?=\S)")


def hint_key(context: TeacherContext, prompt: Prompt, asked: str) -> str:
    """The key of the hints that ``asked``, a name of LLM and settings, gives; "none" without hints."""
    if not context.settings.teacher.llm_hints or context.hint_cases is None:
        return "none"
    parts = [asked, context.hint_key, str(context.settings.teacher.llm_seed)]
    parts += [prompt[key] for key in ("hints.system", "hints.case", "hints.user")]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def find_hints(teacher: LLMTeacher, prompt: Prompt, key: str, ask: Ask) -> str:
    """The hints called ``key`` as numbered lines, "" when it is "none"; asked for with ``ask`` when the store has none yet.

    Of several processes that want the same hints one asks, and the others wait for it. What the request took becomes
    ``teacher.preparation``.
    """
    context, store = teacher.context, teacher.store
    if key == "none" or context.hint_cases is None:
        return ""
    if store is None:
        raise ValueError("hints are kept in a label store: set the teacher's `store` first")
    kept = get_hints(store, key) or _ask_once(teacher, store, prompt, key, ask)
    lines = "\n".join(f"{number}. {hint}" for number, hint in enumerate(map(sendable, kept.rules), start=1))
    logger.info("hints of the LLM (%s in %s):\n%s", key, store.path, lines or "(none)")
    return lines


def missing_request(teacher: LLMTeacher, prompt: Prompt, key: str, store: LabelStore | None) -> list[dict[str, str]]:
    """The chat that ``find_hints`` would ask, [] when it would ask nothing."""
    context = teacher.context
    if key == "none" or context.hint_cases is None or (store and get_hints(store, key)):
        return []
    return hint_messages(prompt, context.hint_cases(), context.titles)


def _ask_once(teacher: LLMTeacher, store: LabelStore, prompt: Prompt, key: str, ask: Ask) -> Hints:
    context, claim, waiting = teacher.context, f"hints {key}", False
    assert context.hint_cases is not None
    with Claims(store) as claims:
        while not claims.take([claim], 1):
            if not waiting:
                logger.info("another process is asking for these hints: waiting for it")
            waiting = True
            time.sleep(0.2)
        if kept := get_hints(store, key):  # another process has stored them in the meantime
            return kept
        began = time.monotonic()
        answer = ask(hint_messages(prompt, context.hint_cases(), context.titles))
        teacher.preparation = answer
        hints = Hints(
            key=key,
            rules=_rules(answer.raw),
            raw=answer.raw,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            seconds=time.monotonic() - began,
            usd=answer.usd,
            teacher=teacher.identity,
            time=time.time(),
        )
        store_hints(store, hints)
    if not hints.rules:
        logger.warning("the LLM gave no hints that can be used; its prompts have none")
    return hints


def hint_messages(prompt: Prompt, cases: Sequence[Instance], titles: Mapping[str, str]) -> list[dict[str, str]]:
    """The chat that asks for hints."""

    def lines(items: Sequence[str]) -> str:
        return "\n".join(f"- {title_of(item, titles)}" for item in items)

    shown = [
        prompt["hints.case"].format(number=number, history=lines(case.history), candidates=lines(case.candidates)).strip()
        for number, case in enumerate(cases, start=1)
    ]
    user = prompt["hints.user"].format(cases="\n\n".join(shown) + "\n")
    return [{"role": "system", "content": prompt["hints.system"].strip()}, {"role": "user", "content": user.strip()}]


def _rules(text: str) -> tuple[str, ...]:
    """``parse_hints`` of an answer that was paid for: should it fail, there are no hints, and the log says why."""
    try:
        return parse_hints(text)
    except Exception as error:
        logger.warning("the hints could not be read (%s: %s); they are kept as they came", type(error).__name__, error)
        return ()


def parse_hints(text: str) -> tuple[str, ...]:
    """The numbered (or bulleted) points of ``text``, each on one line; what stands before the first is left out."""
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
    cleaned = (" ".join(hint.replace("**", "").replace("<", "(").replace(">", ")").split())[:MAX_HINT] for hint in hints)
    return tuple(dict.fromkeys(hint for hint in cleaned if hint))[:MAX_HINTS]
