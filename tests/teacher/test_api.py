"""The API teacher against a scripted server: every failure, the pace, the bill,
and limits with 32 requests in flight."""

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, completion

from recbole_alkd.labelling.collect import Labelling, collect_labels, prepare
from recbole_alkd.labelling.supplies import Supplies
from recbole_alkd.labels import Budget, LabelStore
from recbole_alkd.llm import chat_client
from recbole_alkd.registry import teachers
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.reading import read_settings
from recbole_alkd.teacher.base import Instance, LLMTeacher, TeacherContext
from recbole_alkd.testing.teachers import TITLES, TeacherTests, some_instances

openai = pytest.importorskip("openai", reason="needs the extra `api`")
PRICES = "batch: 0.5\nmodels:\n  priced: {input: 10.0, output: 30.0, cached_input: 1.0}\n"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_client, "FIRST_PAUSE", 0.01)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LabelStore]:
    with LabelStore(tmp_path / "labels.sqlite") as store:
        yield store


def make(
    server: ChatServer | str, tmp_path: Path, own: dict[str, Any] | None = None, **values: Any
) -> LLMTeacher:
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "prices.yaml").write_text(PRICES)
    url = server if isinstance(server, str) else server.url
    settings = read_settings(
        {
            "llm_teacher": "api",
            "llm_model": "priced",
            "llm_base_url": url,
            "llm_price_file": str(tmp_path / "prices.yaml"),
            "llm_timeout": 5,
            "llm_top_n": 7,
            **values,
        }
    )
    fields = {"titles": TITLES, "cache": tmp_path / "cache", **(own or {})}
    return teachers.get("api")(TeacherContext(settings, "ml-tiny", tmp_path, **fields))


def label(
    teacher: LLMTeacher, store: LabelStore, number: int = 1, budget: Budget | None = None, **more: Any
) -> Labelling:
    try:
        return collect_labels(
            teacher, some_instances(number), store, budget or Budget(10**6), show_progress=False, **more
        )
    finally:
        teacher.close()


class TestApi(TeacherTests):
    teacher = "api"

    @pytest.fixture(autouse=True)
    def _server(self) -> Iterator[None]:
        with ChatServer() as self.server:
            yield

    def make(self, folder: Path, **values: Any) -> LLMTeacher:
        return make(self.server, folder, {"titles": self.titles}, **values)

    def test_what_is_sent(self, tmp_path: Path, store: LabelStore) -> None:
        teacher = self.make(tmp_path)
        collected = label(teacher, store)
        (body,) = self.server.requests
        instance = some_instances(1)[0]
        assert body["model"] == "priced" and body["temperature"] == 0
        assert [message["role"] for message in body["messages"]] == ["system", "user"]
        assert "\n\n".join(message["content"] for message in body["messages"]) == teacher.prompt(instance)
        assert self.server.keys == ["Bearer none"]  # no key for a server that is not OpenAI's
        label_ = collected.labels[100]
        assert label_.ranking == tuple(sorted(instance.candidates, reverse=True)[:7])
        assert label_.usd == pytest.approx((label_.prompt_tokens * 10 + label_.completion_tokens * 30) / 1e6)
        assert collected.bill.usd == label_.usd and collected.bill.prompt_tokens == label_.prompt_tokens > 100

    def test_the_servers_address_is_no_part_of_the_identity(self, tmp_path: Path) -> None:
        assert (
            self.make(tmp_path).identity == self.make(tmp_path, llm_base_url="http://127.0.0.1:9/v1").identity
        )
        assert self.make(tmp_path).identity != self.make(tmp_path, llm_model="another").identity


RETRIED = {
    "429 with Retry-After": {"status": 429, "headers": {"Retry-After": "0.2"}},
    "429 with Retry-After in ms": {"status": 429, "headers": {"Retry-After-Ms": "50"}},
    "429": {"status": 429},
    "500": {"status": 500},
    "503, not JSON": {"status": 503, "body": b"<html>busy</html>"},
    "reset": {"reset": True},
    "a web page": {"body": b"<html>welcome</html>"},
    "an error with status 200": {"body": {"error": {"message": "overloaded"}}},
    "slow": {"sleep": 0.6},
    "dripping": {"drip": 0.05},
}


