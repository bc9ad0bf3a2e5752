"""Batch files: what is missing goes out, answers come in under the keys of any other run, at half
the price."""

import json
from pathlib import Path
from typing import Any

import pytest
from chat_server import completion, ranking

from recbole_alkd.labelling.batch import read_batch, write_batch
from recbole_alkd.labelling.collect import collect_labels
from recbole_alkd.labelling.estimate import estimate_labels
from recbole_alkd.labels import Budget, Label, LabelStore, label_key
from recbole_alkd.registry import teachers
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.reading import read_settings
from recbole_alkd.teacher.base import Instance, TeacherContext
from recbole_alkd.testing.teachers import TITLES, some_instances


def make(folder: Path, **own: Any) -> Any:
    (folder / "prices.yaml").write_text("batch: 0.5\nmodels: {m: {input: 10, output: 30}}\n")
    settings = read_settings(
        {"llm_model": "m", "llm_top_n": 7, "llm_price_file": str(folder / "prices.yaml")}
    )
    return teachers.get("api")(TeacherContext(settings, "ml-tiny", folder, TITLES, folder / "cache", **own))


def key_of(teacher: Any, instance: Instance) -> str:
    return label_key(instance.history, instance.candidates, teacher.prompt(instance), teacher.identity)


def answer(requests: list[dict], number: int, text: str | None = None, **more: Any) -> str:
    """The output line for request ``number``."""
    body = completion({**requests[number]["body"], "max_tokens": 500}, text)
    return json.dumps(
        {
            "id": "b",
            "custom_id": requests[number]["custom_id"],
            "response": {"status_code": 200, "body": body},
            "error": None,
        }
        | more
    )


def test_there_and_back(tmp_path: Path) -> None:
    teacher, instances = make(tmp_path), some_instances(5)
    out, back = tmp_path / "new" / "requests.jsonl", tmp_path / "answers.jsonl"
    with LabelStore(tmp_path / "s") as store:
        store.put(Label(key_of(teacher, instances[2]), instances[2].candidates[:1]))
        made = write_batch(teacher, instances, store, Budget(99), out)
        requests = [json.loads(line) for line in out.read_text().splitlines()]
        assert (made.requests, made.known, made.missing, made.ended) == (4, 1, 0, None)
        assert [request["custom_id"] for request in requests] == [
            key_of(teacher, i) for i in instances if i is not instances[2]
        ]
        assert requests[0]["url"] == "/v1/chat/completions" and requests[0]["body"]["model"] == "m"
        assert requests[0]["body"]["messages"] == list(teacher.messages(instances[0]))
        assert made.usd == pytest.approx(
            sum(teacher.estimate(i)[1] for i in instances if i is not instances[2]) / 2
        )

        lines = [
            answer(requests, 1),  # in any order
            answer(requests, 0, "no list"),
            answer(requests, 2, response=None, error={"message": "expired"}),
            answer(requests, 3, custom_id="another run's"),
        ]
        back.write_text("\n".join(lines) + "\n")
        read_in = read_batch(teacher, instances, store, back)
        assert (read_in.stored, read_in.known, read_in.foreign, read_in.unanswered) == (2, 0, 1, 1)
        label = store.get(requests[1]["custom_id"])
        assert label.ranking == tuple(sorted(instances[1].candidates, reverse=True)[:7])
        assert label.usd == pytest.approx((label.prompt_tokens * 10 + label.completion_tokens * 30) / 1e6 / 2)
        assert store.get(requests[0]["custom_id"]).status == "failed"
        assert (read_in.bill.asked, read_in.bill.failed) == (2, 1)
        assert read_in.bill.prompt_tokens == sum(x.prompt_tokens for x in store)

        again = read_batch(teacher, instances, store, back)
        assert (again.stored, again.bill.usd) == (
            0,
            pytest.approx(store.get(requests[0]["custom_id"]).usd),
        ) or again.bill.asked == 0
        assert store.counts() == {"ok": 2, "failed": 1}
        # the labels are those of any other run
        used = collect_labels(
            make(tmp_path), [instances[1], instances[2]], store, Budget(9), show_progress=False
        )
        assert used.bill.reused == 2


