"""The API teacher against a server that misbehaves: what was paid is stored, and one bad answer ends nothing.

The server's own counts are what a provider would charge.
"""

import asyncio
import gzip
import json
import logging
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_server import (
    EMPTY_ANSWERS,
    GOOD_ANSWERS,
    PASSING,
    REFUSED,
    FaultServer,
    answer_text,
    for_some_prompts,
    question_of,
    sometimes,
)
from test_api import HINTED, hint_supplies, label, make, many

from recbole_alkd.labelling.collect import collect_labels, keys_of
from recbole_alkd.labels import Budget, LabelStore
from recbole_alkd.labels.hints import Hints, all_hints, put_hints
from recbole_alkd.llm import body_limit, chat_client
from recbole_alkd.llm.refusals import retry_after
from recbole_alkd.llm.replies import NoAnswerError, read_content
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.teacher.answers import parse
from recbole_alkd.testing.teachers import TITLES, some_instances

openai = pytest.importorskip("openai", reason="needs the extra `api`")
KEY = "gsk_AbCdEf0123456789AbCdEf0123456789"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_client, "FIRST_PAUSE", 0.01)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LabelStore]:
    with LabelStore(tmp_path / "labels.sqlite") as store:
        yield store


@pytest.mark.parametrize("fault", [*GOOD_ANSWERS, "gzip"])
def test_a_ranking_is_kept_whatever_stands_around_it(tmp_path: Path, store: LabelStore, fault: str) -> None:
    budget = Budget(9, tokens=10**6, usd=10.0)
    with FaultServer(fault) as server:
        teacher = make(server, tmp_path)
        bound, most = teacher.estimate(some_instances(1)[0])
        collected = label(teacher, store, 1, budget)
    kept = collected.labels[100]
    assert kept.ranking == tuple(sorted(some_instances(1)[0].candidates, reverse=True)[:7])
    assert server.paid_requests == 1 and "asked_again" not in kept.repairs
    assert server.paid_tokens <= budget.spent.tokens == kept.prompt_tokens + kept.completion_tokens <= bound
    assert 0 < kept.usd <= most and budget.spent.usd == pytest.approx(kept.usd)
    if fault.startswith("usage") and fault not in ("usage negative", "usage fraction"):
        assert budget.spent.tokens == bound  # unknown counts: never less than it may have been


@pytest.mark.parametrize("fault", [name for name in EMPTY_ANSWERS if name not in ("html", "endless", "bomb")])
def test_an_empty_answer_that_was_paid_for_is_a_failed_label(
    tmp_path: Path, store: LabelStore, fault: str
) -> None:
    budget = Budget(9, tokens=10**6)
    with FaultServer(fault) as server:
        collected = label(make(server, tmp_path, llm_concurrency=2), store, 4, budget)
        assert server.paid_requests == 8  # asked for once more, and not again
        assert (
            store.counts() == {"ok": 0, "failed": 4}
            and collected.bill.failed == 4
            and collected.missing == ()
        )
        assert (
            server.paid_tokens
            <= budget.spent.tokens
            == collected.bill.prompt_tokens + collected.bill.completion_tokens
        )
        again = label(make(server, tmp_path), store, 4)
        assert server.paid_requests == 8 and again.bill.asked == 0
    assert fault == "content null" or all(one.raw.strip() for one in store)  # what came is kept


@pytest.mark.parametrize("fault", ["endless", "bomb"])
def test_a_body_without_end_is_a_failed_label(
    tmp_path: Path, store: LabelStore, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_limit, "MOST_BYTES", 2**20)
    with FaultServer(fault) as server:
        collected = label(make(server, tmp_path, llm_timeout=60), store)
    assert collected.bill.failed == 1 and len(store) == 1 and server.paid_requests == 2
    assert len(next(iter(store)).raw) < 10_000


class Stream:
    def __init__(self, chunks: list[bytes]) -> None:
        self.chunks, self.taken = chunks, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            self.taken += 1
            yield chunk


async def _read(chunks: list[bytes], most: int, packed: bool) -> tuple[list[bytes], int]:
    stream = Stream(chunks)
    limited = body_limit._limited(object)(stream, packed, most)
    return [part async for part in limited], stream.taken