@pytest.mark.parametrize("problem", RETRIED)
def test_problems_that_pass_are_tried_again(tmp_path: Path, store: LabelStore, problem: str) -> None:
    with ChatServer(lambda number, body: RETRIED[problem] if number < 2 else None) as server:
        collected = label(make(server, tmp_path, llm_timeout=0.3), store)
    assert len(collected.labels) == 1 and collected.bill.failed == 0
    assert len(server.requests) == 3  # one layer of retries, not two
    assert collected.bill.asked == 1


def test_retry_after_holds_back_every_request(tmp_path: Path, store: LabelStore) -> None:
    slow_down = {"status": 429, "headers": {"Retry-After": "0.5"}}
    with ChatServer(lambda number, body: slow_down if number == 0 else {"sleep": 0.05}) as server:
        collected = label(make(server, tmp_path, llm_concurrency=1), store, 3)
    assert len(collected.labels) == 3
    assert server.times[1] - server.times[0] >= 0.5
    when = time.time() + 1.5  # as a date, which has whole seconds
    date = {
        "status": 429,
        "headers": {"Retry-After": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(when))},
    }
    with (
        ChatServer(lambda number, body: date if number == 0 else None) as server,
        LabelStore(tmp_path / "other") as other,
    ):
        label(make(server, tmp_path), other)
    # the date itself counts, however late the first request was; server.times is of the monotonic clock
    arrived = server.times[1] + time.time() - time.monotonic()
    assert int(when) - 0.01 <= arrived <= when + 5


def test_requests_per_minute(tmp_path: Path, store: LabelStore) -> None:
    with ChatServer() as server:
        label(make(server, tmp_path, llm_requests_per_minute=600, llm_concurrency=6), store, 6)
    assert server.times[-1] - server.times[0] > 0.35  # five steps of 0.1 s, less what the first one came late


def test_requests_run_side_by_side(tmp_path: Path, store: LabelStore) -> None:
    with ChatServer(lambda number, body: {"sleep": 0.2}) as server:
        label(make(server, tmp_path, llm_concurrency=5), store, 12)
    assert server.most == 5


def test_a_request_that_never_works_is_left_to_the_next_run(
    tmp_path: Path, store: LabelStore, caplog: Any
) -> None:
    bad = some_instances(3)[1]

    def script(number: int, body: dict) -> Any:
        return (
            {"status": 500}
            if TITLES[bad.history[0]] in body["messages"][1]["content"].split("Candidates")[0]
            else None
        )

    with ChatServer(script) as server, caplog.at_level(logging.WARNING):
        collected = label(make(server, tmp_path, llm_concurrency=1), store, 3)
    assert collected.missing == (bad.row,) and list(collected.labels) == [100, 102]
    assert len(server.requests) == 2 + chat_client.TRIES
    assert len(store) == 2 and collected.bill.failed == 1
    assert "session s1: no label: 500" in caplog.text


