"""Several servers of one model: who is asked, what becomes of one that dies or hangs, and that they must have
the same model."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer
from process import environment
from test_api import make

from recbole_alkd.labelling.collect import Labelling, collect_labels
from recbole_alkd.labels import Budget, LabelStore
from recbole_alkd.llm import chat_client, servers
from recbole_alkd.llm.refusals import TryAgainError
from recbole_alkd.llm.server import listing_of
from recbole_alkd.llm.servers import Servers, check_same
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.reading import read_settings
from recbole_alkd.teacher.base import Instance, LLMTeacher
from recbole_alkd.testing.teachers import TITLES

pytest.importorskip("openai", reason="needs the extra `api`")
CHARGED = re.compile(r"may be charged; ([0-9,]+) tokens are counted")
NOBODY = "http://127.0.0.1:9/v1"

# a chat server in a process of its own; every request it gets, and every answer it has sent, is a line
PROCESS = """
import json, sys, threading
sys.path.insert(0, sys.argv[1])
from chat_server import ChatServer
log, lock = open(sys.argv[2], "a", buffering=1), threading.Lock()
class Logging(ChatServer):
    def answer(self, handler, number, body):
        asked = body["messages"][-1]["content"]
        with lock:
            log.write(json.dumps(["asked", asked]) + "\\n")
        super().answer(handler, number, body)
        with lock:
            log.write(json.dumps(["answered", asked]) + "\\n")
with Logging(lambda number, body: {"sleep": float(sys.argv[3])}) as server:
    server.models = lambda: [{"id": "priced"}]
    print(server.url, flush=True)
    sys.stdin.read()