@pytest.mark.parametrize("how", ["gzip", "deflate", "plain"])
def test_the_limit_counts_unpacked_bytes(how: str) -> None:
    text = bytes(2**24)
    raw = {"gzip": gzip.compress(text), "deflate": zlib.compress(text), "plain": text}[how]
    chunks = [raw[i : i + 1000] for i in range(0, len(raw), 1000)]
    parts, taken = asyncio.run(_read(chunks, 10**6, how != "plain"))
    assert len(b"".join(parts)) == 10**6 and max(map(len, parts)) <= 2**16
    assert taken <= len(chunks) // 8  # the rest is not even received
    parts, _ = asyncio.run(_read(chunks, 10**9, how != "plain"))
    assert b"".join(parts) == text
    assert b"".join(asyncio.run(_read([b"no ", b"gzip"], 99, True))[0]) == b"no gzip"
    two = gzip.compress(b"one ") + gzip.compress(b"two")
    assert b"".join(asyncio.run(_read([two[:9], two[9:]], 99, True))[0]) == b"one two"


def test_web_pages_are_no_answers(tmp_path: Path, store: LabelStore) -> None:
    with (
        FaultServer("html") as server,
        pytest.raises(AlkdError, match=r"does not answer .* a web page instead of an answer"),
    ):
        label(make(server, tmp_path, llm_concurrency=2), store, 20)
    assert len(store) == 0 and server.requests and len(server.requests) <= 9


# refusals


@pytest.mark.parametrize("fault", REFUSED)
@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_refusal_is_that_requests_alone(
    tmp_path: Path, store: LabelStore, fault: str, concurrency: int
) -> None:
    bad = some_instances(6)[0]  # the first that is asked, before any answer

    def plan(number: int, body: dict) -> Any:
        return (
            fault if TITLES[bad.history[0]] in body["messages"][1]["content"].split("Candidates")[0] else None
        )

    with FaultServer(plan) as server:
        collected = label(make(server, tmp_path, llm_concurrency=concurrency), store, 6)
        assert len(collected.labels) == 5 and store.counts() == {"ok": 5, "failed": 1}
        assert len(server.requests) == 6 and server.paid_twice == 0
        again = label(make(server, tmp_path, llm_concurrency=concurrency), store, 6)
        assert again.bill.asked == 0 and len(server.requests) == 6


@pytest.mark.parametrize("fault", ["400 text", "422", "400 deepseek"])
def test_the_last_one_missing_may_be_the_one_that_is_refused(
    tmp_path: Path, store: LabelStore, fault: str
) -> None:
    with FaultServer() as server:
        label(make(server, tmp_path), store, 3)
    with FaultServer(fault) as server:
        collected = label(make(server, tmp_path), store, 4)
        assert len(collected.labels) == 3 and store.counts() == {"ok": 3, "failed": 1}
    with LabelStore(tmp_path / "new") as other, FaultServer("400 text") as server:
        # nothing was ever answered
        with pytest.raises(AlkdError, match=r"refuses requests to the model 'priced': 400: "):
            label(make(server, tmp_path), other)
        assert len(other) == 0


@pytest.mark.parametrize("fault", REFUSED)
def test_refusals_in_a_row_end_it(tmp_path: Path, store: LabelStore, fault: str) -> None:
    with (
        FaultServer(fault) as server,
        pytest.raises(AlkdError, match=r"refuses requests to the model 'priced', 1\d requests in a row"),
    ):
        collect_labels(
            make(server, tmp_path, llm_concurrency=4), many(200), store, Budget(999), show_progress=False
        )
    assert chat_client.REFUSED <= len(server.requests) <= chat_client.REFUSED + 4
    assert len(store) == 0  # the next run, with other settings, asks them again


def test_many_refusals_beside_slow_answers_end_nothing(tmp_path: Path, store: LabelStore) -> None:
    plan = for_some_prompts(["400 vllm", "400 llama.cpp", "422"], 0.6)

    def text(body: dict) -> str:
        time.sleep(0.3 if plan(0, body) is None else 0.0)
        return answer_text(body)

    with FaultServer(plan, text=text) as server:
        collected = collect_labels(
            make(server, tmp_path, llm_concurrency=8), many(60), store, Budget(99), show_progress=False
        )
    assert len(collected.labels) + collected.bill.failed == 60 and collected.missing == ()
    assert store.counts()["ok"] == server.paid_requests > 5