@pytest.mark.parametrize(
    ("action", "tries"), [({"status": 500}, chat_client.TRIES), ({"reset": True}, chat_client.CHARGED_TRIES)]
)
def test_a_dead_server_ends_it(tmp_path: Path, store: LabelStore, action: dict, tries: int) -> None:
    with (
        ChatServer(lambda number, body: action) as server,
        pytest.raises(AlkdError, match=rf"does not answer \({tries} tries\)"),
    ):
        label(make(server, tmp_path, llm_concurrency=2), store, 6)
    # after the first that is given up, every other request gets one try
    assert len(server.requests) <= 2 * tries + chat_client.DEAD
    with pytest.raises(AlkdError, match=r"llm_base_url: http://127\.0\.0\.1:9/v1 does not answer"):
        label(make("http://127.0.0.1:9/v1", tmp_path), store)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (
            {"status": 401, "body": {"error": {"message": "Incorrect API key provided: sk-ab***cd"}}},
            "does not accept the key",
        ),
        (
            {"status": 404, "body": {"error": {"message": "no such model"}}},
            "refuses requests to the model 'priced' (404): no such model",
        ),
        (
            {"status": 429, "body": {"error": {"message": "you are broke", "code": "insufficient_quota"}}},
            "(429): you are broke",
        ),
        ({"status": 400, "body": {"error": {"message": "Model Not Exist"}}}, "(400): Model Not Exist"),
        (
            {"status": 402, "body": {"error": {"message": "Insufficient Balance"}}},
            "(402): Insufficient Balance",
        ),
    ],
)
def test_what_no_retry_can_mend_ends_it_and_keeps_the_rest(
    tmp_path: Path, store: LabelStore, action: dict, words: str
) -> None:
    with (
        ChatServer(lambda number, body: action if number == 2 else {"sleep": 0.1}) as server,
        pytest.raises(AlkdError) as error,
    ):
        label(make(server, tmp_path, llm_concurrency=3), store, 20)
    assert words in str(error.value) and "sk-" not in str(error.value)
    assert len(server.requests) <= 5
    assert len(store) == len(server.requests) - 1  # what was on its way is kept


@pytest.mark.parametrize("code", ["context_length_exceeded", "content_filter"])
def test_a_request_that_is_refused_is_a_failed_label(tmp_path: Path, store: LabelStore, code: str) -> None:
    refused = {"status": 400, "body": {"error": {"message": "too long", "code": code}}}
    with ChatServer(lambda number, body: refused if number == 0 else None) as server:
        collected = label(make(server, tmp_path, llm_concurrency=1), store, 3)
    assert len(server.requests) == 3 and len(collected.labels) == 2 and collected.bill.failed == 1
    assert store.counts() == {"ok": 2, "failed": 1}


def test_fields_that_a_server_does_not_take(tmp_path: Path, store: LabelStore, caplog: Any) -> None:
    def script(number: int, body: dict) -> Any:
        for field, words in [
            ("max_tokens", "use 'max_completion_tokens' instead"),
            ("temperature", "only 1 is supported"),
        ]:
            if field in body:
                return {
                    "status": 400,
                    "body": {"error": {"message": f"Unsupported: '{field}': {words}", "param": field}},
                }
        return None

    with ChatServer(script) as server:
        collected = label(make(server, tmp_path, llm_concurrency=4), store, 8)
    assert len(collected.labels) == 8
    assert len(server.requests) <= 8 + 2 * 4  # found out once, by those that were in flight
    assert "max_completion_tokens" in server.requests[-1]
    assert "takes no temperature" in caplog.text


UNUSABLE = ["I cannot help with that.", "", "<think>hm, <ID1>", "[<ID999>]", "lorem " * 1_700_000]


@pytest.mark.parametrize("text", UNUSABLE, ids=lambda text: text[:12])
def test_unusable_answers_are_asked_for_once_more(tmp_path: Path, store: LabelStore, text: str) -> None:
    with ChatServer(lambda number, body: text if number == 0 else None) as server:
        collected = label(make(server, tmp_path), store)
    first, second = server.requests
    assert second["messages"][:2] == first["messages"]
    assert [message["role"] for message in second["messages"][2:]] == ["assistant", "user"]
    assert "names none of the candidates" in second["messages"][3]["content"]
    kept = collected.labels[100]
    assert kept.repairs["asked_again"] == 1 and collected.bill.repaired == 1
    assert kept.raw.startswith(text[:1000]) and kept.raw.endswith("]") and len(kept.raw) < 300_000
    assert kept.prompt_tokens + kept.completion_tokens == server.charged  # both are paid for


