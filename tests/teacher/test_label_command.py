"""``recbole-alkd label``: estimates before anything is spent, batch files there and back, kills,
and the run that follows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, completion
from process import environment, run
from test_teacher_runs import RULES, SETTINGS, about_hints, api, go, home, script  # noqa: F401  (the fixture)
from tiny_llm import tiny_llm

from recbole_alkd import AlkdError
from recbole_alkd.labels import LabelStore
from recbole_alkd.quick_start import label_instances

pytest.importorskip("openai", reason="needs the extra `api`")


def words(**values: Any) -> list[str]:
    pairs = {**SETTINGS, **values}.items()
    return [
        *("-m", "recbole_alkd.cli", "label", "--dataset=tiny"),
        *(
            f"--{key}={json.dumps(value) if isinstance(value, (list, dict)) else value}"
            for key, value in pairs
        ),
    ]


def label(how: dict[str, Any] | None = None, **values: Any) -> dict[str, Any]:
    return label_instances("tiny", config_dict={**SETTINGS, **values}, **(how or {}))


def spending(folder: Path, **more: Any) -> dict[str, Any]:
    """Settings of a model with a price."""
    (folder / "prices.yaml").write_text("batch: 0.5\nmodels: {m: {input: 10, output: 30}}\n")
    return {"llm_price_file": "prices.yaml", **more}


def test_a_dry_run_says_what_it_would_take_and_does_nothing(home: Path) -> None:  # noqa: F811
    with ChatServer(script) as server:
        settings = api(server, **spending(home, budget_usd=0.05))
        done = run([*words(**settings), "--dry-run"], home)
        assert done.returncode == 0, done.stderr[-2000:]
        counts, estimate, most, budget = done.stdout.strip().splitlines()[-4:]
        assert counts.startswith("5 instances: 0 in ") and counts.endswith("5 to ask, and hints")
        assert estimate.startswith("estimate: ") and most.startswith("upper bound: ")
        assert "budget_usd: 0.05, which the upper bound passes" in budget
        assert server.requests == [] and not (home / "alkd_labels").exists()

        before = label({"dry_run": True}, **settings)
        report = go(**{**settings, "budget_usd": 1.0})["labels"]
        assert report["asked"] == 5
        # the server of this test counts four characters a token
        assert (
            before["tokens"] / 2
            < report["prompt_tokens"] + report["completion_tokens"]
            < before["most_tokens"]
        )
        assert 0 < report["usd"] < before["most_usd"]
        after = label({"dry_run": True}, **{**settings, "budget_labels": 7})
        assert (after["wanted"], after["hints"]) == (7, False) and after["missing"] < 7


@pytest.mark.parametrize("scoring", ["title", "index", "generate"])
def test_a_dry_run_tries_a_local_llm(home: Path, scoring: str) -> None:  # noqa: F811
    local = {
        "llm_model": str(tiny_llm(home / "llm")), "llm_dtype": "float32", "llm_scoring": scoring,
        "lora_examples": 8,
        "llm_hints": False,
    }  # fmt: skip
    estimated = label({"dry_run": True}, **local)
    assert not (home / "alkd_labels").exists()
    assert (
        estimated["missing"] == 5
        and estimated["tried"] == 3
        and estimated["seconds"] > 0
        and estimated["preparation_seconds"] > 0
    )
    bound, here, before = estimated["lines"][2:]
    assert here.startswith("time here: ") and here.endswith("for the labels (tried on 3)")
    assert before.endswith("for LoRA on 8 examples, and 2 recommenders trained for them")
    words = {
        "title": "every title of llm_title_tokens tokens",
        "index": "every title of llm_title_tokens tokens",
    }
    assert bound.endswith(f"({words.get(scoring, 'every byte a token')})") and "twice" not in bound
    if scoring == "generate":  # random weights write anything; what they read is counted
        assert estimated["tokens"] < estimated["most_tokens"]
        return
    report = go(**local)["labels"]
    assert estimated["tokens"] == report["prompt_tokens"] + report["completion_tokens"]
    again = label({"dry_run": True}, **{**local, "budget_labels": 7})
    assert again["preparation"] == "" and again["preparation_seconds"] == 0  # the adapter is there


def test_a_dry_run_without_the_llm_says_why_there_is_no_time(home: Path) -> None:  # noqa: F811
    report = label({"dry_run": True}, llm_model="gone/away")
    assert report["seconds"] is None and 0 < report["tokens"] < report["most_tokens"]
    assert report["lines"][-1].startswith("time here:   not known: llm_model: 'gone/away' cannot be loaded")
    null = label({"dry_run": True}, llm_teacher="null")
    assert null["lines"] == [
        "5 instances: 0 in alkd_labels/labels.sqlite, 5 to be ordered at random; no LLM is asked"
    ]
    assert null["tokens"] == null["most_tokens"] == 0


def test_prompts_are_shown_and_nothing_is_asked(home: Path) -> None:  # noqa: F811
    with ChatServer() as server:
        report = label({"show": 2}, **api(server, **spending(home)))
        assert server.requests == []
    assert not (home / "alkd_labels").exists() or not list((home / "alkd_labels").glob("*.sqlite"))
    first = report["prompts"][0]
    assert len(report["prompts"]) == 2 and first["titled"] == first["candidates"] > 0
    assert (
        first["prompt"].count("<ID") > first["candidates"]
        and first["prompt"].split("\n")[0] in report["lines"]
    )
    assert f"{first['candidates']} of {first['candidates']} candidates have a title" in report["lines"][0]


@pytest.mark.parametrize("teacher", ["recommender", "null", "text", "replay"])
def test_a_teacher_without_prompts_says_so_before_it_is_selected_for(
    home: Path,  # noqa: F811
    teacher: str,
) -> None:
    (home / "replay.jsonl").write_text('{"session_id": "s1", "ranking": ["i1"]}\n')
    with pytest.raises(
        AlkdError, match=f"--show: llm_teacher '{teacher}' asks no LLM and has no prompt; allowed: "
    ) as error:
        label({"show": 2}, llm_teacher=teacher, llm_replay_file="replay.jsonl")
    # other tests may have registered teachers of their own
    allowed = set(str(error.value).partition("allowed: ")[2].split(", "))
    assert allowed >= {"api", "local"} and not allowed & {"recommender", "null", "text", "replay"}
    assert not list(home.glob("saved/*/*"))


def test_what_is_labelled_is_reused_by_the_run(home: Path) -> None:  # noqa: F811
    with ChatServer(script) as server:
        labelled = label(**api(server))
        assert (labelled["asked"], labelled["rankings"], labelled["missing"], labelled["ended"]) == (
            5,
            5,
            [],
            None,
        )
        assert not list((home / "saved").glob("*/result.json"))
        server.requests.clear()
        report = go(**api(server))
        assert server.requests == [] and report["labels"]["reused"] == 5
        assert len(list((home / "saved").glob("ALKDRec-*"))) == 1  # in the folder that `label` began


def test_failed_answers_are_asked_again_on_request(home: Path) -> None:  # noqa: F811
    with ChatServer(lambda number, body: RULES if about_hints(body) else "no idea") as server:
        assert label(**api(server))["failed"] == 5
        server.script = script
        server.requests.clear()
        assert label(**api(server))["failed"] == 5 and server.requests == []
        report = label({"retry_failed": True}, **api(server))
        assert (report["asked"], report["rankings"]) == (5, 5)


def test_a_batch_there_and_back_is_reused_by_the_run(home: Path) -> None:  # noqa: F811
    with ChatServer(script) as server:
        settings = api(server, **spending(home))
        made = label({"batch_out": "out/requests.jsonl"}, **settings)
        assert made["requests"] == 5 and [about_hints(body) for body in server.requests] == [True]
        requests = [json.loads(line) for line in Path("out/requests.jsonl").read_text().splitlines()]
        assert all(RULES in request["body"]["messages"][1]["content"] for request in requests)
        answers = [
            {
                "custom_id": r["custom_id"],
                "response": {"status_code": 200, "body": completion(r["body"])},
                "error": None,
            }
            for r in requests
        ]
        Path("answers.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in reversed(answers)))
        labelled = label({"batch_in": "answers.jsonl"}, **settings)
        assert (labelled["stored"], labelled["foreign"], labelled["unanswered"]) == (5, 0, 0)
        assert label({"batch_in": "answers.jsonl"}, **settings)["stored"] == 0
        server.requests.clear()
        report = go(**settings)["labels"]
        assert server.requests == [] and (report["asked"], report["reused"]) == (0, 5)
        with LabelStore("alkd_labels/labels.sqlite") as store:
            for one in store:
                assert one.usd == pytest.approx(
                    (10 * one.prompt_tokens + 30 * one.completion_tokens) / 1e6 / 2
                )


def test_bought_rankings_are_imitated_by_a_local_llm(home: Path, caplog: Any) -> None:  # noqa: F811
    caplog.set_level("INFO")
    with ChatServer(script) as server:
        label({"out": "gpt/rankings.jsonl"}, **api(server, budget_labels=20))
        records = [json.loads(line) for line in Path("gpt/rankings.jsonl").read_text().splitlines()]
        assert len(records) == 20 and all(
            record["source"] == "api m" and len(record["ranking"]) == 4 for record in records
        )
        server.requests.clear()
        assert go(llm_teacher="replay", llm_replay_file="gpt/rankings.jsonl")["labels"]["asked"] == 5
        local = {
            "llm_model": str(tiny_llm(home / "llm")), "llm_dtype": "float32", "lora_target": "replay",
            "lora_examples": 16,
            "llm_replay_file": "gpt/rankings.jsonl",
        }  # fmt: skip
        first = go(**local)
        assert first["lora"]["imitated"] == 16 == first["lora"]["examples"]
        assert "LoRA: 16 examples (recorded rankings imitated), 4 steps" in caplog.text
        again = go(**local, label_store="alkd_labels/another.sqlite")
        assert again["lora"]["reused"] and again["lora"]["adapter"] == first["lora"]["adapter"]
        assert server.requests == []
        Path("gpt/rankings.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records[1:]))
        assert go(**local)["lora"]["adapter"] != first["lora"]["adapter"]  # other rankings, another adapter
        with pytest.raises(AlkdError, match="21 are wanted and only 19 were made"):
            go(**{**local, "lora_examples": 21})
        with pytest.raises(AlkdError, match=r"llm_replay_file: 'none\.jsonl' cannot be read"):
            go(**{**local, "llm_replay_file": "none.jsonl"})


@pytest.mark.parametrize(
    ("how", "values", "expected"),
    [
        ({"batch_out": "x"}, {"llm_teacher": "null"}, "--batch-out: llm_teacher 'null' knows no batch files"),
        ({"batch_in": "x"}, {"llm_teacher": "text"}, "--batch-in: llm_teacher 'text' knows no batch files"),
        ({}, {"llm_teacher": "null", "alkd_rounds": 2}, "alkd_rounds: 2 rounds select anew"),
        (
            {"dry_run": True},
            {"llm_teacher": "null", "alkd_ratio": "pilot", "alkd_pilot": 2},
            "'pilot' needs labels",
        ),
    ],
)
def test_what_cannot_be_is_said(home: Path, how: dict, values: dict, expected: str) -> None:  # noqa: F811
    with pytest.raises(AlkdError) as error:
        label(how, **values)
    assert expected in str(error.value)


@pytest.mark.slow
def test_sigkill_while_labelling_loses_and_repeats_nothing(home: Path) -> None:  # noqa: F811
    def slow(number: int, body: dict[str, Any]) -> dict[str, Any]:
        return {"sleep": 0.3, "text": script(number, body)}

    with ChatServer(slow) as server:
        settings = api(server, budget_labels=12, llm_concurrency=1)
        process = subprocess.Popen(
            [sys.executable, *words(**settings)], cwd=home, env=environment(),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while len(server.requests) < 6:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.5)  # the request in flight ends
        before = len(server.requests)
        with LabelStore(home / "alkd_labels" / "labels.sqlite") as store:
            kept = len(store)
        # the hints are no label, one request was in flight, and one answer may have come in the moment of the
        # kill
        assert before - 3 <= kept <= before - 2
        done = run(words(**settings), home)
        assert done.returncode == 0, done.stderr[-2000:]
        assert (
            f"12 rankings in alkd_labels/labels.sqlite: {12 - kept} instances asked now, {kept} rankings"
            in done.stdout
        )
        assert len(server.requests) == before + 12 - kept
        assert sum(map(about_hints, server.requests)) == 1
        texts = [body["messages"][1]["content"] for body in server.requests]
        # asked again: what had no answer in the store
        assert len(texts) - len(set(texts)) == before - 1 - kept


@pytest.mark.parametrize("option", ["out", "batch_out"])
def test_a_place_that_is_no_file_is_named_before_anything_is_trained_or_asked(
    home: Path,  # noqa: F811
    option: str,
) -> None:
    (home / "taken").mkdir()
    with pytest.raises(AlkdError, match=f"^{option}: 'taken' is a folder; allowed: the path of a file"):
        label({option: "taken"}, llm_teacher="null")
    assert not (home / "saved").exists()