def test_403_is_one_requests_once_others_are_answered(tmp_path: Path, store: LabelStore) -> None:
    with FaultServer(lambda number, body: "403 echo" if number == 2 else None) as server:
        collected = label(make(server, tmp_path, llm_concurrency=1), store, 4)
    assert len(collected.labels) == 3 and store.counts()["failed"] == 1
    with (
        FaultServer("403 echo") as server,
        LabelStore(tmp_path / "2") as other,
        pytest.raises(AlkdError, match=r"\(403\)"),
    ):
        label(make(server, tmp_path, llm_concurrency=1), other, 4)
    assert len(server.requests) == 1


@pytest.mark.parametrize("fault", ["401", "402", "404", "quota"])
def test_what_holds_for_every_request_ends_it_and_keeps_the_rest(
    tmp_path: Path, store: LabelStore, fault: str
) -> None:
    with FaultServer(lambda number, body: fault if number >= 3 else None) as server, pytest.raises(AlkdError):
        label(make(server, tmp_path, llm_concurrency=1), store, 8)
    assert len(store) == server.paid_requests == 3 and len(server.requests) == 4


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_tried_again(tmp_path: Path, store: LabelStore, fault: str) -> None:
    with FaultServer(lambda number, body: fault if number < 2 else None) as server:
        collected = label(make(server, tmp_path), store)
    assert len(collected.labels) == 1 and len(server.requests) == 3 and server.paid_requests == 1


def test_a_server_that_cannot_be_trusted_for_a_while(tmp_path: Path, store: LabelStore) -> None:
    """Everything at once: nothing is paid twice without its first answer being counted,
    and all that was paid is known."""
    faults = [
        *GOOD_ANSWERS,
        *EMPTY_ANSWERS,
        *REFUSED,
        "500",
        "502 html",
        "429",
        "cut body",
        "cut chunks",
        "reset",
        "http/1.0 cut",
    ]
    faults = [name for name in faults if name not in ("endless", "bomb", "html")]
    budget = Budget(999, tokens=10**7)
    with FaultServer(sometimes(faults, 0.5)) as server:
        collected = collect_labels(
            make(server, tmp_path, llm_concurrency=8), many(120), store, budget, show_progress=False
        )
        paid = set(server.paid)
        assert server.paid_tokens <= budget.spent.tokens
        assert len(store) + len(collected.missing) == 120 and len(collected.labels) > 90
        teacher = make(server, tmp_path)
        stored = {one.key for one in store}
        for key, instance in zip(keys_of(teacher, many(120)), many(120), strict=True):
            question = question_of({"messages": [dict(m) for m in teacher.messages(instance)]})
            assert question not in paid or key in stored or instance.row in collected.missing


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2", 2), ("0.5", 0.5), ("1e999", None), ("nan", None), ("-3", None), ("0", None), ("99999999", 900),
        ("", None),
        ("Fri, 99 Foo 99999 99:99:99 GMT", None), ("Fri, 31 Dec 99999999999 23:59:59 GMT", None),
        ("soon", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", None), ("\x00", None),
    ],
)  # fmt: skip
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": value}) == seconds


def test_a_model_without_a_system_role(tmp_path: Path, store: LabelStore) -> None:
    with FaultServer("no system role") as server:
        teacher = make(server, tmp_path, llm_concurrency=2)
        before = teacher.prompt(some_instances(1)[0])
        collected = label(teacher, store, 6)
    assert len(collected.labels) == 6 and server.paid_twice == 0 and len(server.requests) <= 6 + 2
    (message,) = server.requests[-1]["messages"]
    texts = {m["messages"][0]["content"] for m in server.requests if len(m["messages"]) == 1}
    assert message["role"] == "user" and before in texts  # the same words, so the label's key is the same


# text that no encoder takes, and readers that fail


def test_half_a_surrogate_pair_in_an_unusable_answer(tmp_path: Path, store: LabelStore) -> None:
    with FaultServer(text=lambda body: "\ud83d no idea \udc00") as server:
        collected = label(make(server, tmp_path), store, 3)
        assert server.paid_requests == 6 and store.counts()["failed"] == 3 and collected.missing == ()
        label(make(server, tmp_path), store, 3)
        assert server.paid_requests == 6
    assert server.requests[-1]["messages"][2]["content"] == "\ufffd no idea \ufffd"