def test_twice_unusable_is_a_failed_label(tmp_path: Path, store: LabelStore) -> None:
    with ChatServer(lambda number, body: f"no {number}") as server:
        collected = label(make(server, tmp_path), store)
        assert len(server.requests) == 2
        again = label(make(server, tmp_path), store)  # and final
        assert len(server.requests) == 2
    assert collected.labels == {} and collected.bill.failed == again.bill.failed == 1
    assert next(iter(store)).raw == "no 0\n\n=== asked again ===\n\nno 1"


def test_ten_megabytes_are_read(tmp_path: Path, store: LabelStore) -> None:
    text = "lorem ipsum " * 850_000
    with ChatServer(
        lambda number, body: text + completion(body)["choices"][0]["message"]["content"]
    ) as server:
        collected = label(make(server, tmp_path, llm_timeout=60), store)
    assert len(collected.labels[100].ranking) == 7
    assert len(server.requests) == 1


def test_parts_and_missing_usage(tmp_path: Path, store: LabelStore) -> None:
    def script(number: int, body: dict) -> Any:
        answer = completion(body)
        message = answer["choices"][0]["message"]
        message["content"] = [
            {"type": "text", "text": part} for part in (message["content"][:9], message["content"][9:])
        ]
        del answer["usage"]
        return {"body": answer}

    with ChatServer(script) as server:
        teacher = make(server, tmp_path)
        bound, usd = teacher.estimate(some_instances(1)[0])
        collected = label(teacher, store)
    assert len(collected.labels) == 1
    # never less than it may have been
    assert collected.bill.prompt_tokens + collected.bill.completion_tokens == bound
    assert collected.bill.usd == pytest.approx(usd)


def test_cached_tokens_are_cheaper(tmp_path: Path, store: LabelStore) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 800}}
    with ChatServer(lambda number, body: {"usage": usage}) as server:
        collected = label(make(server, tmp_path), store)
    assert collected.bill.usd == pytest.approx((200 * 10 + 800 * 1 + 100 * 30) / 1e6)


# limits


def many(number: int) -> list[Instance]:
    candidates = tuple(sorted(TITLES))[:20]
    return [Instance(row, f"s{row}", (f"{row % 40}A",), candidates) for row in range(number)]


@pytest.mark.parametrize("limit", ["labels", "tokens", "usd"])
def test_32_in_flight_never_pass_a_limit(tmp_path: Path, store: LabelStore, limit: str) -> None:
    many_there = threading.Event()  # however slow the machine is, the first ones wait for each other

    def script(number: int, body: dict) -> Any:
        if server.flying > 20:
            many_there.set()
        many_there.wait(60)
        troubles = {
            3: {"status": 500},
            7: {"reset": True},
            11: "nonsense",
            13: {"status": 429, "headers": {"Retry-After": "0.05"}},
        }
        troubles |= {17: {"body": b"{"}, 19: {"sleep": 0.2, "reset": True}}
        return troubles.get(number % 23, {"sleep": 0.05 + 0.01 * (number % 5)})

    limits = {
        "labels": {"labels": 90},
        "tokens": {"labels": 999, "tokens": 60_000},
        "usd": {"labels": 999, "usd": 0.7},
    }[limit]
    budget = Budget(**limits)
    with ChatServer(script) as server:
        teacher = make(server, tmp_path, llm_concurrency=32, llm_timeout=120)
        collected = collect_labels(teacher, many(200), store, budget, show_progress=False)
        one, usd = teacher.estimate(many(1)[0])
        teacher.close()
    assert server.most > 20
    assert f"budget_{limit}" in collected.ended
    assert collected.missing
    if limit == "labels":
        assert budget.spent.labels <= 90 and len(server.requests) <= 90 * 2
    elif limit == "tokens":
        assert server.charged <= budget.spent.tokens <= 60_000
        assert budget.spent.tokens > 60_000 - 3 * one  # used up, as far as upper bounds allow
    else:
        assert budget.spent.usd <= 0.7
        assert budget.spent.usd > 0.7 - 3 * usd
        assert collected.bill.usd <= budget.spent.usd


