"""A chat server on 127.0.0.1 that answers as a script says: rankings, failures, nonsense.
Standard library only."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ChatServer:
    """``with ChatServer(script) as server``: ``script(number, body)`` gives what is done with request
    ``number`` (from 0).

    Actions: ``None`` (a ranking), text (an answer with that text), a dict with any of ``status``,
    ``headers``, ``body`` (bytes or JSON), ``sleep`` (seconds before), ``reset`` (the connection breaks),
    ``drip`` (seconds between bytes).

    Attributes:
        requests: the bodies that arrived, in order. keys: their Authorization headers.
            times: when they arrived.
        models: what ``GET /models`` lists, a function of nothing; None: it is not served.
        charged: tokens of every request that was, or may have been, answered.
            most: requests in flight at once.
    """

    def __init__(self, script: Callable[[int, dict[str, Any]], Any] = lambda number, body: None) -> None:
        self.script = script
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.times: list[float] = []
        self.models: Callable[[], list[dict[str, Any]]] | None = None
        self.charged, self.flying, self.most = 0, 0, 0
        self.lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server.lock:
                    number = len(server.requests)
                    server.requests.append(body)
                    server.keys.append(self.headers.get("Authorization"))
                    server.times.append(time.monotonic())
                    server.flying += 1
                    server.most = max(server.most, server.flying)
                try:
                    server.answer(self, number, body)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client had enough
                finally:
                    with server.lock:
                        server.flying -= 1

            def do_GET(self) -> None:
                models = server.models and server.models()
                content = json.dumps({"object": "list", "data": models}).encode()
                self.send_response(404 if models is None else 200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def answer(self, handler: BaseHTTPRequestHandler, number: int, body: dict[str, Any]) -> None:
        action = self.script(number, body)
        action = action if isinstance(action, dict) else {"text": action}
        time.sleep(action.get("sleep", 0.0))
        status = action.get("status", 200)
        content = action.get("body")
        if content is None:
            content = (
                completion(body, action.get("text"), **action.get("usage", {}))
                if status == 200
                else {"error": {"message": "no"}}
            )
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        if status == 200:
            with self.lock:
                self.charged += tokens_of(body, action.get("text"))
        if action.get("reset"):
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.close_connection = True
            return
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(raw)))
        for name, value in action.get("headers", {}).items():
            handler.send_header(name, value)
        handler.end_headers()
        if "drip" in action:
            for byte in raw:
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()
                time.sleep(action["drip"])
        else:
            handler.wfile.write(raw)

    def __enter__(self) -> ChatServer:
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # or connections that come at once are dropped, and come again a second later


def ranking(body: dict[str, Any]) -> str:
    """The answer of a server that works: the candidates of the prompt by their ids."""
    prompt = next(message["content"] for message in body["messages"] if message["role"] == "user")
    shown = re.findall(r"<ID([^>]+)>", prompt[prompt.index("Candidates") :])
    return "[" + ", ".join(f"<ID{token}>" for token in sorted(shown, reverse=True)[:25]) + "]"


def _counts(body: dict[str, Any], text: str | None) -> tuple[int, int]:
    prompt = sum(len(message["content"]) for message in body["messages"]) // 4
    return prompt, min(
        len(ranking(body) if text is None else text) // 2,
        body.get("max_tokens") or body["max_completion_tokens"],
    )


def tokens_of(body: dict[str, Any], text: str | None) -> int:
    return sum(_counts(body, text))


def completion(body: dict[str, Any], text: str | None = None, **usage: Any) -> dict[str, Any]:
    """The JSON of a chat completion."""
    prompt, written = _counts(body, text)
    message = {"role": "assistant", "content": ranking(body) if text is None else text}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
            **usage,
        },
    }
