"""What the service reads and writes, as msgspec types, and the OpenAPI document that says so."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from recbole_alkd.serving.recommender import short
from recbole_alkd.serving.service.limits import Limits
from recbole_alkd.settings.error import AlkdError


class Item(msgspec.Struct):
    """A recommended item. ``title`` is text, never markup."""

    item: str
    title: str
    score: float


class Recommended(msgspec.Struct):
    """unknown: how many ids of the session are not in the catalogue.
    popular: whether popularity served, as nothing was known."""

    recommendations: list[Item]
    unknown: int
    popular: bool


class Part(msgspec.Struct):
    """A part of a score: the item of the session it comes from (null for none), what kind of evidence it is,
    what it adds."""

    source: str | None
    title: str
    kind: str
    weight: float


class Explained(msgspec.Struct):
    """The parts, the largest first; their weights sum to the score."""

    item: str
    title: str
    score: float
    reasons: list[Part]


class FoundItem(msgspec.Struct):
    """An item that a search found. count: in how many training sessions it is."""

    item: str
    title: str
    count: int


class FoundItems(msgspec.Struct):
    items: list[FoundItem]


class Health(msgspec.Struct):
    """What is served. recommenders: what ``by`` may be. created: when the bundle was made.

    comparison: what its run showed against the student that was trained as long without labels, in words.
    """

    status: Literal["ok"]
    student: str
    dataset: str
    items: int
    created: str
    recommenders: list[str]
    comparison: str = ""


class Failure(msgspec.Struct):
    """One line: what is wrong, where, and what is allowed."""

    error: str


class RefusedError(Exception):
    """A request that gets no answer but ``message`` with ``status``."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class Requests:
    """The types of requests under limits, and their decoders.

    Args:
        limits: the bounds. recommenders: what ``by`` may be, the default first.
    """

    def __init__(self, limits: Limits, recommenders: Sequence[str]) -> None:
        one: Any = str | int
        session: Any = Annotated[
            list[one], Meta(max_length=limits.history, description="item ids, oldest first")
        ]
        some: Any = Annotated[list[one], Meta(max_length=limits.filter)] | None
        by: Any = Literal[tuple(recommenders)]
        self._allowed = {"by": tuple(recommenders), "unknown": ("ignore", "error")}
        fields: list[Any] = [
            ("history", session), ("k", Annotated[int, Meta(ge=1, le=limits.k)], 10),
            ("exclude_history", bool, True),
            ("unknown", Literal["ignore", "error"], "ignore"), ("allowed", some, None),
            ("blocked", some, None),
            ("by", by, recommenders[0]),
        ]  # fmt: skip
        self.recommend = msgspec.defstruct("Recommend", fields, forbid_unknown_fields=True)
        self.explain = msgspec.defstruct(
            "Explain", [("history", session), ("item", one)], forbid_unknown_fields=True
        )
        self._decoders = {kind: msgspec.json.Decoder(kind) for kind in (self.recommend, self.explain)}
        self.limits = limits

    def read(self, body: bytes, kind: Any) -> Any:
        """A request from its body.

        Raises:
            RefusedError: 400 for what is no JSON, 422 for what is not of the type;
                it names value, place and what is allowed.
        """
        try:
            return self._decoders[kind].decode(body)
        except msgspec.ValidationError as error:
            if "got `float`" in str(error):  # to JSON Schema 3.0 is an integer
                with contextlib.suppress(msgspec.ValidationError):
                    return msgspec.convert(_whole(msgspec.json.decode(body)), kind)
            raise RefusedError(422, _place(str(error), body, self._allowed)) from None
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            raise RefusedError(400, f"body: not readable as JSON: {error}") from None

    def document(self, version: str) -> dict[str, Any]:
        """The OpenAPI document."""
        kinds = [self.recommend, self.explain, Recommended, Explained, FoundItems, Health, Failure]
        _, schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
        limits = self.limits
        query = [
            _parameter(
                "q",
                {"type": "string", "maxLength": limits.query, "default": ""},
                "an id, or words of a title",
            ),
            _parameter(
                "limit", {"type": "integer", "minimum": 1, "maximum": limits.found, "default": 10}, "how many"
            ),
        ]
        text = {"schema": {"type": "string"}}
        paths = {
            "/recommend": {
                "post": _operation("recommend", "The next items of a session", "Recommended", "Recommend")
            },
            "/explain": {"post": _operation("explain", "What a score is made of", "Explained", "Explain")},
            "/items": {
                "get": {**_operation("items", "Items by id or title", "FoundItems"), "parameters": query}
            },
            "/health": {"get": _operation("health", "What is served", "Health")},
            "/metrics": {"get": _page("metrics", "Metrics for Prometheus", {"text/plain": text})},
            "/openapi.json": {
                "get": _page("openapi", "This document", {"application/json": {"schema": {"type": "object"}}})
            },
            "/": {"get": _page("page", "A page to try it", {"text/html": text})},
        }
        info = {
            "title": "recbole_alkd",
            "version": version,
            "description": "Recommendations for sessions from a bundle",
        }
        return {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def text_id(item: str | int) -> str:
    """An item id of a request as text."""
    try:
        return item if isinstance(item, str) else str(item)
    except ValueError:  # an integer of thousands of digits
        raise AlkdError("an id is an integer of too many digits; allowed: text or an integer") from None


def whole_number(text: str, name: str, most: int) -> int:
    """A number of the query; RefusedError where it is none from 1 to ``most``."""
    if not (text.isascii() and text.isdigit() and len(text) < 19 and 1 <= int(text) <= most):
        raise RefusedError(422, f"{name}: {short(text)} is not allowed; allowed: an integer from 1 to {most}")
    return int(text)


def _whole(value: Any) -> Any:
    """A decoded request with 3 for 3.0, in its fields and their lists."""
    if isinstance(value, dict):
        return {key: _whole(one) for key, one in value.items()}
    if isinstance(value, list):
        return [int(one) if isinstance(one, float) and one.is_integer() else one for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _place(words: str, body: bytes, allowed: Mapping[str, Sequence[str]]) -> str:
    """msgspec's words ("Expected `int` >= 1 - at `$.k`") with the place first and the value that is there."""
    what, _, place = words.partition(" - at `$")
    what, place = what[0].lower() + what[1:], place.rstrip("`")
    if place[1:] in allowed:
        what = f"not allowed; allowed: {' | '.join(allowed[place[1:]])}"
    try:
        value = msgspec.json.decode(body)
        for key, at in re.findall(r"\.(\w+)|\[(\d+)\]", place):
            value = value[key] if key else value[int(at)]
    except (ValueError, LookupError, TypeError, RecursionError):
        return f"{place.lstrip('.') or 'body'}: {what}"
    return f"{place.lstrip('.')}: {short(value)}: {what}" if place else f"body: {what}"


def _content(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _operation(name: str, text: str, answer: str, request: str | None = None) -> dict[str, Any]:
    operation = _page(name, text, _content(answer))
    codes = {"422": "a value is not allowed", "404": "an item is not in the catalogue"}
    if request:
        operation["requestBody"] = {"required": True, "content": _content(request)}
        codes |= {
            "400": "the body is no JSON",
            "408": "the request took too long",
            "413": "the body is too large",
        }
    for code, words in sorted(codes.items()):
        operation["responses"][code] = {"description": words, "content": _content("Failure")}
    return operation


def _page(name: str, text: str, content: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": text,
        "responses": {"200": {"description": text, "content": content}},
    }


def _parameter(name: str, schema: dict[str, Any], text: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": text}