def test_a_request_that_may_be_charged_counts(tmp_path: Path, store: LabelStore) -> None:
    with ChatServer(lambda number, body: {"reset": True} if number == 0 else None) as server:
        teacher = make(server, tmp_path)
        one, _ = teacher.estimate(some_instances(1)[0])
        budget = Budget(9, tokens=3 * one)
        collected = label(teacher, store, 1, budget)
    assert budget.spent.tokens == one + collected.bill.prompt_tokens + collected.bill.completion_tokens
    assert server.charged <= budget.spent.tokens
    with (
        ChatServer(lambda number, body: {"reset": True} if number == 0 else None) as server,
        LabelStore(tmp_path / "2") as other,
    ):
        budget = Budget(9, tokens=one + 5)  # nothing is left to send it again
        collected = label(make(server, tmp_path), other, 1, budget)
        assert len(server.requests) == 1
    assert collected.labels == {} and collected.missing == (100,)
    assert budget.spent.tokens == one


def test_no_second_try_without_budget(tmp_path: Path, store: LabelStore) -> None:
    with ChatServer(lambda number, body: "nonsense") as server:
        teacher = make(server, tmp_path)
        one, _ = teacher.estimate(some_instances(1)[0])
        collected = label(teacher, store, 1, Budget(9, tokens=one + 10))
        assert len(server.requests) == 1
    assert collected.bill.failed == 1 and store.counts()["failed"] == 1


# hints


HINTED = {"hint_key": "cases of seed 9"}  # of a teacher's context


def hint_supplies(calls: list[int]) -> Supplies:
    """The cases of ``HINTED``; ``calls`` gets longer when they are made."""

    def cases() -> list[Instance]:
        calls.append(1)
        return some_instances(2, seed=9)

    return Supplies(cases, list)


def test_hints_are_asked_for_once_and_paid(tmp_path: Path, store: LabelStore) -> None:
    def script(number: int, body: dict) -> Any:
        return (
            "1. Sequels follow.\n2. Casts recur."
            if "Candidates" not in body["messages"][1]["content"]
            else None
        )

    calls: list[int] = []
    with ChatServer(script) as server:
        budget = Budget(9, tokens=10**6)
        supplies = hint_supplies(calls)
        collected = label(make(server, tmp_path, HINTED), store, 3, budget, supplies=supplies)
        assert len(server.requests) == 4
        assert "1. Sequels follow.\n2. Casts recur." in server.requests[1]["messages"][1]["content"]
        assert collected.bill.asked == 3
        assert (
            collected.bill.prompt_tokens + collected.bill.completion_tokens
            == server.charged
            == budget.spent.tokens
        )
        rounds = make(server, tmp_path / "rounds", HINTED)  # hints of its own, because its store is another
        with LabelStore(tmp_path / "rounds.sqlite") as other:
            bills = [
                collect_labels(
                    rounds, some_instances(n), other, Budget(9), show_progress=False, supplies=supplies
                ).bill
                for n in (1, 2)
            ]
        rounds.close()
        # the second round does not pay for them again
        assert bills[0].prompt_tokens > 1.5 * bills[1].prompt_tokens
        server.requests.clear()
        again = label(make(server, tmp_path, HINTED), store, 3, supplies=supplies)
        assert len(server.requests) == 0 and again.bill.reused == 3
        more = label(make(server, tmp_path, HINTED), store, 4, supplies=supplies)
        assert len(server.requests) == 1 and len(calls) == 2  # of two stores
        assert "1. Sequels follow." in server.requests[0]["messages"][1]["content"] and len(more.labels) == 4
    assert (
        make("http://x", tmp_path, HINTED, llm_hints=False).identity
        != make("http://x", tmp_path, HINTED).identity
    )