"""


def label(
    teacher: LLMTeacher, store: LabelStore, number: int, budget: Budget | None = None
) -> Labelling:
    """Ask about ``number`` sessions, no two of them alike."""
    items = sorted(TITLES)
    asked = [
        Instance(row, f"s{row}", (items[row % 30], items[30 + row // 30]), tuple(items[32:52]))
        for row in range(number)
    ]
    try:
        return collect_labels(teacher, asked, store, budget or Budget(10**6), show_progress=False)
    finally:
        teacher.close()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_client, "FIRST_PAUSE", 0.01)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LabelStore]:
    with LabelStore(tmp_path / "labels.sqlite") as store:
        yield store


@contextlib.contextmanager
def process(folder: Path, name: str, seconds: float) -> Iterator[tuple[str, subprocess.Popen[str], Path]]:
    """(address, process, log) of a chat server that can be killed."""
    log = folder / f"{name}.log"
    server = subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(Path(__file__).parent), str(log), str(seconds)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip(), server, log
    finally:
        server.kill()
        server.wait()


def lines(log: Path, what: str) -> list[str]:
    if not log.exists():
        return []
    read = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("]")]
    return [asked for kind, asked in read if kind == what]


def test_a_server_that_is_killed_in_the_middle_loses_no_label_and_none_is_paid_twice(
    tmp_path: Path, store: LabelStore, caplog: pytest.LogCaptureFixture
) -> None:
    number, budget = 60, Budget(60, tokens=10**9)
    with process(tmp_path, "dies", 0.1) as dies, process(tmp_path, "lives", 0.1) as lives:
        teacher = make("", tmp_path, llm_base_url=[dies[0], lives[0]], llm_concurrency=6)
        killed = []

        class Killing(LabelStore):
            """Kills one server when a part of the answers is stored."""

            def put_many(self, labels: Any) -> int:
                stored = super().put_many(labels)
                if not killed and self.counts()["ok"] >= 20:
                    killed.append(dies[1].send_signal(signal.SIGKILL))
                return stored

        with caplog.at_level(logging.INFO), Killing(tmp_path / "killing.sqlite") as own:
            collected = label(teacher, own, number, budget)
            assert own.counts()["ok"] == number
    assert killed and len(collected.labels) == number and collected.bill.failed == 0
    assert collected.bill.asked == number
    before, after = lines(dies[2], "answered"), lines(lives[2], "answered")
    assert 0 < len(before) < number and len(after) < number  # both were at work
    assert max(Counter(after).values()) == 1
    # what both were asked about was on its way when one died: its answer may or may not have been sent
    assert len(set(lines(dies[2], "asked")) & set(after)) <= 6
    # and whatever may have been paid is counted: a request that broke off at its upper bound
    bounds = [int(match[1].replace(",", "")) for text in caplog.messages if (match := CHARGED.search(text))]
    answered = collected.bill.prompt_tokens + collected.bill.completion_tokens
    assert budget.spent.tokens == answered + sum(bounds)
    # nothing else was asked twice (one that had arrived may have died before the server wrote its line)
    twice = set(lines(dies[2], "asked")) & set(after)
    assert len(lines(dies[2], "asked")) + len(after) == number + len(twice)
    assert len(twice) <= len(bounds) <= 6
    assert sum("is left out" in text for text in caplog.messages) == 1


def test_requests_go_where_the_fewest_are_in_flight(tmp_path: Path, store: LabelStore) -> None:
    with ChatServer(lambda *_: {"sleep": 0.4}) as slow, ChatServer(lambda *_: {"sleep": 0.01}) as fast:
        label(make("", tmp_path, llm_base_url=[slow.url, fast.url], llm_concurrency=4), store, 24)
    assert len(slow.requests) + len(fast.requests) == 24
    assert 2 <= len(slow.requests) < len(fast.requests) and slow.most == 2


def test_a_server_that_was_never_there_is_left_out(
    tmp_path: Path, store: LabelStore, caplog: pytest.LogCaptureFixture
) -> None:
    with ChatServer() as server, caplog.at_level(logging.WARNING):
        server.models = lambda: [{"id": "priced"}]
        collected = label(make("", tmp_path, llm_base_url=[NOBODY, server.url]), store, 5)
    assert len(collected.labels) == len(server.requests) == 5
    (words,) = [text for text in caplog.messages if "left out" in text]
    assert NOBODY in words


def test_where_no_server_answers_all_are_named(tmp_path: Path, store: LabelStore) -> None:
    other = "http://127.0.0.1:7/v1"
    with pytest.raises(AlkdError, match=re.escape(f"{NOBODY} and {other} do not answer")):
        label(make("", tmp_path, llm_base_url=[NOBODY, other]), store, 3)


def test_retry_after_holds_back_one_server_alone(tmp_path: Path, store: LabelStore) -> None:
    busy = {"status": 429, "headers": {"Retry-After": "600"}}
    with ChatServer(lambda *_: busy) as one, ChatServer() as other:
        collected = label(
            make("", tmp_path, llm_base_url=[one.url, other.url], llm_concurrency=2), store, 12
        )
    assert len(collected.labels) == len(other.requests) == 12 and len(one.requests) <= 2


def test_a_server_that_fails_again_and_again_is_left_out(tmp_path: Path, store: LabelStore) -> None:
    with ChatServer(lambda *_: {"status": 500}) as sick, ChatServer(lambda *_: {"sleep": 0.02}) as well:
        collected = label(make("", tmp_path, llm_base_url=[sick.url, well.url]), store, 40)
    assert len(collected.labels) == len(well.requests) == 40
    assert len(sick.requests) <= servers.FAILURES + 8  # those that were in flight already


def test_servers_adapt_each_by_itself(tmp_path: Path, store: LabelStore) -> None:
    def old(number: int, body: dict[str, Any]) -> Any:
        if "max_tokens" in body:
            words = "use max_completion_tokens, not max_tokens"
            return {"status": 400, "body": {"error": {"message": words}}}
        return None

    with ChatServer(old) as one, ChatServer() as other:
        assert len(label(make("", tmp_path, llm_base_url=[one.url, other.url]), store, 16).labels) == 16
    assert all("max_tokens" in body for body in other.requests)
    assert one.requests and "max_completion_tokens" in one.requests[-1]


def test_servers_of_different_models_are_refused_before_anything_is_sent(
    tmp_path: Path, store: LabelStore
) -> None:
    with ChatServer() as one, ChatServer() as other:
        one.models, other.models = (lambda: [{"id": "priced"}]), (lambda: [{"id": "another"}])
        with pytest.raises(AlkdError, match="must have the same model, llm_model 'priced'"):
            label(make("", tmp_path, llm_base_url=[one.url, other.url]), store, 3)
        assert one.requests == other.requests == []


def test_servers_that_list_no_models_are_named(
    tmp_path: Path, store: LabelStore, caplog: pytest.LogCaptureFixture
) -> None:
    with ChatServer() as one, ChatServer() as other, caplog.at_level(logging.WARNING):
        label(make("", tmp_path, llm_base_url=[one.url, other.url]), store, 2)
    (words,) = [text for text in caplog.messages if "cannot be checked" in text]
    assert one.url in words and other.url in words


def test_one_server_is_neither_probed_nor_checked(tmp_path: Path, store: LabelStore) -> None:
    with ChatServer() as server:
        server.models = lambda: pytest.fail("it was asked for its models")  # type: ignore[return-value]
        assert len(label(make("", tmp_path, llm_base_url=[server.url]), store, 2).labels) == 2


MODEL = "m"
ANY = {"a.gguf": {"id": "a.gguf", "meta": {"n_params": 7, "n_vocab": 3}}}


@pytest.mark.parametrize(
    ("one", "other", "good"),
    [
        ({"m": {}}, {"m": {}, "n": {}}, True),
        ({"m": {}}, {"n": {}}, False),
        (ANY, ANY, True),  # servers that take any name
        (ANY, {"b.gguf": {}}, False),
        (ANY, {"a.gguf": {"meta": {"n_params": 8}}}, False),
        (ANY, {"a.gguf": {"meta": {"n_params": "many"}}}, True),
        (ANY, {"a.gguf": {"meta": None}}, True),
        ({"m": {"meta": {"size": 5}}}, {"m": {"meta": {"size": 6}}}, False),
    ],
)
def test_what_is_checked_of_two_servers(one: Any, other: Any, good: bool) -> None:
    if good:
        check_same(MODEL, "http://one", one, "http://other", other)
    else:
        with pytest.raises(AlkdError, match="http://one and http://other must have the same model"):
            check_same(MODEL, "http://one", one, "http://other", other)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b'{"data": [{"id": "m"}, {"id": 5}, "x"]}', ["m"]),
        (b'{"data": {}}', None),
        (b"<html>", None),
        (b"[1]", None),
        (b"\xff", None),
    ],
)
def test_lists_of_models_are_read_as_far_as_they_can_be(content: bytes, names: list[str] | None) -> None:
    listing = listing_of(content)
    assert (list(listing) if listing is not None else None) == names


class Made:
    """A server that answers health probes as it is told."""

    def __init__(self, url: str) -> None:
        self.url, self.flying, self.held_until, self.answered = url, 0, 0.0, True
        self.state: Any = {"m": {}}
        self.probed = 0

    async def listing(self, timeout: float) -> Any:
        self.probed += 1
        if isinstance(self.state, Exception):
            raise self.state
        return self.state

    async def close(self) -> None:
        pass


def test_a_server_that_misses_its_probes_is_left_out_until_it_answers_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(servers, "PROBE_EVERY", 0.01)
    one, other = Made("http://one"), Made("http://other")

    async def until(condition: Any) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)

    async def scenario() -> None:
        pool = Servers([one, other], "m")  # type: ignore[list-item]
        await pool.start()
        assert pool.best(0.0) is one
        one.state = ConnectionError("no answer within 5 s")
        await until(lambda: pool.best(0.0) is other)
        other.flying = 99  # it is not a matter of how busy they are
        assert pool.best(0.0) is other and not pool.others_are_in(other)
        one.state = {"another": {}}  # it is back, with another model
        probed = one.probed
        await until(lambda: one.probed > probed + 1)
        assert pool.best(0.0) is other
        one.state = {"m": {}}
        await until(lambda: pool.best(0.0) is one)
        await pool.close()

    with caplog.at_level(logging.INFO):
        asyncio.run(scenario())
    assert sum("http://one is left out" in text for text in caplog.messages) == 1
    assert sum("http://one is back" in text for text in caplog.messages) == 1


def test_where_all_are_left_out_they_are_still_asked() -> None:
    one, other = Made("http://one"), Made("http://other")
    pool = Servers([one, other], "m")  # type: ignore[list-item]
    for server in (one, other):
        pool.fared(server, TryAgainError("gone", charged=False, nobody_there=True))  # type: ignore[arg-type]
    assert pool.best(0.0) in (one, other) and not pool.others_are_in(one)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "a list of addresses with at least one"),
        (["http://a/v1", 5], "a list of addresses with at least one"),
        (["http://a/v1", "a"], "a list of addresses, each http:// or https:// with a host"),
        (["http://a/v1", "HTTP://a/v1/"], "a list of different addresses"),
    ],
)
def test_lists_that_are_no_servers_are_refused(value: Any, words: str) -> None:
    with pytest.raises(AlkdError, match=f"llm_base_url: .*{re.escape(words)}"):
        read_settings({"llm_base_url": value})


def test_a_key_in_one_of_several_addresses_is_not_shown() -> None:
    with pytest.raises(AlkdError, match="not shown") as raised:
        read_settings({"llm_base_url": ["nonsense", "http://u:sk-abcdefgh12345678@a/v1"]})
    assert "abcdefgh" not in str(raised.value)


def test_labels_are_known_by_the_model_and_not_by_who_answered(tmp_path: Path, store: LabelStore) -> None:
    with ChatServer() as one, ChatServer() as other:
        several = make("", tmp_path, llm_base_url=[one.url, other.url])
        alone = make(other, tmp_path)
        assert several.identity == alone.identity
        label(several, store, 4)
        asked = len(one.requests) + len(other.requests)
        again = label(alone, store, 4)
    assert again.bill.reused == 4 and len(one.requests) + len(other.requests) == asked == 4