def test_the_budget_cuts_the_file(tmp_path: Path) -> None:
    teacher, instances = make(tmp_path), some_instances(5)
    share = sum(teacher.estimate(i)[1] / 2 for i in instances[:3]) * 1.001
    with LabelStore(tmp_path / "s") as store:
        made = write_batch(teacher, instances, store, Budget(99, usd=share), tmp_path / "out")
    assert (made.requests, made.missing) == (3, 2) and "budget_usd" in made.ended
    assert made.usd <= share


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 1: no line of a batch's output file"),
        ('{"custom_id": "x"}', "line 1: no line of a batch's output file"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, line: str, words: str) -> None:
    teacher, file = make(tmp_path), tmp_path / "answers.jsonl"
    file.write_text(line)
    with LabelStore(tmp_path / "s") as store:
        with pytest.raises(AlkdError, match=words):
            read_batch(teacher, some_instances(1), store, file)
        with pytest.raises(AlkdError, match="cannot be read"):
            read_batch(teacher, some_instances(1), store, tmp_path / "none")


def test_bad_lines_do_not_cost_the_good_ones(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    teacher, instances = make(tmp_path), some_instances(6)
    out, back = tmp_path / "requests.jsonl", tmp_path / "answers.jsonl"
    with LabelStore(tmp_path / "s") as store:
        write_batch(teacher, instances, store, Budget(99), out)
        requests = [json.loads(line) for line in out.read_text().splitlines()]
        good = ranking(requests[1]["body"])
        lines = [
            # line separators that are none of JSON lines
            answer(requests, 0).replace("[<ID", "\u2028\x85 [<ID"),
            answer(requests, 1).replace('"prompt_tokens": ', '"prompt_tokens": 1' + "0" * 5000),
            answer(
                requests,
                2,
                response={"status_code": 200, "body": {"choices": [], "usage": {"prompt_tokens": 12}}},
            ),
            answer(requests, 3, response={"status_code": 200, "body": [1]}),
            "[" * 100_000 + "]" * 100_000,
            answer(requests, 4)[:-30],
            answer(requests, 4, "\udcff caf\u00e9 " + ranking(requests[4]["body"])),
        ]
        content = ("\ufeff" + "\r\n".join(lines) + "\n").encode()
        back.write_bytes(content + answer(requests, 5).encode().replace(b"[<ID", b"caf\xe9 [<ID"))
        read_in = read_batch(teacher, instances, store, back)
        assert (read_in.stored, read_in.bill.failed, read_in.unanswered, read_in.foreign) == (6, 2, 0, 0)
        assert [problem.partition(":")[0] for problem in read_in.unreadable] == ["line 5", "line 6"]
        assert "line 5: no line of a batch's output file" in caplog.text
        labels = [store.get(request["custom_id"]) for request in requests]
        assert [label.status for label in labels] == ["ok", "ok", "failed", "failed", "ok", "ok"]
        assert all(
            label.ranking == tuple(sorted(i.candidates, reverse=True)[:7])
            for label, i in zip(labels, instances, strict=True)
            if label.status == "ok"
        )
        assert labels[1].raw == good and labels[1].prompt_tokens > 1000  # the bound: every byte a token
        assert labels[2].prompt_tokens == 12 and labels[2].completion_tokens == teacher.answer_tokens(
            instances[2]
        )


def test_estimates_need_no_server(tmp_path: Path) -> None:
    teacher, instances = make(tmp_path), some_instances(5)
    with LabelStore(tmp_path / "s") as store:
        store.put(Label(key_of(teacher, instances[2]), ("x",)))
        estimate = estimate_labels(teacher, [*instances, instances[0]], store)
    assert (estimate.wanted, estimate.known, estimate.missing) == (6, 1, 4)
    assert estimate.most_tokens == sum(teacher.most(i).tokens for i in instances if i is not instances[2])
    assert all(teacher.most(i).tokens > 2 * teacher.estimate(i)[0] for i in instances)
    assert 0 < estimate.tokens < estimate.most_tokens and 0 < estimate.usd < estimate.most_usd