def test_a_budget_too_small_for_hints(tmp_path: Path, store: LabelStore) -> None:
    with ChatServer() as server:
        teacher = make(server, tmp_path, HINTED)
        one, _ = teacher.estimate(some_instances(1)[0])
        short = min(one, 1000)
        with pytest.raises(AlkdError, match=r"budget_tokens: .* too little for the hints"):
            prepare(teacher, store, Budget(9, tokens=short), hint_supplies([]))
        teacher.close()
        assert server.requests == []


# settings


def test_the_key_comes_from_the_environment_and_stays_there(
    tmp_path: Path, store: LabelStore, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    with (
        caplog.at_level(logging.DEBUG),
        ChatServer(lambda number, body: {"status": 500} if number == 0 else None) as server,
    ):
        teacher = make(server, tmp_path, llm_api_key_env="MY_KEY")
        label(teacher, store)
        assert server.keys == ["Bearer sk-very-secret"] * 2
    assert "sk-" not in caplog.text + teacher.identity + repr(teacher.context)
    monkeypatch.delenv("MY_KEY")
    with LabelStore(tmp_path / "other") as other:
        with pytest.raises(AlkdError, match="the environment variable MY_KEY is not set"):
            label(make("http://127.0.0.1:9/v1", tmp_path, llm_api_key_env="MY_KEY"), other)
        monkeypatch.delenv("OPENAI_API_KEY")
        with pytest.raises(AlkdError, match="the environment variable OPENAI_API_KEY is not set"):
            label(make("", tmp_path, llm_base_url=None), other)


def test_a_model_without_a_price(tmp_path: Path, store: LabelStore) -> None:
    with pytest.raises(
        AlkdError, match=r"budget_usd: .*prices.yaml' has no price .* 'pricd' \(did you mean 'priced'\?\)"
    ):
        make("http://x", tmp_path, llm_model="pricd", budget_usd=1.0)
    with ChatServer() as server:
        assert label(make(server, tmp_path, llm_model="free"), store).bill.usd is None
    with pytest.raises(AlkdError, match=r"llm_model: .* is the model of llm_teacher local"):
        make("http://x", tmp_path, llm_model="smollm2-135m-instruct")


# interrupts


def test_ctrl_c_waits_for_what_is_on_its_way(tmp_path: Path, store: LabelStore, caplog: Any) -> None:
    with ChatServer(lambda number, body: {"sleep": 0.4}) as server:
        teacher = make(server, tmp_path, llm_concurrency=4)
        before = signal.getsignal(signal.SIGINT)
        threading.Timer(0.6, os.kill, (os.getpid(), signal.SIGINT)).start()  # four are stored, four in flight
        with pytest.raises(KeyboardInterrupt), caplog.at_level(logging.WARNING):
            label(teacher, store, 40)
        assert signal.getsignal(signal.SIGINT) is before
        assert len(store) == len(server.requests)  # every answer that was paid for
        assert 4 <= len(store) < 40
    assert "rankings are kept in" in caplog.text


def test_the_second_ctrl_c_leaves_at_once(tmp_path: Path, store: LabelStore) -> None:
    with ChatServer(lambda number, body: {"sleep": 60} if number else None) as server:
        teacher = make(server, tmp_path, llm_concurrency=2)
        for seconds in (1.5, 2.0):
            threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            label(teacher, store, 10)
        assert time.monotonic() - start < 30  # far from the 60 s of the answers on their way
        assert len(store) == 1
        with store.transaction() as db:
            assert db.execute("SELECT count(*) FROM claims").fetchone() == (0,)


def test_answers_are_json_safe(tmp_path: Path, store: LabelStore) -> None:
    half_a_pair = json.loads('"\\ud83d"')
    with ChatServer(
        lambda number, body: half_a_pair + completion(body)["choices"][0]["message"]["content"] + "\0"
    ) as server:
        collected = label(make(server, tmp_path), store)
    assert collected.labels[100].raw.startswith(half_a_pair) and collected.labels[100].raw.endswith("\0")
