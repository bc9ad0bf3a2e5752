"""What a client may ask for, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds on requests, each with a clear refusal.

    Attributes:
        body: bytes of a request's body. history: items of a session. k: recommendations. filter: items of
            ``allowed`` and ``blocked``. query: characters of a search by title.
            found: items that a search gives.
        head: bytes of a request's line and headers. seconds: for a request to arrive,
            and for an answer to be taken.
        idle: seconds that a connection may rest between requests. connections: of one worker at a time.
    """

    body: int = 1 << 20
    history: int = 1000
    k: int = 1000
    filter: int = 10_000
    query: int = 100
    found: int = 100
    head: int = 1 << 15
    seconds: float = 10.0
    idle: float = 30.0
    connections: int = 1000
