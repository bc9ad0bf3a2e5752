"""Chat messages as a server and a model can take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def sendable(text: str) -> str:
    """``text`` with halves of surrogate pairs replaced, which no encoder takes.
    Whole pairs become their character."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def without_system(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The chat for a model that knows no system role: its text stands in the first user message."""
    rest = [dict(message) for message in messages if message["role"] != "system"]
    texts = [message["content"] for message in messages if message["role"] == "system"]
    if rest and texts:
        rest[0]["content"] = "\n\n".join([*texts, rest[0]["content"]])
    return rest
