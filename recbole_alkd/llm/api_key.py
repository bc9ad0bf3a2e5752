"""The API key: it comes from the environment, goes to the server, and is struck out of everything else."""

from __future__ import annotations

import os
import re
from urllib.parse import quote

from recbole_alkd.llm.messages import sendable
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import TeacherSettings

STRUCK = "[API key]"
_SHORTEST = 6  # characters; a shorter "key", such as EMPTY or none, protects nothing
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


def find_key(settings: TeacherSettings) -> str | None:
    """The API key, or None. A key of OpenAI's is never sent to another server, unless that is asked for.

    Raises:
        AlkdError: the variable is not set, or holds what no header can carry.
    """
    name = settings.llm_api_key_env or (None if settings.llm_base_url else "OPENAI_API_KEY")
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        # a word that is no usual name may be the key itself
        shown = name if re.fullmatch(r"[A-Z][A-Z0-9_]*", name) else "it names (not shown, it may be a key)"
        raise AlkdError(
            f"llm_api_key_env: the environment variable {shown} is not set; it must hold the API key"
        )
    if not key.isascii() or not key.isprintable():
        raise AlkdError(
            f"llm_api_key_env: the environment variable {name} holds characters that no API key has (not "
            "shown)"
        )
    return key


def known_key(settings: TeacherSettings) -> str | None:
    """The same key where there is one; never an error."""
    name = settings.llm_api_key_env or "OPENAI_API_KEY"
    return os.environ.get(name, "").strip() or None


def strike(text: str, key: str | None) -> str:
    """``text`` without ``key``, as it is, as a URL has it, and by halves where it is long enough."""
    if not key or len(key) < _SHORTEST:
        return text
    forms = {key, quote(key, safe="")}
    if len(key) >= 16:
        forms |= {key[: len(key) // 2], key[len(key) // 2 :]}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, STRUCK)
    return text


def one_line(text: str, most: int = 500) -> str:
    """What a server said, for a message of ours: one line, without control characters, not too long."""
    return sendable(" ".join(_CONTROL.sub(" ", text).split()))[:most]
