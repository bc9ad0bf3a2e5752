"""A service in a process of its own, without torch and RecBole as in the slim image,
and clients that speak HTTP by hand."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from process import ROOT, environment
from test_serving_alone import ALONE

from recbole_alkd.serving.items import write_items
from recbole_alkd.serving.manifest import STUDENT, write_bundle_folder
from recbole_alkd.tensors import write_tensors

MARKUP = '<img src=x onerror="window.hit=1"><b>&amp;'


def table_bundle(
    out: Path, seed: int = 0, n_items: int = 60, replace: bool = False, comparison: Any = None
) -> Path:
    """A random table; ids "1".."60" are digits, titles hold markup, and ``created`` names the seed."""
    rng = np.random.default_rng(seed)

    def fill(folder: Path) -> None:
        rows = [np.sort(rng.choice(np.arange(1, n_items + 1), 8, replace=False)) for _ in range(n_items)]
        starts = np.concatenate([[0, 0], np.arange(1, n_items + 1) * 8]).astype(np.int32)
        # few different ones, so that there are ties
        weights = (rng.integers(1, 6, 8 * n_items) / 8).astype(np.float16)
        recency = (0.5 ** np.arange(5)).astype(np.float32)
        table = {
            "indptr": starts,
            "indices": np.concatenate(rows).astype(np.int32),
            "weights": weights,
            "recency": recency,
        }
        write_tensors(folder / STUDENT, table)
        counts = np.concatenate([[0], rng.integers(0, 9, n_items)])
        titles = [f"The {k}. film {MARKUP if k % 7 == 0 else ''}".strip() for k in range(1, n_items + 1)]
        write_items(folder, [str(k) for k in range(1, n_items + 1)], titles, counts)

    student = {"kind": "table", "backbone": "SessionKNN", "items": n_items, "max_length": 20, "last_items": 5}
    content = {"created": f"seed {seed}", "student": student, "dataset": {"name": "films <b>"}}
    return write_bundle_folder(out, content | {"comparison": comparison}, fill, replace)


def named_table(out: Path, ids: list[str], titles: list[str] | None = None) -> Path:
    """A random table of items with these ids."""
    rng, count = np.random.default_rng(0), len(ids)

    def fill(folder: Path) -> None:
        rows = [np.sort(rng.choice(np.arange(1, count + 1), 3, replace=False)) for _ in ids]
        table = {
            "indptr": np.concatenate([[0, 0], np.arange(1, count + 1) * 3]).astype(np.int32),
            "indices": np.concatenate(rows).astype(np.int32),
            "weights": rng.random(3 * count).astype(np.float16),
            "recency": np.ones(3, dtype=np.float32),
        }
        write_tensors(folder / STUDENT, table)
        write_items(folder, ids, titles or ids, np.arange(count + 1))

    student = {"kind": "table", "backbone": "SessionKNN", "items": count, "max_length": 9, "last_items": 3}
    return write_bundle_folder(out, {"student": student, "dataset": {"name": "names"}}, fill)


class Server:
    """A running ``recbole-alkd serve``; ``lines`` are what it has printed until it was ready."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port

    def connect(self, timeout: float = 20) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def ask(self, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and answer of one request on a connection of its own."""
        with self.connect() as sock:
            sock.sendall(request(path, body, close=True))
            return answer(sock)

    def stop(self, number: int = signal.SIGTERM, timeout: float = 30) -> tuple[int, str]:
        """The exit code and what it said on stderr."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        _, said = self.process.communicate(timeout=timeout)
        return self.process.returncode, said

    def workers(self) -> list[int]:
        """The process ids of its workers (Linux)."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(one) for one in children]


def serving(bundle: Path, *words: str) -> contextlib.AbstractContextManager[Server]:
    return run_server(["serve", "--bundle", str(bundle), "--port", "0", *words], bundle.parent)


@contextlib.contextmanager
def run_server(command: list[str], cwd: Path, start: list[str] | None = None) -> Iterator[Server]:
    """A ``serve`` command in a process of its own. start: how it is started; as in the slim image without."""
    code = ALONE + f"from recbole_alkd.cli import main; main({command!r})"
    where = environment(PYTHONPATH="" if start else str(ROOT))
    process = subprocess.Popen(
        [*start, *command] if start else [sys.executable, "-c", code],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=where,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        port = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        if not port:
            raise AssertionError(f"it does not serve: {line}{process.communicate(timeout=30)}")
        yield Server(process, int(port[1]))
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def alone(
    words: list[str], cwd: Path, timeout: float = 60, before: str = ""
) -> subprocess.CompletedProcess[str]:
    """A command of the slim image; ``before`` is code that is run before it. Nothing is checked."""
    code = ALONE + f"{before}\nfrom recbole_alkd.cli import main; main({words!r})"
    how: dict[str, Any] = {
        "cwd": cwd,
        "capture_output": True,
        "text": True,
        "env": environment(PYTHONPATH=str(ROOT)),
    }
    return subprocess.run([sys.executable, "-c", code], timeout=timeout, **how)


def request(path: str, body: Any = None, close: bool = False) -> bytes:
    """A request as bytes: GET, or POST with a body (bytes as they are, anything else as JSON)."""
    end = "Connection: close\r\n" if close else ""
    if body is None:
        return f"GET {path} HTTP/1.1\r\nHost: here\r\n{end}\r\n".encode()
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return (
        f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(content)}\r\n{end}\r\n".encode()
        + content
    )


def answer(
    sock: socket.socket, rest: bytearray | None = None, heads: list[bytes] | None = None
) -> tuple[int, Any]:
    """The next answer on a connection: status and content, JSON read. rest: bytes that came too early, kept
    for the next call. heads: takes the head.

    ConnectionError where the server closed before a whole answer.
    """
    got = bytearray() if rest is None else rest
    while True:
        head, separator, body = bytes(got).partition(b"\r\n\r\n")
        if separator:
            length = re.search(rb"content-length: (\d+)", head)
            assert length, head
            if len(body) >= int(length[1]):
                content = body[: int(length[1])]
                del got[: len(head) + 4 + int(length[1])]
                if heads is not None:
                    heads.append(head)
                is_json = b"application/json" in head
                return int(head.split()[1]), json.loads(content) if is_json else content.decode()
        piece = sock.recv(1 << 16)
        if not piece:
            raise ConnectionError(f"closed after {len(got)} bytes")
        got += piece


def until(wanted: Any, seconds: float = 20) -> None:
    """Wait until ``wanted()`` is true."""
    end = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < end, "it does not come true"
        time.sleep(0.02)
