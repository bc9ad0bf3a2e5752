"""The ASGI application: routes, answers and refusals.

A session is scored on the event loop, which takes less time than a thread would; searches and reasons, which
can take longer, are made beside it.
"""

from __future__ import annotations

import asyncio
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

import msgspec
import numpy as np

import recbole_alkd
from recbole_alkd.serving.card import verdict_words
from recbole_alkd.serving.recommender import Recommender
from recbole_alkd.serving.service.limits import Limits
from recbole_alkd.serving.service.measures import TYPE, Measures
from recbole_alkd.serving.service.messages import (
    Explained,
    Failure,
    FoundItem,
    FoundItems,
    Health,
    Item,
    Part,
    Recommended,
    RefusedError,
    Requests,
    text_id,
    whole_number,
)  # fmt: skip
from recbole_alkd.serving.service.page import PAGE, PAGE_HEADERS
from recbole_alkd.serving.service.served import POPULARITY, TEACHER, Served
from recbole_alkd.settings.error import AlkdError

# bytes of a body that is too large which are still taken, so that its sender reads why it is refused
_DRAINED = 1 << 28
_NOBODY = np.zeros(0, dtype=np.int64)

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Service:
    """The application. ``replace`` gives it other bundles while it answers:
    a request is answered from what it began with.

    Args:
        served: the bundles. limits: of requests.
    """

    def __init__(self, served: Served, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._served = served
        self._requests = Requests(self.limits, served.recommenders)
        self._encode = msgspec.json.Encoder().encode
        self._routes: dict[tuple[str, str], Callable[..., Any]] = {
            ("POST", "/recommend"): self._recommend, ("POST", "/explain"): self._explain,
            ("GET", "/items"): self._items,
            ("GET", "/health"): self._health, ("GET", "/metrics"): self._metrics,
            ("GET", "/openapi.json"): self._openapi,
            ("GET", "/"): self._page,
        }  # fmt: skip
        self._methods = {path: method for method, path in self._routes}
        self.measures = Measures(tuple(self._methods))
        self.measures.items.set(served.student.items.n_items - 1)

    def replace(self, served: Served) -> None:
        """Serve other bundles from the next request on; AlkdError where a teacher recommender came
        or went."""
        if served.recommenders != self._served.recommenders:
            raise AlkdError(
                f"recommenders {served.recommenders} are not those that are served: "
                f"{self._served.recommenders}"
            )
        self._served = served
        self.measures.items.set(served.student.items.n_items - 1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        begin = time.perf_counter()
        path, method = scope["path"], scope["method"]
        headers: list[tuple[bytes, bytes]] = []
        try:
            status, content, headers = await self._answer(
                scope, receive, path, "GET" if method == "HEAD" else method
            )
        except _GoneError:
            return
        except RefusedError as refused:
            status, content = refused.status, self._encode(Failure(refused.message))
            headers = _JSON
            if status == 405:
                allowed = self._methods[path]
                headers = [*_JSON, (b"allow", b"GET, HEAD" if allowed == "GET" else allowed.encode())]
            elif status == 413:
                headers = [*_JSON, (b"connection", b"close")]
        except Exception:  # the service stays up, and its log says what went wrong
            print(f"error: {method} {path!r}", traceback.format_exc(), sep="\n", file=sys.stderr)
            status, content, headers = (
                500,
                self._encode(Failure("the service has failed; its log says where")),
                _JSON,
            )
        length = (b"content-length", str(len(content)).encode())
        await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
        await send({"type": "http.response.body", "body": content})
        self.measures.request(path, status, time.perf_counter() - begin)

    async def _answer(self, scope: Scope, receive: Receive, path: str, method: str) -> tuple[int, bytes, Any]:
        route = self._routes.get((method, path))
        if route is None:
            if path in self._methods:
                raise RefusedError(
                    405, f"method: {method} is not allowed for {path}; allowed: {self._methods[path]}"
                )
            raise RefusedError(404, f"path: {path[:80]!r} is not served; allowed: {', '.join(self._methods)}")
        try:
            if method == "POST":
                return await route(await self._body(scope, receive))
            return await route(scope)
        except AlkdError as error:
            raise RefusedError(422, str(error)) from None

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        most = self.limits.body
        declared, waits = 0, False
        for name, value in scope["headers"]:
            if name == b"content-length":
                declared = int(value)  # the parser let digits through alone
            elif name == b"expect":
                waits = True
        too_large = f"body: more than {most:,} bytes are not allowed"
        if declared > most and (waits or declared > _DRAINED):
            raise RefusedError(413, too_large)
        message = await receive()
        if not message.get("more_body"):  # the usual case: all of it in one piece
            body = message.get("body")
            if body is None:
                raise _GoneError
            if len(body) <= most:
                return body
        parts, size = [], 0
        while True:
            if message["type"] == "http.disconnect":
                raise _GoneError
            piece = message.get("body", b"")
            size += len(piece)
            if size <= most:
                parts.append(piece)
            elif size > _DRAINED:
                break
            if not message.get("more_body"):
                break
            message = await receive()
        if size > most:
            raise RefusedError(413, too_large)
        return b"".join(parts)

    async def _recommend(self, body: bytes) -> tuple[int, bytes, Any]:
        asked, served = self._requests.read(body, self._requests.recommend), self._served
        student = served.student
        numbers = _numbers(student, asked.history)
        known = numbers[numbers > 0]
        unknown = len(numbers) - len(known)
        if unknown and asked.unknown == "error":
            missing = asked.history[int((numbers == 0).argmax())]
            raise RefusedError(404, f"history: {str(missing)[:80]!r} is not in the catalogue")
        if asked.by == TEACHER and served.teacher is not None:
            student = served.teacher
            known = _known(student, asked.history)
        banned = _NOBODY if asked.blocked is None else _known(student, asked.blocked)
        if asked.exclude_history:
            banned = np.concatenate([banned, known])
        allowed = None if asked.allowed is None else np.unique(_known(student, asked.allowed))
        popular = asked.by == POPULARITY or not len(known)
        items, scores = student.top(_NOBODY if popular else known, asked.k, banned, allowed)
        shown = list(map(Item, student.items.ids(items), student.items.titles(items), scores.tolist()))
        if unknown:
            self.measures.unknown.inc(unknown)
        if popular and asked.by != POPULARITY:
            self.measures.popular.inc()
        return 200, self._encode(Recommended(shown, unknown, popular)), _JSON

    async def _explain(self, body: bytes) -> tuple[int, bytes, Any]:
        asked, student = self._requests.read(body, self._requests.explain), self._served.student
        item = text_id(asked.item)
        number = student.items.number(item)
        if not number:
            raise RefusedError(404, f"item: {item[:80]!r} is not in the catalogue")
        history = [text_id(one) for one in asked.history]
        reasons = await asyncio.to_thread(student.explain, history, item)
        parts = []
        for one in reasons:
            source = None if one.source is None else student.items.number(one.source)
            parts.append(
                Part(one.source, student.items.title(source) if source else "", one.kind, one.weight)
            )
        explained = Explained(item, student.items.title(number), sum(part.weight for part in parts), parts)
        return 200, self._encode(explained), _JSON

    async def _items(self, scope: Scope) -> tuple[int, bytes, Any]:
        try:
            query = parse_qs(
                scope["query_string"].decode("ascii", "replace"), keep_blank_values=True, max_num_fields=10
            )
        except ValueError:
            raise RefusedError(422, "query: more than 10 fields are not allowed; allowed: q, limit") from None
        words = query.get("q", [""])[-1]
        if len(words) > self.limits.query:
            raise RefusedError(
                422, f"q: {len(words):,} characters are not allowed; allowed: at most {self.limits.query}"
            )
        limit = whole_number(query["limit"][-1], "limit", self.limits.found) if "limit" in query else 10
        student = self._served.student
        if words.strip():
            matches = await asyncio.to_thread(student.find, words, limit)
            rows = [FoundItem(*one) for one in matches]
        else:
            best = student.items.popular[:limit]
            counts = student.items.counts[best].tolist()
            rows = list(map(FoundItem, student.items.ids(best), student.items.titles(best), counts))
        return 200, self._encode(FoundItems(rows)), _JSON

    async def _health(self, scope: Scope) -> tuple[int, bytes, Any]:
        manifest = self._served.student.manifest
        data, facts = manifest.get("dataset"), manifest["student"]
        name = str(data.get("name", "")) if isinstance(data, dict) else ""
        items = self._served.student.items.n_items - 1
        created, backbone = str(manifest.get("created", "")), str(facts.get("backbone", ""))
        by, words = list(self._served.recommenders), verdict_words(manifest.get("comparison"))
        health = Health("ok", backbone, name, items, created, by, words)
        return 200, self._encode(health), _JSON

    async def _metrics(self, scope: Scope) -> tuple[int, bytes, Any]:
        return 200, await asyncio.to_thread(self.measures.text), [(b"content-type", TYPE), _NO_SNIFFING]

    async def _openapi(self, scope: Scope) -> tuple[int, bytes, Any]:
        return 200, self._encode(self._requests.document(recbole_alkd.__version__)), _JSON

    async def _page(self, scope: Scope) -> tuple[int, bytes, Any]:
        return 200, PAGE, PAGE_HEADERS


class _GoneError(Exception):
    """The client left before its request was whole."""


_NO_SNIFFING = (b"x-content-type-options", b"nosniff")
_JSON = [(b"content-type", b"application/json"), _NO_SNIFFING]


def _numbers(student: Recommender, items: list[str | int]) -> np.ndarray:
    """The number of every item, 0 for an unknown one."""
    return student.items.numbers([text_id(one) for one in items])


def _known(student: Recommender, items: list[str | int]) -> np.ndarray:
    numbers = _numbers(student, items)
    return numbers[numbers > 0]