def test_half_a_surrogate_pair_in_hints(tmp_path: Path, store: LabelStore) -> None:
    def text(body: dict) -> str:
        return answer_text(body).replace("follows", "\ud83d follows")

    calls: list[int] = []
    with FaultServer(text=text) as server:
        teacher, supplies = make(server, tmp_path, HINTED), hint_supplies(calls)
        assert len(label(teacher, store, 3, supplies=supplies).labels) == 3
        assert "belongs together \ufffd follows" in server.requests[1]["messages"][1]["content"]
        (hints,) = all_hints(store)
        # hints that an earlier release has stored as they came
        with LabelStore(tmp_path / "old") as other:
            put_hints(other, Hints(hints.key, ("\ud83d rule",), raw="\ud83d rule"))
            assert len(label(make(server, tmp_path, HINTED), other, 3, supplies=supplies).labels) == 3
        assert "1. \ufffd rule" in server.requests[-1]["messages"][1]["content"]


def test_a_reader_that_fails_makes_a_failed_label(
    tmp_path: Path, store: LabelStore, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RecursionError("too deep")

    monkeypatch.setattr(parse, "parse_ranking", broken)
    with FaultServer() as server:
        collected = label(make(server, tmp_path), store, 2)
        assert server.paid_requests == 4 and store.counts()["failed"] == 2 and collected.bill.failed == 2
    assert "RecursionError: too deep" in caplog.text
    assert all(one.raw.startswith("[<ID") for one in store)  # for a better reader


def test_hints_that_cannot_be_read_are_paid_once(tmp_path: Path, store: LabelStore) -> None:
    with FaultServer(lambda number, body: "choices empty" if number == 0 else None) as server:
        assert len(label(make(server, tmp_path, HINTED), store, 2, supplies=hint_supplies([])).labels) == 2
        (hints,) = all_hints(store)
        assert hints.rules == () and json.loads(hints.raw)["choices"] == [] and hints.prompt_tokens > 0
        paid = server.paid_requests
        label(make(server, tmp_path, HINTED), store, 3, supplies=hint_supplies([]))
        assert server.paid_requests == paid + 1


def test_contents() -> None:
    def whole(**message: Any) -> bytes:
        return json.dumps({"choices": [{"message": message}]}).encode()

    assert read_content(whole(content="a")).text == "a"
    assert (
        read_content(
            whole(content=[{"type": "thinking", "text": "no"}, {"type": "text", "text": "a"}, "b"])
        ).text
        == "ab"
    )
    assert read_content(whole(content=None, reasoning_content="[1, 2]")).text == ""  # thinking is no answer
    assert (
        read_content(whole(content="", tool_calls=[{"function": {"arguments": '{"ranking": [1]}'}}])).text
        == '{"ranking": [1]}'
    )
    assert read_content(b'{"choices": [{"text": "old form"}]}').text == "old form"
    # a line end inside a string
    assert read_content(b'{"choices": [{"message": {"content": "a\nb"}}]}').text == "a\nb"
    assert not read_content(b"{").readable and not read_content(b"").readable
    stream = (
        b': hello\n\ndata: {"choices": [{"delta": {"content": "a"}}]}\n\ndata: {"choices": [{"delta": '
        b'{"content": "b"}}]}\n\n'
    )
    assert read_content(stream + b"data: [DONE]").text == "ab"
    for nothing in (
        b"<!doctype html>",
        b'{"error": {"message": "busy"}}',
        b'{"error": "busy", "choices": null}',
    ):
        with pytest.raises(NoAnswerError):
            read_content(nothing)


# the key


@pytest.mark.parametrize("fault", ["403 echo", "500 echo", "answer echo"])
def test_a_key_that_the_server_repeats_is_struck_out(
    tmp_path: Path, store: LabelStore, fault: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    shown = ""
    with FaultServer(fault) as server, caplog.at_level(logging.DEBUG):
        try:
            collected = label(make(server, tmp_path, llm_api_key_env="MY_KEY"), store, 2)
            shown = repr(collected)
            assert len(collected.labels) == 2
        except AlkdError as error:
            shown = str(error)
        assert server.keys[0] == f"Bearer {KEY}"
    everything = shown + caplog.text + "".join(one.raw for one in store)
    assert "[API key]" in everything and KEY[:16] not in everything and KEY[16:] not in everything
    store.close()
    assert all(KEY.encode() not in file.read_bytes() for file in tmp_path.glob("labels.sqlite*"))
