"""What an LLM is shown: prompts from YAML files, filled with the titles of a session and of its candidates.

Prompts are data (``properties/prompt/*.yaml``), so that a user can write one for a catalogue of their own.
The ranking prompt follows the paper's Module 1 in what it holds (role, hints, session, candidates,
what to answer); its words are ours.
"""

from __future__ import annotations

import fnmatch
import hashlib
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from recbole_alkd.files import properties
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.field import FILLED, NO_DEFAULT, Field
from recbole_alkd.settings.groups import TeacherSettings
from recbole_alkd.settings.nearest import hint
from recbole_alkd.settings.text import read_yaml_file
from recbole_alkd.teacher.records import Instance

# every text of a prompt file, with the slots that it must have
SLOTS: dict[str, frozenset[str]] = {
    "title": frozenset(),
    "index.options": frozenset(),
    "index.ask": frozenset(),
    "generate.system": frozenset(),
    "generate.hints": frozenset({"hints"}),
    "generate.user": frozenset({"hints", "history", "candidates", "top_n"}),
    "generate.again": frozenset({"top_n"}),
    "hints.system": frozenset(),
    "hints.case": frozenset({"number", "history", "candidates"}),
    "hints.user": frozenset({"cases"}),
}


# what stands under ``items`` in a prompt file: the same texts for ``alkd_unit: item``;
# those of ``neutral`` where a file has none
ITEM_SLOTS = {
    f"items.{key}": SLOTS[key]
    for key in ("title", "index.options", "index.ask", "generate.system", "generate.user")
}

_TEXT = Field(NO_DEFAULT, str, check=FILLED)


@dataclass(frozen=True)
class Prompt:
    """The texts of one prompt file, by their path in it, such as ``generate.user``.

    Attributes:
        texts: of questions about sessions. items: those that are others where the question is about an item.
    """

    name: str
    datasets: tuple[str, ...]
    texts: Mapping[str, str]
    items: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, key: str) -> str:
        return self.texts[key]

    def about_items(self, neutral: Prompt) -> Prompt:
        """The prompt of questions about items; ``neutral`` has the words that this one lacks."""
        return replace(self, texts={**self.texts, **neutral.items, **self.items})


@dataclass(frozen=True)
class RankingRequest:
    """A chat that asks for a ranking. ``shown``: (token, title) of the candidates in the order in which they
    are shown."""

    messages: tuple[dict[str, str], ...]
    shown: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        """All that is asked, as one text."""
        return "\n\n".join(message["content"] for message in self.messages)


def load_prompt(name: str | None, dataset: str, unit: str = "session") -> Prompt:
    """The prompt called ``name``, or in the YAML file ``name``; with None the first that lists ``dataset``,
    else ``neutral``.

    Args:
        unit: what is asked about (``alkd_unit``).

    Raises:
        AlkdError: no such prompt; a file that is not readable; a missing or unknown key; a wrong slot.
    """
    shipped = {file.stem: file for file in sorted((properties() / "prompt").glob("*.yaml"))}
    if name is None:
        prompts = map(read_prompt, shipped.values())
        fits = (
            p for p in prompts if any(fnmatch.fnmatchcase(dataset.lower(), pattern) for pattern in p.datasets)
        )
        prompt = next(fits, None) or read_prompt(shipped["neutral"])
    elif name in shipped:
        prompt = read_prompt(shipped[name])
    elif Path(name).is_file():
        prompt = read_prompt(Path(name))
    else:
        known = f"{hint(name, shipped)}; allowed: {' | '.join(shipped)} or a YAML file"
        raise AlkdError(f"llm_prompt: {name!r} is neither a prompt nor a file{known}")
    return prompt if unit == "session" else prompt.about_items(read_prompt(shipped["neutral"]))


