"""Hints (paper, Module 1): the LLM sums up, in a few numbered rules, how recommendations follow from behaviour.

The LLM is shown cases, training sessions with what the teacher recommender puts first for them, and its rules then stand
in every ranking prompt. They are made once, kept beside the label store, and reused: labels are known by the hints' key,
which is a hash of everything that decides them, not by their text.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence

from recbole_alkd.config import AlkdError
from recbole_alkd.teacher.base import Instance, TeacherContext
from recbole_alkd.teacher.models import new_folder
from recbole_alkd.teacher.prompt import Prompt, title_of

MAX_HINTS = 10
MAX_HINT = 300  # characters
Chat = Callable[[Sequence[Mapping[str, str]]], str]

_NUMBER = re.compile(r"^\s*(?:[*_#>]+\s*)?(?:\(?\d{1,2}[.):]|[-*•])[*_]*\s+(?=\S)")


def hint_key(context: TeacherContext, prompt: Prompt, asked: str) -> str:
    """The key of the hints that ``asked``, a name of LLM and settings, gives; "none" without hints."""
    if not context.settings.teacher.llm_hints or context.hint_cases is None:
        return "none"
    parts = [asked, context.hint_key, str(context.settings.teacher.llm_seed)]
    parts += [prompt[key] for key in ("hints.system", "hints.case", "hints.user")]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def find_hints(context: TeacherContext, prompt: Prompt, key: str, chat: Chat) -> str:
    """The hints called ``key`` as numbered lines, "" when it is "none"; asked for with ``chat`` when they are not kept yet."""
    if key == "none" or context.hint_cases is None:
        return ""
    log = logging.getLogger(__name__)
    file = context.cache / "hints" / key / "hints.json"
    if not file.parent.is_dir():
        raw = chat(hint_messages(prompt, context.hint_cases(), context.titles))
        hints = parse_hints(raw)
        if not hints:
            log.warning("the LLM gave no hints that can be used; its prompts have none")
        with new_folder(file.parent) as work:  # of several processes the first one counts
            (work / file.name).write_text(json.dumps({"hints": hints, "raw": raw}, ensure_ascii=False, indent=1), encoding="utf-8")
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))["hints"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AlkdError(f"{file.parent}: no readable hints ({error}); delete that folder") from None
    lines = "\n".join(f"{number}. {hint}" for number, hint in enumerate(kept, start=1))
    log.info("hints of the LLM (%s):\n%s", file, lines or "(none)")
    return lines


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


def parse_hints(text: str) -> tuple[str, ...]:
    """The numbered (or bulleted) points of ``text``, each on one line; what stands before the first is left out."""
    text = re.sub(r"(?is)<think>.*?(</think>|\Z)", "", text)
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
