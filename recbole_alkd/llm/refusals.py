"""Why there is no answer: what a server's status and words mean, and whether the request may have been
charged."""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from recbole_alkd.llm.api_key import one_line

LONGEST_WAIT = 900.0  # seconds


class NoReplyError(Exception):
    """No answer came.

    ``charged``: whether the last request may be charged all the same.
    ``given_up``: after all the tries that there are.
    """

    def __init__(self, why: str, charged: bool = False, given_up: bool = False) -> None:
        super().__init__(why)
        self.charged, self.given_up = charged, given_up


class RefusedError(NoReplyError):
    """The server refuses this one request, and would again: it is too long, or its content is filtered.

    ``certain``: the words say so. Else a server that has answered nothing yet may refuse every request.
    """

    def __init__(self, why: str, certain: bool) -> None:
        super().__init__(why)
        self.certain = certain


class TryAgainError(Exception):
    """A problem that may pass.

    ``pause``: seconds that the server asks for. ``put_off``: it has not tried.
    ``nobody_there``: no connection was made.
    """

    def __init__(
        self,
        why: str,
        charged: bool,
        pause: float | None = None,
        put_off: bool = False,
        nobody_there: bool = False,
    ) -> None:
        super().__init__(why)
        self.charged, self.pause, self.put_off, self.nobody_there = charged, pause, put_off, nobody_there


# what vLLM, llama.cpp, DeepSeek, OpenAI, Azure and others say of a prompt that is too long,
# or whose content they refuse
_CERTAIN = re.compile(
    r"context[_ -]?(length|size|window)|maximum context|exceed_context|too (long|large|many tokens)|prompt "
    r"is too|"
    r"content[_ ]?(exists risk|filter|policy|management)|moderation|flagged|safety|sensitive|inappropriate",
    re.IGNORECASE,
)
_SYSTEM = re.compile(
    r"\bsystem[ _-]?(role|message|prompt|instruction)|\b(role|instruction)s?\b.{0,40}\bsystem\b|developer "
    r"instruction|"
    r"roles must alternate|(unknown|unsupported|invalid|unexpected) (message )?role",
    re.IGNORECASE,
)
_MODEL = re.compile(
    r"model[ _-]?not[ _-]?(exist|found)|(no such|unknown|invalid|unsupported) model|model .{0,80}(does not "
    r"exist|not found)",
    re.IGNORECASE,
)
_KEY = re.compile(
    r"\bapi[ _-]?key\b.{0,40}\b(invalid|not valid|incorrect|missing|expired)|\b(invalid|incorrect)[ _]api[ "
    r"_-]?key",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Status:
    """A response whose status is no success. ``words`` are the server's, without the key."""

    code: int
    words: str
    kind: str
    param: str
    pause: float | None

    @classmethod
    def of(cls, error: Any, strike: Callable[[str], str]) -> Status:
        """From openai's APIStatusError."""
        details = error.body if isinstance(error.body, Mapping) else {}
        words = details.get("message") or details.get("detail") or error.message
        kind = f"{details.get('code') or ''} {details.get('type') or ''} {details.get('status') or ''}"
        return cls(
            error.status_code,
            one_line(strike(str(words))),
            one_line(strike(kind)),
            str(details.get("param") or ""),
            retry_after(error.response.headers),
        )

    def __str__(self) -> str:
        return f"{self.code}: {self.words}"

    def names(self, param: str, word: str) -> bool:
        """Whether the server names a field that it does not take."""
        return self.param == param or word in self.words

    @property
    def is_form(self) -> bool:
        """Whether the form of the request may be what is refused; templates that fail are a 500 to
        llama.cpp."""
        return self.code in (400, 422) or (self.code in (500, 501) and self.is_about_system)

    @property
    def is_about_system(self) -> bool:
        return bool(_SYSTEM.search(self.words))

    @property
    def is_own(self) -> bool:
        """Whether another request may fare better."""
        return self.code in (400, 413, 414, 422, 451)

    @property
    def is_certain(self) -> bool:
        return bool(_CERTAIN.search(f"{self.kind} {self.words}")) or self.code in (413, 414)

    @property
    def is_general(self) -> bool:
        """Whether it is about the model, which is the same in every request."""
        return bool(_MODEL.search(f"{self.kind} {self.words}"))

    @property
    def is_wrong_key(self) -> bool:
        return self.code == 401 or (self.code == 400 and bool(_KEY.search(f"{self.kind} {self.words}")))

    @property
    def passes(self) -> bool:
        return (
            (self.code == 429 and "insufficient_quota" not in self.kind)
            or self.code >= 500
            or self.code in (408, 409, 425)
        )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, as a number of seconds or milliseconds or as a date;
    None: it does not say."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
            except (
                ValueError,
                OverflowError,
                TypeError,
                LookupError,
                OSError,
            ):  # a date that no calendar has
                continue
        if math.isfinite(seconds) and seconds > 0:
            return min(seconds, LONGEST_WAIT)
    return None
