"""What an OpenAI-compatible server answered, read leniently: the text decides,
all else may be missing or nonsense.

A response that can be read is a chat completion with a text. Everything else that came with status 200 may
have been paid for none the less, so it becomes a reply without text, which is kept as it came and never
raised.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LONGEST_NOTE = 2_000  # characters of a response that is no answer, which are kept


@dataclass(frozen=True)
class Reply:
    """An answer.

    Attributes:
        text: what the model said; empty where nothing can be read.
        prompt_tokens, completion_tokens: as the server counted them;
            None where it did not, or not in a way that can be.
        cached_tokens: those of the prompt that cost less.
        cut: whether ``max_tokens`` cut it off.
        note: what came instead of a text; empty with one.
        readable: whether it was a chat completion at all.
    """

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int = 0
    cut: bool = False
    note: str = ""
    readable: bool = True


class NoAnswerError(ValueError):
    """The response is none of a model: a web page, or an error that calls itself a success."""


def read_content(content: bytes) -> Reply:
    """The reply in the body of a response with status 200.

    Raises:
        NoAnswerError: it came from no model.
    """
    text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").strip()
    if text.startswith("<"):
        raise NoAnswerError(f"a web page instead of an answer: {text[:100]!r}")
    body = _events(text) if text.startswith(("data:", "event:", ":")) else lenient_json(text)
    if body is None:
        return Reply("", note=text[:LONGEST_NOTE], readable=False)
    if isinstance(body, dict) and body.get("error") and not body.get("choices"):
        raise NoAnswerError(f"an error with status 200: {_shown(body['error'])[:500]}")
    return read_completion(body)


def read_completion(body: Any) -> Reply:
    """The reply in a chat completion; one without a text where ``body`` is none."""
    whole = body if isinstance(body, dict) else {}
    choices = whole.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    text = _text(message.get("content")) or _text(choice.get("text")) or _arguments(message.get("tool_calls"))
    usage = whole.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
    written = _count(usage.get("completion_tokens"))
    return Reply(
        text,
        _count(usage.get("prompt_tokens")) or None,  # no prompt has 0 tokens
        written if written or not text else None,
        cached or 0,
        choice.get("finish_reason") == "length",
        "" if text else _shown(body)[:LONGEST_NOTE],
        bool(message) or "text" in choice,
    )


def _text(content: Any) -> str:
    """A text, or parts of one; what the model thought is none."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif (
            isinstance(part, dict)
            and part.get("type") in (None, "text", "output_text")
            and isinstance(part.get("text"), str)
        ):
            texts.append(part["text"])
    return "".join(texts)


def _arguments(calls: Any) -> str:
    """What a model that answers with a function call says: its arguments."""
    functions = (
        [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    )
    texts = [function.get("arguments") for function in functions if isinstance(function, dict)]
    return "\n".join(text for text in texts if isinstance(text, str))


def _count(value: object) -> int | None:
    """A number of tokens. The bound of the request says what is too much."""
    if isinstance(value, float) and value.is_integer():  # also refuses what is not finite
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def lenient_json(text: str) -> Any:
    """The value in ``text``; None where there is none. Line ends inside strings and numbers of any length are
    read."""
    try:
        return json.loads(
            text, strict=False, parse_int=lambda digits: int(digits) if len(digits) < 25 else float("inf")
        )
    except (ValueError, RecursionError):
        return None


def _events(text: str) -> dict[str, Any] | None:
    """A stream that nobody asked for, as one completion; None where it has no text."""
    parts: list[str] = []
    whole: dict[str, Any] = {}
    reason = None
    for line in text.split("\n"):
        event = lenient_json(line.removeprefix("data:").strip()) if line.startswith("data:") else None
        if not isinstance(event, dict):
            continue
        if isinstance(event.get("usage"), Mapping):
            whole["usage"] = event["usage"]
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        piece = choice.get("delta") or choice.get("message")
        if isinstance(piece, dict):
            parts.append(_text(piece.get("content")))
        reason = choice.get("finish_reason") or reason
    if not any(parts):
        return None
    return {**whole, "choices": [{"message": {"content": "".join(parts)}, "finish_reason": reason}]}


def _shown(value: Any) -> str:
    try:
        return value if isinstance(value, str) else json.dumps(value)
    except (ValueError, RecursionError, TypeError):
        return str(type(value))
