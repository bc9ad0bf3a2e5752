"""LLM teachers inside whole runs on the tiny data set: hints, the bill, and what a second run reuses."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer
from tiny import N_ITEMS, write_benchmark
from tiny_llm import tiny_llm

from recbole_alkd import AlkdError, run_recbole_alkd
from recbole_alkd.labels import LabelStore
from recbole_alkd.labels.hints import all_hints
from recbole_alkd.llm import chat_client

pytest.importorskip("openai", reason="needs the extra `api`")

SETTINGS = {
    "benchmark_filename": ["train", "valid", "test"], "USER_ID_FIELD": "session_id",
    "ITEM_ID_FIELD": "item_id",
    "load_col": {"inter": ["session_id", "item_id_list", "item_id"]}, "alias_of_item_id": ["item_id_list"],
    "MAX_ITEM_LIST_LENGTH": 6, "train_batch_size": 16, "epochs": 2, "show_progress": False, "state": "INFO",
    "budget_labels": 5, "llm_candidates": 8, "llm_top_n": 4, "session_augmentation": "last", "topk": [5, 10],
    "valid_metric": "NDCG@10", "data_path": "data", "llm_hint_cases": 3, "alkd_policy": "random",
}  # fmt: skip
RULES = "1. Odd things follow odd things.\n2. Nothing repeats."


def write_titles(folder: Path) -> None:
    rows = "".join(f"i{n}\tThing number {n}\n" for n in range(1, N_ITEMS + 1))
    (folder / "tiny" / "tiny.item").write_text("item_id:token\ttitle:token_seq\n" + rows)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the tiny data set and its titles in ``data/``."""
    write_titles(write_benchmark(tmp_path / "data", counts=(40, 12, 12)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run"])
    return tmp_path


def go(**values: Any) -> dict[str, Any]:
    return run_recbole_alkd(dataset="tiny", config_dict={**SETTINGS, **values})


def about_hints(body: dict[str, Any]) -> bool:
    return "Candidates" not in body["messages"][1]["content"]


def script(number: int, body: dict[str, Any]) -> str | None:
    return RULES if about_hints(body) else None


def api(server: ChatServer, **values: Any) -> dict[str, Any]:
    return {"llm_teacher": "api", "llm_model": "m", "llm_base_url": server.url, **values}


def test_a_run_asks_for_hints_once_and_ranks_with_them(home: Path, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    with ChatServer(script) as server:
        first = go(**api(server))
        assert [about_hints(body) for body in server.requests] == [True] + 5 * [False]
        question = server.requests[0]["messages"][1]["content"]
        assert "Case 3\n" in question and "Case 4\n" not in question
        for case in question.split("Case ")[1:]:
            shown = case[case.index("Recommended") :].count("- Thing number")
            assert shown == 20  # the teacher recommender's own list, whatever llm_candidates is
        assert all(RULES in body["messages"][1]["content"] for body in server.requests[1:])
        assert first["labels"]["prompt_tokens"] + first["labels"]["completion_tokens"] == server.charged
        with LabelStore("alkd_labels/labels.sqlite") as store:
            (kept,) = all_hints(store)
        assert kept.rules == ("Odd things follow odd things.", "Nothing repeats.")
        assert "hints of the LLM" in caplog.text and RULES in caplog.text

        server.requests.clear()
        again = go(**api(server))
        assert server.requests == [] and again["labels"]["reused"] == 5
        more = go(**api(server, budget_labels=7))
        assert len(server.requests) == more["labels"]["asked"] and not any(map(about_hints, server.requests))
        assert all(RULES in body["messages"][1]["content"] for body in server.requests)

        server.requests.clear()
        go(**api(server, llm_hints=False))
        assert len(server.requests) == 5 and not any(RULES in str(body) for body in server.requests)


def test_no_file_of_a_run_holds_the_key(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-of-this-run-0123456789abcdef"
    monkeypatch.setenv("MY_KEY", key)

    def echo(number: int, body: dict[str, Any]) -> str | None:
        return f"{RULES}\n3. Remember {key}." if about_hints(body) else None

    with ChatServer(echo) as server:
        result = go(**api(server, llm_api_key_env="MY_KEY"))
        assert set(server.keys) == {f"Bearer {key}"}
    files = [file for file in home.rglob("*") if file.is_file()]
    names = {file.name for file in files}
    assert {"result.json", "labels.sqlite", "ALKDRec.pth", "manifest.json"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names) and any(
        file.suffix == ".log" for file in files
    )
    for file in files:
        assert key.encode() not in file.read_bytes(), file
    assert key not in str(result)


def test_a_local_llm_that_generates_makes_hints_for_itself(home: Path, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    model = tiny_llm(home / "llm")
    try:
        go(llm_model=str(model), llm_scoring="generate", lora=False, llm_dtype="float32", llm_hint_cases=2)
    except AlkdError as error:  # an LLM with random weights ranks nothing
        assert "gave no usable label" in str(error)
    with LabelStore("alkd_labels/labels.sqlite") as store:
        (kept,) = all_hints(store)
        assert (
            kept.raw
            and kept.teacher.startswith("local|")
            and kept.prompt_tokens > 20 * 2 * len("Thing number")
        )
        assert len(store) == 5
    assert "hints of the LLM" in caplog.text


def test_likelihoods_say_that_hints_are_ignored(home: Path, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    report = go(llm_model=str(tiny_llm(home / "llm")), lora=False, llm_dtype="float32")
    assert report["labels"]["asked"] == 5
    assert "hints: none are needed, llm_scoring 'title' writes no answers" in caplog.text
    with LabelStore("alkd_labels/labels.sqlite") as store:
        assert list(all_hints(store)) == []


def test_a_budget_in_dollars_is_kept_to_the_cent_and_the_rest_is_named(home: Path, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    (home / "prices.yaml").write_text("models: {m: {input: 10, output: 30}}\n")

    def cost(prompt: int, completion: int) -> float:
        return (10 * prompt + 30 * completion) / 1e6

    with ChatServer(script) as server:
        settings = api(
            server, budget_labels=12, llm_price_file="prices.yaml", llm_hints=False, llm_concurrency=1
        )
        whole = go(**settings)["labels"]
        assert whole["asked"] == 12 and whole["missing"] == [] and whole["ended"] is None
        with LabelStore("alkd_labels/labels.sqlite") as store:
            paid = [label.usd for label in store]
        assert sum(paid) == pytest.approx(whole["usd"])

        limit = whole["usd"] / 2
        server.requests.clear()
        settings |= {"budget_usd": limit, "label_store": "poor/labels.sqlite"}
        report = go(**settings)
        poor = report["labels"]
        assert poor["usd"] <= limit < whole["usd"]
        assert len(server.requests) == poor["asked"] < 12
        assert "budget_usd: " in poor["ended"] and len(poor["missing"]) == 12 - poor["asked"]
        assert set(poor["missing"]) < set(report["policy"]["picks"])
        assert f"{len(poor['missing'])} instances are without a label" in caplog.text
        # it stopped for want of the next request's upper bound, and of no more
        bound = max(len(m["content"].encode()) for body in server.requests for m in body["messages"]) + 1000
        assert limit - poor["usd"] < cost(bound, 200)

        # the next run buys what is missing, with a budget of its own
        settings["budget_usd"] = 10 * limit
        server.requests.clear()
        rest = go(**settings)["labels"]
        assert (
            rest["asked"] == len(poor["missing"]) == len(server.requests) and rest["reused"] == poor["asked"]
        )
        assert rest["missing"] == []

    with pytest.raises(AlkdError, match=r"budget_usd: 'prices\.yaml' has no price for llm_model 'unknown'"):
        go(**{**settings, "llm_model": "unknown"})


def test_a_lost_request_of_one_round_is_counted_in_the_next(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_client, "TRIES", 1)

    def lossy(number: int, body: dict[str, Any]) -> Any:
        return {"reset": True} if number == 1 else None

    with ChatServer(lossy) as server:
        settings = api(
            server,
            llm_hints=False,
            llm_concurrency=1,
            alkd_rounds=2,
            budget_labels=8,
            label_store="a/labels.sqlite",
        )
        free = go(**settings)["labels"]
        assert len(free["missing"]) == 1 and free["asked"] >= 7
        bound = max(sum(len(m["content"].encode()) for m in body["messages"]) for body in server.requests)
        each = (free["prompt_tokens"] + free["completion_tokens"]) / free["asked"]
        server.requests.clear()
        # enough for the first round, and then for one request more;
        # for all of them, if the lost one were forgotten
        limit = round(2.2 * bound + 3 * each)
        assert 2 * bound + 6 * each < limit + 0.8 * bound
        poor = go(**{**settings, "budget_tokens": limit, "label_store": "b/labels.sqlite"})["labels"]
        assert poor["ended"] and poor["asked"] < free["asked"]
        assert poor["prompt_tokens"] + poor["completion_tokens"] + bound <= limit


def test_an_adapter_is_judged_by_sessions_it_was_not_trained_on(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    from recbole_alkd.teacher.local import lora

    caplog.set_level(logging.INFO)
    seen: dict[str, Any] = {}
    original = lora._train

    def train(scorer: Any, examples: Any, judges: Any, *rest: Any) -> None:
        seen.update(examples=examples, judges=judges)
        original(scorer, examples, judges, *rest)

    monkeypatch.setattr(lora, "_train", train)
    report = go(llm_model=str(tiny_llm(home / "llm")), llm_dtype="float32", budget_labels=9)
    assert len(seen["examples"]) == 9 == report["lora"]["examples"]  # as many as labels
    trained = {(example.history, example.target) for example in seen["examples"]}
    judged = [(example.history, example.target) for example in seen["judges"]]
    assert judged and len(set(judged)) == len(judged) and not trained & set(judged)
    assert all(example.natural and example.target in example.candidates for example in seen["judges"])
    ranks = report["lora"]["ranks"]
    assert (
        ranks["examples"] == len(judged)
        and 1 <= ranks["mean_rank_after"] <= 8
        and 0 < ranks["mrr_before"] <= 1
    )
    assert "before -> after tuning: mean rank of the true next item" in caplog.text
    again = go(
        llm_model=str(home / "llm"),
        llm_dtype="float32",
        budget_labels=9,
        lora_examples=9,
        label_store="b/labels.sqlite",
    )
    assert again["lora"]["examples"] == 9
