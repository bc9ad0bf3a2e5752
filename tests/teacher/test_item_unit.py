"""``alkd_unit: item``: labels about items in whole runs, with the policy, engine, store and controls of
labels of sessions."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_llm import tiny_llm

import recbole_alkd.active.policy.max_min as max_min_policy
import recbole_alkd.labelling.collect as collect
import recbole_alkd.labelling.rounds as rounds_module
from recbole_alkd import AlkdError
from recbole_alkd.active.difficulty import item_difficulty
from recbole_alkd.cli import main
from recbole_alkd.labelling.item_neighbours import merged
from recbole_alkd.labels import LabelStore
from recbole_alkd.labels.transfer import export_labels, import_labels
from recbole_alkd.testing import run_toy
from recbole_alkd.testing.learners import inside
from recbole_alkd.testing.toy import TOY_SETTINGS, write_toy_data

ITEM = {"alkd_unit": "item", "student_model": "SessionKNN"}


def toy(folder: Path, **settings: Any) -> dict[str, Any]:
    with inside(folder):
        return run_toy(folder, **{**ITEM, **settings})


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("items")
    return folder, toy(folder)


def test_items_are_picked_and_the_report_says_so(ran: Any) -> None:
    _, report = ran
    picks = report["policy"]["picks"]
    assert len(set(picks)) == 10 and all(pick.startswith("i") for pick in picks)
    assert report["labels"]["unit"] == "item" and report["labels"]["asked"] == 10
    assert report["labels"]["all_sessions"]["sessions"] <= 45
    assert report["policy"]["gap"] == pytest.approx(0, abs=1e-9)  # the exact policy's certificate
    fitted = report["stages"]["distilled"]["fitted"]
    assert fitted["pairwise_edges"] > 0 and "pairwise_weight" in fitted
    labelled = [
        json.loads(line) for line in (Path(report["run_folder"]) / "labelled.jsonl").read_text().splitlines()
    ]
    assert {one["session"] for one in labelled} == set(picks)
    assert all(one["history"] == [one["session"]] for one in labelled)


def test_explain_speaks_of_items(ran: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path(ran[1]["run_folder"])
    pick = ran[1]["policy"]["picks"][0]

    def said(word: str, run: Path) -> str:
        with pytest.raises(SystemExit):
            main(["explain", "--bundle", str(run), "--session", word])
        shown = capsys.readouterr()
        return shown.out + shown.err

    assert said(pick, run).startswith(f"item {pick}: ") and "next once: " in said(pick, run)
    assert "'s1' is not one of the 10 labelled items" in said("s1", run)
    # an item that no training session goes on from
    lone = run.parent / "lone"
    shutil.copytree(run, lone)
    lines = (lone / "labelled.jsonl").read_text().splitlines()
    bare = [json.dumps({**json.loads(line), "target": ""}) for line in lines]
    (lone / "labelled.jsonl").write_text("\n".join(bare) + "\n")
    assert "next once: none; label: " in said(pick, lone)


def test_candidates_hold_counted_and_title_neighbours_and_never_the_item(ran: Any) -> None:
    folder, _ = ran
    with LabelStore(folder / "labels.sqlite") as store:
        labels = list(store)
    assert len(labels) == 10
    assert all(len(set(one.candidates)) == 8 and len(one.ranking) == 4 for one in labels)
    # the recommender control keeps the candidates' order, so they stand in it
    assert all(one.ranking == one.candidates[:4] for one in labels)


def test_a_second_run_pays_for_nothing(ran: Any) -> None:
    folder, first = ran
    again = toy(folder, kd_lists="shuffled")
    assert (again["labels"]["asked"], again["labels"]["reused"]) == (0, 10)
    assert again["policy"]["picks"] == first["policy"]["picks"]


@pytest.mark.parametrize("unit", ["session", "item"])
def test_both_units_go_through_the_same_functions(
    unit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    def counted(module: Any, name: str) -> None:
        real = getattr(module, name)

        def spy(*args: Any, **kwargs: Any) -> Any:
            called.append(name)
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, spy)

    for module, name in (
        (max_min_policy, "solve_max_min"), (rounds_module, "estimate_ratio"), (rounds_module, "count_kinds"),
        (rounds_module, "collect_labels"), (collect, "Engine"), (collect, "keys_of"),
    ):  # fmt: skip
        counted(module, name)
    report = toy(
        tmp_path, alkd_unit=unit, alkd_ratio="pilot", alkd_pilot=4, alkd_rounds=2, kd_lists="permuted"
    )
    assert {name: called.count(name) for name in dict.fromkeys(called)} == {
        "collect_labels": 3, "keys_of": 3, "Engine": 3, "count_kinds": 3, "estimate_ratio": 1,
        "solve_max_min": 2,
    }  # fmt: skip
    assert [one["name"] for one in report["policy"]["rounds"]] == ["pilot", "round 1", "round 2"]
    assert sum(report["policy"]["ratio"]["counts"]) > 0


@pytest.mark.parametrize("teacher", ["null", "text"])
def test_controls_answer_about_items(teacher: str, tmp_path: Path) -> None:
    report = toy(tmp_path, llm_teacher=teacher, alkd_policy="random")
    assert report["labels"]["asked"] == 10 and report["labels"]["failed"] == 0


@pytest.mark.parametrize("negatives", ["in_batch", "candidates"])
def test_an_embedding_student_learns_from_items(negatives: str, tmp_path: Path) -> None:
    report = toy(tmp_path, student_model="SessionFPMC", kd_negatives=negatives, alkd_policy="hardest")
    assert report["stages"]["distilled"]["steps"] > 0


def test_titles_and_recommendation_loss_beside_items(tmp_path: Path) -> None:
    report = toy(tmp_path, student_model="SessionFPMC", kd_rec_weight=1.0, kd_loss={"pairwise": 1, "tr": 1})
    assert report["stages"]["distilled"]["steps"] > 0


def test_recorded_answers_about_items(tmp_path: Path) -> None:
    write_toy_data(tmp_path / "data")
    file = tmp_path / "data" / "toy" / "toy.items.jsonl"
    lines = [
        {"item_id": f"i{n}", "ranking": [f"i{(n + 3 * k - 1) % 45 + 1}" for k in range(1, 5)]}
        for n in range(1, 41)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = toy(tmp_path, llm_teacher="replay", alkd_policy="random")
    with LabelStore(tmp_path / "labels.sqlite") as store:
        kept = {one.ranking for one in store}
    assert len(kept) == 10 and kept <= {tuple(line["ranking"]) for line in lines}
    assert report["labels"]["asked"] == 10
    file.write_text(json.dumps({"session_id": "i1", "ranking": ["i2"]}) + "\n")
    with pytest.raises(AlkdError, match=r'line 1: \{"item_id"'):
        toy(tmp_path, llm_teacher="replay")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("alkd_pool", "prefix"),
        ("alkd_difficulty", "loss"),
        ("kd_lists", "target"),
        ("lora_target", "replay"),
        ("alkd_unit", "row"),
    ],
)
def test_what_items_do_not_have_is_refused_before_training(setting: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(AlkdError, match=f"^{setting}: {value!r}.*allowed"):
        toy(tmp_path, **{setting: value})
    assert not (tmp_path / "saved").exists() or not any((tmp_path / "saved").iterdir())


def test_more_labels_than_items_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AlkdError, match="500"):
        toy(tmp_path, budget_labels=500)


def test_difficulty_is_rare_and_disagreeing() -> None:
    times, agreement = np.array([1, 100, 1, 100]), np.array([0.0, 0.0, 0.9, 0.9])
    difficulty = item_difficulty(times, agreement)
    assert difficulty.argmax() == 0 and difficulty.argmin() == 3 and difficulty[1] == difficulty[2]
    assert item_difficulty(times, None).tolist() == [0.75, 0.25, 0.75, 0.25]


def test_lists_are_merged_in_turn() -> None:
    assert merged([[1, 2, 3], [1, 4], [5]], 4) == [1, 5, 2, 4]
    assert merged([[], [7]], 3) == [7]


def test_items_of_a_data_set_without_titles(tmp_path: Path) -> None:
    write_toy_data(tmp_path / "data")
    (tmp_path / "data" / "toy" / "toy.item").unlink()
    report = toy(tmp_path, llm_teacher="recommender")
    assert report["labels"]["asked"] == 10


def test_select_and_label_commands_speak_of_items(tmp_path: Path) -> None:
    from recbole_alkd.quick_start import label_instances, select_instances

    write_toy_data(tmp_path / "data")
    own = {
        **TOY_SETTINGS,
        **ITEM,
        "data_path": str(tmp_path / "data"),
        "label_store": str(tmp_path / "labels.sqlite"),
    }
    own |= {"checkpoint_dir": str(tmp_path / "saved"), "llm_teacher": "null"}
    with inside(tmp_path):
        chosen = select_instances("picks.json", "toy", config_dict=own)
        assert chosen["alkd_unit"] == "item" and all(pick.startswith("i") for pick in chosen["picks"])
        listed = {**own, "alkd_policy": "listed", "alkd_picks": "picks.json#picks"}
        label_instances("toy", config_dict=listed, out="items.jsonl")
        records = [json.loads(line) for line in Path("items.jsonl").read_text().splitlines()]
        assert [one["item_id"] for one in records] == chosen["picks"]
        replayed = run_toy(
            tmp_path,
            **{**ITEM, "llm_teacher": "replay", "llm_replay_file": "items.jsonl", "alkd_policy": "random"},
        )
    assert replayed["labels"]["asked"] == 10


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_llm(tmp_path_factory.mktemp("llm") / "tiny"))


def local(model: str, **settings: Any) -> dict[str, Any]:
    return {
        "llm_teacher": "local",
        "llm_model": model,
        "llm_dtype": "float32",
        "budget_labels": 4,
        **settings,
    }


@pytest.mark.parametrize("scoring", ["title", "index"])
def test_a_tuned_local_llm_answers_about_items(scoring: str, tiny_model: str, tmp_path: Path) -> None:
    report = toy(tmp_path, **local(tiny_model, llm_scoring=scoring, lora=True, lora_examples=6))
    assert report["labels"]["asked"] == 4 and report["labels"]["failed"] == 0
    (file,) = (tmp_path / "examples").glob("*.json")
    examples = json.loads(file.read_text())["examples"]
    assert len(examples) == 6 and all(len(one["history"]) == 1 for one in examples)
    clicks = [
        line.split("\t") for line in (tmp_path / "data/toy/toy.train.inter").read_text().splitlines()[1:]
    ]
    followed = {pair for _, history, target in clicks for pair in pairwise([*history.split(), target])}
    assert all((one["history"][0], one["target"]) in followed for one in examples)


def test_prompts_of_items_are_shown_and_have_words_of_their_own(tiny_model: str, tmp_path: Path) -> None:
    from recbole_alkd.quick_start import label_instances

    write_toy_data(tmp_path / "data")
    own = {
        **TOY_SETTINGS,
        **ITEM,
        "data_path": str(tmp_path / "data"),
        "label_store": str(tmp_path / "labels.sqlite"),
    }
    own |= {"checkpoint_dir": str(tmp_path / "saved"), **local(tiny_model, llm_scoring="generate")}
    with inside(tmp_path):
        shown = label_instances("toy", config_dict=own, show=2)
    assert len(shown["prompts"]) == 2 and shown["lines"][0].startswith("=== item i")
    for one in shown["prompts"]:
        assert "who chose this one:\n<ID" + one["item"] + ">" in one["prompt"]
    assert not (tmp_path / "labels.sqlite").exists()


def test_an_api_is_asked_about_items_and_nothing_is_paid_for_twice(tmp_path: Path) -> None:
    pytest.importorskip("openai", reason="needs the extra `api`")
    from chat_server import ChatServer

    with ChatServer() as server:
        own = {"llm_teacher": "api", "llm_model": "m", "llm_base_url": server.url, "llm_hints": False}
        first = toy(tmp_path, **own)
        assert first["labels"]["asked"] == 10 == len(server.requests)
        assert all("who chose this one:" in body["messages"][1]["content"] for body in server.requests)
        again = toy(tmp_path, **own, kd_lists="permuted")
        assert again["labels"]["reused"] == 10 == len(server.requests)


def test_labels_of_items_go_out_of_a_store_and_into_another(ran: Any, tmp_path: Path) -> None:
    folder, _ = ran
    with LabelStore(folder / "labels.sqlite") as store:
        assert export_labels(store, tmp_path / "labels.jsonl") == 10
    with LabelStore(tmp_path / "other.sqlite") as store:
        assert import_labels(store, tmp_path / "labels.jsonl") == (10, 10)
    copied = toy(folder, label_store=str(tmp_path / "other.sqlite"), kd_lists="permuted")
    assert (copied["labels"]["asked"], copied["labels"]["reused"]) == (0, 10)
