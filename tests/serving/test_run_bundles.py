"""A finished run leaves a bundle, and the commands that use one."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from served import serve, titles_file
from service_process import alone, run_server
from tiny import write_benchmark

from recbole_alkd import AlkdError, run_recbole_alkd
from recbole_alkd.cli import main
from recbole_alkd.serving import Recommender, make, write_bundle
from recbole_alkd.serving.make import make_bundle

BASE = {
    "data_path": "data", "benchmark_filename": ["train", "valid", "test"], "USER_ID_FIELD": "session_id",
    "ITEM_ID_FIELD": "item_id", "load_col": {"inter": ["session_id", "item_id_list", "item_id"]},
    "alias_of_item_id": ["item_id_list"], "MAX_ITEM_LIST_LENGTH": 6, "epochs": 1, "show_progress": False,
    "llm_teacher": "recommender", "budget_labels": 12, "llm_candidates": 8, "llm_top_n": 4,
    "session_augmentation": "last", "topk": [5, 10],
}  # fmt: skip


def go(folder: Path, monkeypatch: pytest.MonkeyPatch, **settings):
    if not (folder / "data").exists():
        write_benchmark(folder / "data")
        titles_file(folder / "data")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["run"])
    return run_recbole_alkd(dataset="tiny", config_dict={**BASE, **settings})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.mktemp("finished")
        result = go(folder, monkeypatch, student_model="SessionKNN")
        yield folder / result["run_folder"], result


def command(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    out, err = capsys.readouterr()
    return end.value.code, out, err


def test_a_finished_run_leaves_a_bundle_with_its_report(finished):
    folder, result = finished
    content = json.loads((folder / "bundle" / "manifest.json").read_text())
    distilled = result["stages"]["distilled"]["test"]
    assert {name: entry["value"] for name, entry in content["metrics"].items()} == distilled
    assert all(entry["low"] <= entry["value"] <= entry["high"] for entry in content["metrics"].values())
    assert content["comparison"] == result["comparison"]
    assert content["bill"]["asked"] == result["labels"]["asked"] == 12
    assert content["settings"]["budget_labels"] == 12 and "label_store" not in content["settings"]
    assert Recommender.load(folder, verify=True).recommend(["i3"], 2)


def test_the_last_lines_of_a_run_are_commands_that_work(finished, monkeypatch, capsys, caplog):
    folder, _ = finished
    monkeypatch.setattr(make, "make_bundle", lambda *_, **__: folder / "bundle")  # it is there already
    settings = SimpleNamespace(report=SimpleNamespace(save_bundle=True))
    run = SimpleNamespace(
        model=None, train=None, folder=folder, report={}, settings=settings, labels={}, stages={}
    )
    with caplog.at_level(logging.INFO):
        last = make.bundle_of_run(run, logging.getLogger("a run"))
    lines = [shlex.split(line) for line in last.splitlines() if line.startswith("    ")]
    assert [line[:2] for line in lines] == [
        ["recbole-alkd", name] for name in ("recommend", "explain", "serve")
    ]
    for line in lines[:2]:
        code, out, err = command(line[1:], capsys)
        assert code == 0 and len(out.splitlines()) > 2, err
    assert Path(lines[2][lines[2].index("--bundle") + 1]).samefile(folder)


def test_a_run_ends_with_the_table_the_bill_and_three_commands_that_work_as_they_stand(
    tmp_path, monkeypatch, caplog
):
    """From the log of a run, typed where it ran, as in the slim image."""
    caplog.set_level("INFO")
    home = tmp_path / "home"
    home.mkdir()
    folder = Path(go(home, monkeypatch, student_model="SessionKNN", state="INFO")["run_folder"])
    # RecBole's table of the environment follows in the log's file, and is not on the screen
    log = "\n".join(caplog.messages).partition("The running environment")[0]
    lines = [line for line in re.sub(r"\x1b\[\d+(;\d+)*m", "", log).splitlines() if line.strip()]
    order = [
        next(k for k, line in enumerate(lines) if re.search(pattern, line))
        for pattern in (
            r"^ *test +parameters ", r"^student, distilled, against ",
            r"^labels: 12 ordered by the teacher recommender, no LLM asked, 0 reused, 0 failed, 0 repaired$",
            r"^bundle: ", r"^result file: ", r"^use it$",
        )
    ]  # fmt: skip
    assert order == sorted(order) and order[-1] == len(lines) - 4
    assert {line.rpartition(": ")[0] for line in lines if re.match("stage |neighbours", line)} >= {
        "stage teacher recommender", "stage student, trained longer",
    }  # fmt: skip
    assert not any(re.match(r"(stage|epoch \d+ of) \w*(longer|_)", line) for line in lines)
    choices = [line for line in lines if "chosen" in line]
    assert len(choices) == 2 and "CPU s" in choices[0] and "chosen as before" in choices[1]
    commands = [shlex.split(line) for line in lines[-3:]]
    assert [words[:3] for words in commands] == [
        ["recbole-alkd", name, "--bundle"] for name in ("recommend", "explain", "serve")
    ]
    assert {words[3] for words in commands} == {f"saved/{folder.name}"}
    for words in (*commands[:2], ["", "export", "--run", commands[0][3], "--out", str(tmp_path / "mine")]):
        done = alone(words[1:], home)
        assert done.returncode == 0 and not done.stderr and done.stdout, done
    with run_server([*commands[2][1:], "--port", "0"], home) as server:
        assert server.ask("/health")[1]["recommenders"] == ["student", "popularity", "teacher"]
        for by in ("student", "teacher"):
            status, content = server.ask("/recommend", {"history": ["i3", "i4"], "k": 3, "by": by})
            assert status == 200 and len(content["recommendations"]) == 3


def test_its_card_has_the_head_of_a_model_card(finished):
    import yaml

    folder, result = finished
    text = (folder / "bundle" / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    head = yaml.safe_load(head)
    measured = head["model-index"][0]["results"][0]["metrics"]
    assert {one["type"]: one["value"] for one in measured} == result["stages"]["distilled"]["test"]
    assert head["library_name"] == "recbole_alkd" and "SessionKNN" in head["tags"]
    assert result["comparison"]["verdict"] in body and "## Limits" in body
    assert "12 labels ordered by the teacher recommender, 0 reused. No LLM was asked." in body


def test_a_bundle_can_be_made_from_the_checkpoint_as_well(finished, monkeypatch):
    folder, _ = finished
    monkeypatch.chdir(folder.parents[1])
    again = folder.parent / "again"
    shutil.copytree(folder, again)
    shutil.rmtree(again / "bundle")
    made = write_bundle(again, folder.parent / "made")
    assert (made / "student.safetensors").read_bytes() == (
        folder / "bundle" / "student.safetensors"
    ).read_bytes()
    assert (made / "items.jsonl").read_bytes() == (folder / "bundle" / "items.jsonl").read_bytes()
    assert Recommender.load(made).recommend(["i3", "i4"]) == Recommender.load(folder).recommend(["i3", "i4"])


def test_a_run_whose_backbone_cannot_be_exported_ends_well_and_says_so(tmp_path, monkeypatch, caplog):
    result = go(tmp_path, monkeypatch, student_model="SRGNN", student_embedding_size=8)
    assert (
        not (Path(result["run_folder"]) / "bundle").exists()
        and (Path(result["run_folder"]) / "result.json").exists()
    )
    assert "no bundle is written: SRGNN cannot be exported to ONNX" in caplog.text


def test_no_bundle_is_written_where_the_settings_say_so(tmp_path, monkeypatch):
    result = go(tmp_path, monkeypatch, save_bundle=False)
    folder = Path(result["run_folder"])
    assert not (folder / "bundle").exists()
    write_bundle(folder, tmp_path / "out")
    assert Recommender.load(tmp_path / "out").recommend(["i3"], 2)


KINDS = {
    "a table": {"student_model": "SessionKNN"},
    "a table with titles and lists": {
        "student_model": "SessionKNN", "item_text": "tfidf",
        "student_config": {"item_text": "tfidf", "knn_edge_weight": 0.5},
    },
    "a cut table, masked": {"student_model": "SessionKNN", "student_neighbors": 5,
                            "mask_session_items": True},
    "SessionFPMC": {"student_model": "SessionFPMC", "epochs": 3},
    "late fusion": {"student_model": "SessionFPMC", "item_text": "tfidf", "serve_text_dim": 4,
                    "serve_text_weight": [5.0]},
    "SessionSTAMP": {"student_model": "SessionSTAMP", "epochs": 3},
    "a model of RecBole's": {"student_model": "GRU4Rec", "epochs": 3, "mask_session_items": True},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_test_session_ranks_as_the_run_reported_it(tmp_path, monkeypatch, kind):
    """From the files of the data set, through the bundle, to the ranks that the metrics of the run
    rest on."""
    result = go(tmp_path, monkeypatch, **KINDS[kind])
    folder = Path(result["run_folder"])
    recommender = Recommender.load(folder)
    expected = {"late fusion": ("title_size", 4)}.get(kind)
    assert expected is None or recommender.manifest["student"][expected[0]] == expected[1]
    assert (folder / "bundle" / "reasons.safetensors").exists() == (kind == "a table with titles and lists")
    ranks_served = []
    for line in (tmp_path / "data" / "tiny" / "tiny.test.inter").read_text().splitlines()[1:]:
        _, history, target = line.split("\t")
        scores = recommender.scores(history.split())
        if recommender.manifest["student"]["mask_session_items"]:
            scores[recommender.numbers(history.split())] = -np.inf
        own = scores[recommender.items.number(target)]
        ranks_served.append((scores[1:] > own).sum() + ((scores[1:] == own).sum() + 1) / 2)
    with np.load(folder / "ranks.npz") as arrays:
        np.testing.assert_array_equal(ranks_served, arrays["distilled_test"])


@pytest.mark.parametrize("model", ["SessionKNN", "SessionFPMC", "GRU4Rec"])
def test_a_backbone_that_was_trained_alone_is_exported_from_its_checkpoint(
    tmp_path, monkeypatch, capsys, model
):
    from recbole.quick_start import run_recbole

    write_benchmark(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run"])
    keys = (
        "data_path",
        "benchmark_filename",
        "USER_ID_FIELD",
        "ITEM_ID_FIELD",
        "load_col",
        "alias_of_item_id",
        "topk",
    )
    settings = {key: BASE[key] for key in keys} | {
        "epochs": 1,
        "train_neg_sample_args": None,
        "show_progress": False,
    }
    run_recbole(model=model, dataset="tiny", config_dict=settings)
    checkpoint = next((tmp_path / "saved").glob(f"{model}-*.pth"))
    code, _, err = command(["export", "--run", str(checkpoint), "--out", "out"], capsys)
    assert code == 0, err
    served = Recommender.load(tmp_path / "out")
    assert served.manifest["student"]["backbone"] == model and len(served.recommend(["i3", "i4"], 5)) == 5
    assert (tmp_path / "out" / "counts.npz").exists() == (model == "SessionKNN")
    if model == "SessionKNN":  # it is counted again, so that it takes new sessions
        words = ["update", "--bundle", "out", "--inter", "data/tiny/tiny.test.inter", "--out", "new"]
        code, out, err = command(words, capsys)
        assert (code, err) == (0, "") and "with 12 more sessions and 0 new items" in out


def test_a_table_without_counts_says_why_and_how_to_get_them(tmp_path, capsys):
    served = serve(tmp_path, "SessionKNN", edges=True)
    table, train = served.model.recommender, served.train
    table.made = dataclasses.replace(table.made, refined=True)
    make_bundle(served.model, train, tmp_path / "refined")
    table.made = None  # as a checkpoint brings it
    make_bundle(served.model, train, tmp_path / "loaded")
    for name, words in (
        ("refined", "its weights were refined by gradients (knn_refine_epochs)"),
        ("loaded", "it was loaded, and the lists or titles among its edges are not kept beside it"),
    ):
        assert not (tmp_path / name / "counts.npz").exists()
        told = Recommender.load(tmp_path / name).manifest["student"]["no_counts"]
        assert told.startswith(words)
        inter = str(tmp_path / "data" / "tiny" / "tiny.test.inter")
        words = ["update", "--bundle", str(tmp_path / name), "--inter", inter, "--out", str(tmp_path / "new")]
        code, _, err = command(words, capsys)
        assert code == 2 and err.endswith(f"nothing can be added to its table: {told}\n")


def test_the_teacher_recommender_is_served_from_the_folder_of_a_run(finished, tmp_path, monkeypatch):
    from recbole_alkd.serving import cli
    from recbole_alkd.serving.service.app import Served
    from recbole_alkd.serving.service.workers import Job

    folder, _ = finished
    teacher = Recommender.load(folder / "teacher-bundle", verify=True)
    lines = [json.loads(line) for line in (folder / "labelled.jsonl").read_text().splitlines()]
    for line in lines:  # the lists of the run, from the bundle
        mine = [one.item for one in teacher.recommend(line["history"], 10, exclude_history=False)]
        assert mine == line["teacher"]
    jobs: list[Job] = []
    monkeypatch.setattr("recbole_alkd.serving.service.workers.serve", lambda job: jobs.append(job) or 0)
    alone, other = tmp_path / "bundle", tmp_path / "other"
    shutil.copytree(folder / "bundle", alone)
    for words in (
        ["--run", folder], ["--bundle", folder / "bundle"], ["--bundle", alone],
        ["--bundle", folder, "--teacher", other],
    ):  # fmt: skip
        with pytest.raises(SystemExit):
            main(["serve", *map(str, words)])
    where = folder / "teacher-bundle"
    assert [job.teacher for job in jobs] == [where, where, None, other]
    assert Served.load(jobs[0].bundle, jobs[0].teacher).recommenders == ("student", "popularity", "teacher")
    assert cli.find_teacher(tmp_path / "nowhere") is None


def test_titles_of_other_items_leave_the_bundle_without_titles(tmp_path, monkeypatch, caplog):
    write_benchmark(tmp_path / "data")
    (tmp_path / "data" / "tiny" / "tiny.item").write_text("item_id:token\ttitle:token_seq\nother\tA film\n")
    result = go(tmp_path, monkeypatch, student_model="SessionKNN")
    assert "the bundle has no titles: " in caplog.text and "it has a title for none of" in caplog.text
    assert {one.title for one in Recommender.load(result["run_folder"]).recommend(["i3"], 5)} == {""}


def test_a_folder_of_no_run_is_refused(tmp_path):
    with pytest.raises(AlkdError, match=r"no result\.json in it; allowed: the folder of a finished run"):
        write_bundle(tmp_path, tmp_path / "out")
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(AlkdError, match="not the result of a run of ALKDRec"):
        write_bundle(tmp_path, tmp_path / "out")


def test_export_and_recommend(finished, tmp_path, capsys):
    folder, _ = finished
    code, out, err = command(["export", "--run", str(folder), "--out", str(tmp_path / "b")], capsys)
    assert (code, err) == (0, "") and "written" in out
    code, out, err = command(
        ["recommend", "--bundle", str(tmp_path / "b"), "--history", "i3 i4", "-k", "3", "--json"], capsys
    )
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and lines == [
        one._asdict() for one in Recommender.load(folder).recommend(["i3", "i4"], 3)
    ]
    code, out, err = command(["recommend", "--bundle", str(folder), "--history", "i3 i4", "-k", "3"], capsys)
    assert code == 0 and all(one["title"] in out and one["item"] in out for one in lines)
    code, _, err = command(["export", "--run", str(folder), "--out", str(tmp_path / "b")], capsys)
    assert code == 2 and err.startswith("error: ") and "is there already" in err


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("i3 i4", ["i3", "i4"]),
        ("i3;i4", ["i3", "i4"]),
        ("the 7. FILM of (b)many(/b); i2", ["i7", "i2"]),
        ("12. film", ["i12"]),
    ],
)
def test_titles_are_taken_in_place_of_ids(finished, text, ids):
    from recbole_alkd.serving.named_item import read_history

    assert read_history(Recommender.load(finished[0]), text) == ids


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("i3 i99", "--history: 'i99' is no item id and no title of one item"),
        ("thee 7. filn of", "did you mean 'The 7. film of (b)many(/b)' (id i7)"),
        ("the", "did you mean"),
        (" ", "--history: empty; allowed: item ids between spaces"),
    ],
)
def test_what_is_neither_id_nor_title_is_an_error_with_near_ones(finished, capsys, text, words):
    code, out, err = command(["recommend", "--bundle", str(finished[0]), "--history", text], capsys)
    assert (code, out) == (2, "") and words in err and len(err.splitlines()) == 1


def test_explain_shows_parts_that_sum_to_the_score(finished, capsys):
    folder, _ = finished
    best = Recommender.load(folder).recommend(["i3", "i4"], 1)[0]
    code, out, err = command(["explain", "--bundle", str(folder), "--history", "i3 i4", "--json"], capsys)
    parts = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and {part["item"] for part in parts} == {best.item}
    assert sum(part["weight"] for part in parts) == pytest.approx(best.score)
    code, out, err = command(
        ["explain", "--bundle", str(folder), "--history", "i3 i4", "--item", "i9"], capsys
    )
    assert code == 0 and not err and out.splitlines()[-1].split()[0] == "sum"


def test_a_run_keeps_what_the_llm_and_its_recommenders_list_for_labelled_sessions(finished, capsys):
    folder, result = finished
    lines = [json.loads(line) for line in (folder / "labelled.jsonl").read_text().splitlines()]
    assert {line["session"] for line in lines} == set(result["policy"]["picks"])
    served = Recommender.load(folder)
    for line in lines:
        assert len(line["llm"]) == 4 and all(len(line[name]) == 10 for name in result["stages"])
        mine = served.recommend(line["history"], 10, exclude_history=False)
        scores = served.scores(line["history"])
        theirs = [float(scores[served.items.number(item)]) for item in line["distilled"]]
        assert theirs == [one.score for one in mine]  # of equal scores any may come first there
    words = ["explain", "--bundle", str(folder), "--session", lines[0]["session"]]
    code, out, _ = command(words, capsys)
    assert code == 0 and "LLM" in out and "teacher recommender" in out and "distilled" in out
    assert all(served.items.title(served.items.number(item))[:20] in out for item in lines[0]["llm"])
    code, out, _ = command([*words, "--json"], capsys)
    assert json.loads(out) == lines[0]
    assert "hints" not in out and json.loads((folder / "hints.json").read_text()) == []
    try:  # the rules of an LLM that gave some
        (folder / "hints.json").write_text(json.dumps(["They like \x1b[2Jfilms.", "<b>Old</b> first"]))
        assert command([*words, "--json"], capsys)[1].count("They like") == 1
        assert command(words, capsys)[1].splitlines()[-3:] == [
            "hints in the prompt:", "1. They like  [2Jfilms.", "2. <b>Old</b> first",
        ]  # fmt: skip
        (folder / "hints.json").write_text("{}")
        code, _, err = command(words, capsys)
        assert code == 2 and "hints.json: no list of lines; the file is damaged" in err
    finally:
        (folder / "hints.json").write_text("[]")
    code, _, err = command(["explain", "--bundle", str(folder), "--session", "nobody"], capsys)
    assert code == 2 and "'nobody' is not one of the 12 labelled sessions; such as: " in err
    code, inner, _ = command([*words[:2], str(folder / "bundle"), *words[3:], "--json"], capsys)
    assert code == 0 and inner == out
    lone = shutil.copytree(folder / "bundle", folder.parent / "lone")
    code, _, err = command(["explain", "--bundle", str(lone), "--session", "s1"], capsys)
    assert code == 2 and "no labelled.jsonl in it; allowed: the folder of a finished run" in err


def test_titles_cannot_move_the_cursor_of_a_terminal():
    from recbole_alkd.serving.printed import shown

    assert shown("a\x1b]0;title\x07b\nc") == "a ]0;title b c"