def read_prompt(file: Path) -> Prompt:
    """Read and check one prompt file."""
    content = read_yaml_file(file, f"prompt file {file}")
    if not isinstance(content, dict):
        raise AlkdError(f"prompt file {file}: a mapping is expected, found {type(content).__name__}")
    datasets = content.pop("datasets", [])
    if not isinstance(datasets, list) or not all(isinstance(pattern, str) for pattern in datasets):
        raise AlkdError(
            f"prompt file {file}: datasets: {datasets!r} is not allowed; allowed: a list of name patterns"
        )
    texts = dict(_flatten(content))
    for key in texts.keys() - SLOTS.keys() - ITEM_SLOTS.keys():
        raise AlkdError(
            f"prompt file {file}: unknown key {key!r}; allowed: datasets, {', '.join([*SLOTS, *ITEM_SLOTS])}"
        )
    for key, slots in SLOTS.items():
        if key not in texts:
            raise AlkdError(f"prompt file {file}: the key {key!r} is missing")
        _check_text(file, key, texts[key], slots)
    items = {key: texts.pop(key) for key in ITEM_SLOTS if key in texts}
    for key, text in items.items():
        _check_text(file, key, text, ITEM_SLOTS[key])
    items = {key.removeprefix("items."): text for key, text in items.items()}
    return Prompt(file.stem, tuple(pattern.lower() for pattern in datasets), texts, items)


def _flatten(content: Mapping[Any, Any], before: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _check_text(file: Path, key: str, text: Any, slots: frozenset[str]) -> None:
    _TEXT.checked(f"prompt file {file}: {key}", text)
    if not slots:
        return
    try:
        slots_there = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise AlkdError(f"prompt file {file}: {key}: {error} (write {{{{ for a brace of your own)") from None
    if slots_there != slots:
        wanted = ", ".join(f"{{{slot}}}" for slot in sorted(slots))
        raise AlkdError(
            f"prompt file {file}: {key}: slots {sorted(slots_there)} are there; "
            f"needed, each at least once and no other: {wanted}"
        )


def shown_order(instance: Instance, seed: int) -> tuple[str, ...]:
    """The candidates in the order in which an LLM is shown them: shuffled by ``seed`` and the session.

    It depends on which candidates there are and not on how they are ranked, so that neither the teacher
    recommender's order nor the place of an inserted target can be read from it.
    """

    def place(token: str) -> bytes:
        return hashlib.sha256(
            "\x1f".join((str(seed), instance.session, *instance.history, "\x1e", token)).encode()
        ).digest()

    return tuple(sorted(instance.candidates, key=place))


def session_titles(instance: Instance, titles: Mapping[str, str], history: int) -> list[str]:
    """Titles of the last ``history`` items of the session, oldest first."""
    return [title_of(token, titles) for token in instance.history[-history:]]


def title_of(token: str, titles: Mapping[str, str]) -> str:
    """The title of an item; AlkdError when it has none."""
    try:
        return titles[token]
    except KeyError:
        raise AlkdError(
            f"item {token!r} has no title; the LLM teacher needs a title for every item of the data set"
        ) from None


def title_prefix(prompt: Prompt, history: Sequence[str]) -> str:
    """What stands before a candidate's title when its likelihood is taken: the head, then one
    title a line."""
    return "".join(line + "\n" for line in (prompt["title"], *history))


def ranking_request(
    prompt: Prompt, instance: Instance, titles: Mapping[str, str], settings: TeacherSettings, hints: str = ""
) -> RankingRequest:
    """The chat that asks an instruction-following LLM to rank the candidates of ``instance``.

    Items are shown as ``<ID318> title``; the id is the item's token, and only ids decide (titles repeat).
    ``hints`` are numbered lines, or empty.
    """
    history = instance.history[-settings.llm_history :]
    shown = [(token, title_of(token, titles)) for token in shown_order(instance, settings.llm_seed)]
    user = prompt["generate.user"].format(
        hints=prompt["generate.hints"].format(hints=hints.strip()) if hints.strip() else "",
        history="\n".join(f"<ID{token}> {title_of(token, titles)}" for token in history),
        candidates="\n".join(f"<ID{token}> {title}" for token, title in shown),
        top_n=min(settings.llm_top_n, len(shown)),
    )
    messages = (
        {"role": "system", "content": prompt["generate.system"].strip()},
        {"role": "user", "content": user.strip()},
    )
    return RankingRequest(messages, tuple(shown))
