"""One LLM ranking of one instance: what it holds, its key, and the row of the store that it becomes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recbole_alkd.labels.cost import Cost, read_amount, read_count
from recbole_alkd.settings.error import AlkdError

STATUSES = ("ok", "failed")
_LAST_SECOND = 253_402_300_799.0  # of the year 9999: later times are no times


@dataclass(frozen=True)
class Label:
    """One LLM ranking of one instance.

    Attributes:
        key: see ``label_key``.
        ranking: distinct candidate tokens, best first; empty when the answer was unusable.
        candidates: the tokens the LLM chose from, in the order of the instance.
        raw: the answer as it came.
        repairs: what the parser had to repair, and how often.
        prompt_tokens, completion_tokens: as counted by whoever was asked.
        seconds: from request to answer.
        usd: US dollars paid; None where there is no price (a local LLM, a control).
        status: "ok", or "failed" when no ranking could be read from the answer.
        teacher: ``LLMTeacher.identity``.
        time: when the answer came, in seconds since 1970 (UTC).

    Raises:
        AlkdError: a key that is no text or empty, an unknown status, an item token that is no text.
    """

    key: str
    ranking: tuple[str, ...]
    candidates: tuple[str, ...] = ()
    raw: str = ""
    repairs: Mapping[str, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    usd: float | None = None
    status: str = "ok"
    teacher: str = ""
    time: float | None = None

    @property
    def cost(self) -> Cost:
        """What the answer took."""
        return Cost(self.prompt_tokens, self.completion_tokens, self.seconds, self.usd)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ranking", tuple(self.ranking))
        object.__setattr__(self, "candidates", tuple(self.candidates))
        object.__setattr__(self, "repairs", dict(self.repairs))
        if not (isinstance(self.key, str) and self.key):
            raise AlkdError(f"label key: {self.key!r} is not allowed; allowed: text that is not empty")
        if self.status not in STATUSES:
            raise AlkdError(
                f"status of label {self.key}: {self.status!r} is not allowed; allowed: {' | '.join(STATUSES)}"
            )
        for token in self.ranking + self.candidates:
            if not isinstance(token, str):
                raise AlkdError(f"label {self.key}: the item token {token!r} is not text")


def label_key(history: Sequence[str], candidates: Sequence[str], prompt: str, teacher: str) -> str:
    """The key of a label: 64 hex digits that are the same only for the same question to the same teacher.

    Args:
        history: item tokens of the instance, oldest first.
        candidates: candidate tokens in order.
        prompt: the text that decides the answer.
        teacher: ``LLMTeacher.identity``: teacher, model, adapter and scoring settings.
    """
    # JSON: no two questions share a text
    question = json.dumps([list(history), list(candidates), prompt, teacher])
    return hashlib.sha256(question.encode()).hexdigest()


def read_time(value: object) -> float | None:
    """Seconds since 1970, up to the year 9999, or None."""
    return read_amount(value, _LAST_SECOND)


def to_row(label: Label) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What the tables ``labels`` and ``answers`` hold of it.

    Raises:
        AlkdError: a value that the store cannot keep as it is.
    """

    def number(name: str, read: Callable[[object], float | None], optional: bool = False) -> float | None:
        value = getattr(label, name)
        parsed = None if optional and value is None else read(value)
        if parsed is None and not (optional and value is None):
            allowed = (
                "a whole number from 0 to 2^63-1" if read is read_count else "a finite number of at least 0"
            )
            raise AlkdError(f"label {label.key}: {name}: {value!r:.100} is not allowed; allowed: {allowed}")
        return parsed

    try:
        row = (
            label.key.encode().decode(),
            label.status,
            label.teacher.encode("utf-8", "replace").decode(),
            number("prompt_tokens", read_count),
            number("completion_tokens", read_count),
            number("seconds", read_amount),
            number("usd", read_amount, optional=True),
            number("time", read_time, optional=True),
        )
        texts = (
            json.dumps(label.ranking),
            json.dumps(label.candidates),
            json.dumps(label.repairs),
            label.raw.encode("utf-8", "surrogatepass"),
        )
    except AlkdError:
        raise
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise AlkdError(f"label {label.key!r:.100}: a value cannot be stored: {error}") from None
    return row, texts


def from_row(row: tuple[Any, ...]) -> Label:
    """The label of a row: key, ranking, candidates, raw, repairs, then the other fields in the order of
    ``Label``.

    Raises:
        ValueError, TypeError: a row that is none, as in a damaged file.
    """
    key, ranking, candidates, raw, repairs, *rest = row
    items, offered, repaired = json.loads(ranking), json.loads(candidates), json.loads(repairs)
    if not (isinstance(items, list) and isinstance(offered, list) and isinstance(repaired, dict)):
        raise ValueError("ranking and candidates must be lists, repairs a mapping")
    if not all(isinstance(text, str) for text in (raw, rest[4], rest[5])):
        raise ValueError("a text is no valid UTF-8")
    return Label(key, tuple(items), tuple(offered), raw, repaired, *rest[:7])
