"""A chat server on 127.0.0.1 that misbehaves in every way that is known of real ones,
and keeps its own counts.

    with FaultServer("usage huge") as server:                    # every request
    with FaultServer(sometimes(["choices empty", "429"], 0.3)):  # 30 % of the requests, drawn by their number
    with FaultServer(for_some_prompts(["400 vllm"], 0.1)):       # a tenth of the questions, whenever asked
    with FaultServer(lambda number, body: "401" if number == 7 else None):

``FAULTS`` names them all; ``PAID`` are those for which a provider charges, because the model has answered.
What stands on the provider's bill, whatever the client believes, is counted here: ``paid_requests``,
``paid_tokens``, ``paid_questions`` (the number of different chats), ``paid_twice`` (requests for a chat that
was paid before). A test compares them with the label store and the budget.
The server lives in a thread; a client that is killed is another process that is given ``url``.

Standard library only. ``answer_text`` is what it says when it is well (a ranking of the candidates,
or two hints).
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import random
import re
import socket
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler
from typing import Any

from chat_server import ChatServer, completion, ranking

Plan = Callable[[int, dict[str, Any]], "str | None"]


class FaultServer(ChatServer):
    """See the module.

    Args:
        plan: the name of a fault for every request; ``plan(number, body) -> name or None``;
            or None: it is well.
        delay: seconds before every answer.
        text: ``text(body)``: what a well answer says; None: ``answer_text``.
    """

    def __init__(
        self,
        plan: Plan | str | None = None,
        *,
        delay: float = 0.0,
        text: Callable[[dict[str, Any]], str] | None = None,
    ) -> None:
        if isinstance(plan, str) and plan not in FAULTS:
            raise KeyError(f"{plan!r} is no fault; there are: {', '.join(FAULTS)}")
        self.plan: Plan = plan if callable(plan) else lambda number, body: plan
        self.delay, self.text = delay, text or answer_text
        self.paid: Counter[str] = Counter()  # chat -> how often it was charged
        self.paid_tokens = 0
        self.faults: Counter[str] = Counter()  # name -> how often it happened; "" for well answers
        super().__init__()

    @property
    def paid_requests(self) -> int:
        return sum(self.paid.values())

    @property
    def paid_questions(self) -> int:
        return len(self.paid)

    @property
    def paid_twice(self) -> int:
        return self.paid_requests - self.paid_questions

    def answer(self, handler: BaseHTTPRequestHandler, number: int, body: dict[str, Any]) -> None:
        time.sleep(self.delay)
        fault = self.plan(number, body)
        exchange = Exchange(handler, body, self.text(body))
        with self.lock:
            self.faults[fault or ""] += 1
            if fault is None or fault in PAID or (fault == "no system role" and not _has_system(body)):
                self.paid[question_of(body)] += 1
                self.paid_tokens += exchange.tokens(FAULTS.get(fault or ""))
        if fault is None:
            exchange.send(exchange.completion())
        else:
            FAULTS[fault](exchange)


def sometimes(names: Sequence[str], share: float, seed: int = 0) -> Plan:
    """A fault for a share of the requests: asked again, the same chat may be answered."""

    def plan(number: int, body: dict[str, Any]) -> str | None:
        rng = random.Random(f"{seed} {number}")
        return rng.choice(list(names)) if rng.random() < share else None

    return plan


def for_some_prompts(names: Sequence[str], share: float, seed: int = 0) -> Plan:
    """A fault for a share of the questions, whenever they are asked."""

    def plan(number: int, body: dict[str, Any]) -> str | None:
        first = next(message["content"] for message in body["messages"] if message["role"] == "user")
        rng = random.Random(f"{seed} {first}")
        return rng.choice(list(names)) if rng.random() < share else None

    return plan


def question_of(body: Mapping[str, Any]) -> str:
    """A name of the chat that was sent."""
    return hashlib.sha256(json.dumps(body["messages"]).encode()).hexdigest()


def answer_text(body: dict[str, Any]) -> str:
    """The answer of a model that is well."""
    asked = "\n".join(str(message["content"]) for message in body["messages"])
    return (
        ranking(body)
        if "Candidates" in asked
        else "1. What belongs together follows.\n2. What was dear comes late."
    )


class Exchange:
    """One request, and the ways to answer it."""

    def __init__(self, handler: BaseHTTPRequestHandler, body: dict[str, Any], text: str) -> None:
        self.handler, self.body, self.text = handler, body, text

    def tokens(self, fault: Callable[[Exchange], None] | None) -> int:
        """What the provider charges for what the model says."""
        said = getattr(fault, "says", lambda x: x.text)
        usage = self.completion(said(self))["usage"]
        return usage["prompt_tokens"] + usage["completion_tokens"]

    @property
    def key(self) -> str:
        return (self.handler.headers.get("Authorization") or "").removeprefix("Bearer ")

    def completion(self, text: str | None = None, **usage: Any) -> dict[str, Any]:
        return completion(self.body, self.text if text is None else text, **usage)

    def changed(self, **message: Any) -> dict[str, Any]:
        """The completion with other fields in its message."""
        whole = self.completion()
        whole["choices"][0]["message"].update(message)
        return whole

    def send(self, content: Any, status: int = 200, **headers: str) -> None:
        """``content``: bytes as they are, anything else as JSON. ``Retry_After`` is sent as Retry-After."""
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        handler = self.handler
        handler.send_response(status)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(raw)),
            **sent,
        }.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(raw)

    def error(self, status: int, message: str, **more: Any) -> None:
        headers = {name: more.pop(name) for name in ("Retry_After", "Location") if name in more}
        self.send({"error": {"message": message, **more}}, status, **headers)

    def chunked(self, **headers: str) -> Callable[[bytes], None]:
        """Begin a chunked body; returns what sends one chunk."""
        handler = self.handler
        handler.send_response(200)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {
            "Content-Type": "application/json",
            "Transfer-Encoding": "chunked",
            **sent,
        }.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.close_connection = True

        def write(data: bytes) -> None:
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

        return write


# answers that were paid for


def _usage(**counts: Any) -> Callable[[Exchange], None]:
    return lambda x: x.send(x.completion(**counts))


def _whole_usage(usage: Any) -> Callable[[Exchange], None]:
    return lambda x: x.send({**x.completion(), "usage": usage})


def _without(*path: Any) -> Callable[[Exchange], None]:
    def fault(x: Exchange) -> None:
        whole: Any = x.completion()
        place = whole
        for step in path[:-1]:
            place = place[step]
        del place[path[-1]]
        x.send(whole)

    return fault


def _message(**fields: Any) -> Callable[[Exchange], None]:
    return lambda x: x.send(x.changed(**fields))


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[Exchange], None]:
    return lambda x: x.send(change(json.dumps(x.completion()).encode()))


def _in_text(before: str = "", behind: str = "") -> Callable[[Exchange], None]:
    return _content(lambda x: before + x.text + behind)


def _finish(reason: str, text: str | None = None) -> Callable[[Exchange], None]:
    def fault(x: Exchange) -> None:
        whole = x.completion(text)
        whole["choices"][0]["finish_reason"] = reason
        x.send(whole)

    fault.says = lambda x: x.text if text is None else text  # type: ignore[attr-defined]
    return fault


def _parts(x: Exchange) -> None:
    half = len(x.text) // 2
    x.send(
        x.changed(content=[{"type": "text", "text": x.text[:half]}, {"type": "text", "text": x.text[half:]}])
    )


def _reasoning(x: Exchange) -> None:
    thoughts = "Perhaps " + ", ".join(reversed(x.text.strip("[]").split(", ")))
    x.send(x.changed(reasoning_content=thoughts, reasoning=thoughts))


def _sse(x: Exchange) -> None:
    whole = x.completion()
    choice = whole["choices"][0]
    events = [
        {
            **whole,
            "object": "chat.completion.chunk",
            "usage": None,
            "choices": [{"index": 0, "delta": {"content": part}}],
        }
        for part in (x.text[:9], x.text[9:])
    ]
    events.append({**whole, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]})
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    x.send(text.encode(), Content_Type="text/event-stream")


def _cut_body(x: Exchange) -> None:
    raw = json.dumps(x.completion()).encode()
    x.handler.close_connection = True
    x.send(raw[: len(raw) // 2], Content_Length=str(len(raw)))


def _cut_chunks(x: Exchange) -> None:
    write, raw = x.chunked(), json.dumps(x.completion()).encode()
    write(raw[: len(raw) // 2])
    x.handler.wfile.flush()
    _reset(x)


def _http10(x: Exchange) -> None:
    raw = json.dumps(x.completion()).encode()
    x.handler.close_connection = True
    x.handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + raw)


def _http10_cut(x: Exchange) -> None:
    raw = json.dumps(x.completion()).encode()
    x.handler.close_connection = True
    x.handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + raw[: len(raw) // 2])


def _endless(x: Exchange) -> None:
    write = x.chunked()
    write(b'{"choices": [{"message": {"content": "')
    try:
        for _ in range(4_000):  # 4 GB, should nobody hang up
            write(b"x" * 2**20)
    except OSError:
        return


def _bomb(x: Exchange) -> None:
    x.send(_packed_gigabyte(), Content_Encoding="gzip")


@functools.cache
def _packed_gigabyte() -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = bytes(2**20)
    return b"".join(packer.compress(block) for _ in range(1024)) + packer.flush()


def _drip(x: Exchange) -> None:
    write = x.chunked()
    for byte in json.dumps(x.completion()).encode():
        write(bytes([byte]))
        x.handler.wfile.flush()
        time.sleep(0.05)


def _reset(x: Exchange) -> None:
    x.handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    x.handler.close_connection = True


def _duplicates(raw: bytes) -> bytes:
    return raw.replace(b'{"id"', b'{"choices": [], "usage": {}, "id"', 1)


def _content(change: Callable[[Exchange], str]) -> Callable[[Exchange], None]:
    def fault(x: Exchange) -> None:
        x.send(x.completion(change(x)))

    fault.says = change  # type: ignore[attr-defined]
    return fault


def _echo_candidates(x: Exchange) -> str:
    prompt = next(message["content"] for message in x.body["messages"] if message["role"] == "user")
    return prompt[prompt.index("Candidates") :].partition("\n\n")[0] if "Candidates" in prompt else x.text


GOOD_ANSWERS: dict[str, Callable[[Exchange], None]] = {  # the ranking is all there
    "usage huge": _usage(prompt_tokens=10**30, completion_tokens=10**30),
    "usage fraction": _usage(prompt_tokens=12.5),
    "usage text": _usage(prompt_tokens="many", completion_tokens="12"),
    "usage negative": _usage(completion_tokens=-5),
    "usage bool": _usage(prompt_tokens=True, completion_tokens=False),
    "usage null": _usage(prompt_tokens=None, completion_tokens=None),
    "usage not finite": _bytes(lambda raw: re.sub(rb'"(prompt|completion)_tokens": \d+', rb'"\1_tokens": '
                                                                                         rb'NaN', raw)),
    "usage list": _whole_usage([1, 2]),
    "usage missing": _without("usage"),
    "cached huge": _usage(prompt_tokens_details={"cached_tokens": 10**30}),
    "cached text": _usage(prompt_tokens_details="none"),
    "content parts": _parts,
    "reasoning beside": _reasoning,
    "finish length": _finish("length"),
    "finish missing": _without("choices", 0, "finish_reason"),
    "bom": _bytes(lambda raw: b"\xef\xbb\xbf" + raw),
    "duplicate keys": _bytes(_duplicates),
    "invalid utf-8": _bytes(lambda raw: raw.replace(b'"content": "', b'"content": "caf\xe9 \xff ')),
    "surrogate": _in_text("\ud83d "),
    "line separators": _in_text("Here you are:\u2028\u2029\x85\n"),
    "nul": _in_text("", "\0"),
    "http/1.0": _http10,
    "stream": _sse,
    "thinks": _content(lambda x: f"<think>First {_echo_candidates(x)}</think>{x.text}"),
    "echo first": _content(lambda x: f"{_echo_candidates(x)}\n\nMy ranking:\n{x.text}"),
}  # fmt: skip

EMPTY_ANSWERS: dict[str, Callable[[Exchange], None]] = {  # paid for, and nothing can be read from it
    "choices empty": lambda x: x.send({**x.completion(), "choices": []}),
    "choices null": lambda x: x.send({**x.completion(), "choices": None}),
    "choices missing": _without("choices"),
    "message missing": _without("choices", 0, "message"),
    "content null": _message(content=None),
    "content number": _message(content=12),
    "tool calls": _message(
        content=None, tool_calls=[{"type": "function", "function": {"name": "f", "arguments": "{}"}}]
    ),
    "refusal": _message(content=None, refusal="I cannot help with that."),
    "filtered": _finish("content_filter", ""),
    "cut json": _bytes(lambda raw: raw[: len(raw) // 3]),
    "empty body": _bytes(lambda raw: b""),
    "html": lambda x: x.send(b"<html><body>Welcome to nginx</body></html>", Content_Type="text/html"),
    "array": lambda x: x.send([1, 2]),
    "null": lambda x: x.send(None),
    "deep": lambda x: x.send(b"[" * 100_000 + b"]" * 100_000),
    "not gzip": lambda x: x.send(b"not gzip at all", Content_Encoding="gzip"),
    "endless": _endless,
    "bomb": _bomb,
    "prose": _content(lambda x: "I cannot rank these items."),
    "echo": _content(_echo_candidates),
}

# nobody but the provider knows whether it was charged; here it was
BROKEN: dict[str, Callable[[Exchange], None]] = {
    "cut body": _cut_body,
    "cut chunks": _cut_chunks,
    "http/1.0 cut": _http10_cut,
    "reset": _reset,
    "drip": _drip,
}


# refusals, which cost nothing


def _error(status: int, message: str, **more: Any) -> Callable[[Exchange], None]:
    return lambda x: x.error(status, message, **more)


def _flat(status: int, content: Any) -> Callable[[Exchange], None]:
    return lambda x: x.send(content, status)


REFUSED: dict[str, Callable[[Exchange], None]] = {  # this request, always
    "400 openai": _error(400, "This model's maximum context length is 8192 tokens.",
                         code="context_length_exceeded"),
    "400 filter": _error(400, "The response was filtered", code="content_filter"),
    "400 vllm": _error(400, "This model's maximum context length is 4096 tokens.", type="BadRequestError",
                       code=400),
    "400 vllm flat": _flat(400, {"object": "error", "message": "maximum context length is 4096 tokens",
                                 "code": 400}),
    "400 llama.cpp": _error(400, "exceeds the available context size", type="exceed_context_size_error",
                            code=400),
    "400 deepseek": _error(400, "Content Exists Risk", type="invalid_request_error",
                           code="invalid_request_error"),
    "400 text": _flat(400, b"bad request"),
    "422": _flat(422, {"detail": [{"loc": ["body", "messages"], "msg": "too long", "type": "value_error"}]}),
    "413": _error(413, "Request entity too large"),
}  # fmt: skip

PASSING: dict[str, Callable[[Exchange], None]] = {  # better luck next time
    "429": _error(429, "slow down"),
    "429 wait": _error(429, "slow down", Retry_After="0.2"),
    "429 impossible date": _error(429, "slow down", Retry_After="Fri, 99 Foo 99999 99:99:99 GMT"),
    "429 date without a zone": _error(429, "slow down", Retry_After="Wed, 21 Oct 2015 07:28:00 -0000"),
    "429 far date": _error(429, "slow down", Retry_After="Fri, 31 Dec 99999999999 23:59:59 GMT"),
    "429 infinite": _error(429, "slow down", Retry_After="1e999"),
    "429 nan": _error(429, "slow down", Retry_After="nan"),
    "429 negative": _error(429, "slow down", Retry_After="-5"),
    "500": _error(500, "oops"),
    "502 html": _flat(502, b"<html><h1>502 Bad Gateway</h1></html>"),
    "503 empty": _flat(503, b""),
    "408": _error(408, "timeout"),
}

ENDING: dict[str, Callable[[Exchange], None]] = {  # no request can be answered
    "401": _error(401, "invalid key"),
    "402": _error(402, "Insufficient Balance"),
    "403 echo": lambda x: x.error(403, f"key {x.key} may not use this model"),
    "404": _error(404, "no such model"),
    "quota": _error(429, "you are broke", code="insufficient_quota"),
    "redirect": lambda x: x.error(307, "elsewhere", Location="/v1/chat/completions"),
}


def _has_system(body: Mapping[str, Any]) -> bool:
    return any(message["role"] == "system" for message in body["messages"])


def _no_system(x: Exchange) -> None:
    if _has_system(x.body):
        x.error(400, "System role not supported", type="BadRequestError", code=400)
    else:
        x.send(x.completion())


def _compressed(x: Exchange) -> None:
    x.send(gzip.compress(json.dumps(x.completion()).encode()), Content_Encoding="gzip")


OTHERS: dict[str, Callable[[Exchange], None]] = {
    "no system role": _no_system,  # paid where the request has none
    "500 echo": lambda x: x.error(500, f"key {x.key} made me fail"),
    "answer echo": _content(lambda x: f"Your key is {x.key}.\n{x.text}"),
    "gzip": _compressed,
}

FAULTS = {**GOOD_ANSWERS, **EMPTY_ANSWERS, **BROKEN, **REFUSED, **PASSING, **ENDING, **OTHERS}
PAID = {*GOOD_ANSWERS, *EMPTY_ANSWERS, *BROKEN, "answer echo", "gzip"}
