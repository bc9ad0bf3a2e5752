"""Learning curves of LoRA: the file of examples, what a curve holds, and that a killed one goes on."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recbole_alkd.bench.lora_cli import add_lora_command
from recbole_alkd.bench.lora_control import control_study
from recbole_alkd.bench.lora_curves import run_curve, table
from recbole_alkd.bench.lora_file import read_study, write_study
from recbole_alkd.bench.lora_lines import append_line, read_lines
from recbole_alkd.bench.lora_settings import ALLOWED, settings_of_study
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import FIELDS

sys.path.append(str(Path(__file__).resolve().parents[1] / "teacher"))
from tiny_llm import tiny_llm


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return {"llm_model": str(tiny_llm(tmp_path_factory.mktemp("llm") / "tiny")), "llm_dtype": "float32"}


def parsed(*words):
    import argparse

    parser = argparse.ArgumentParser()
    add_lora_command(parser.add_subparsers())
    return parser.parse_args(["lora-curve", *words])


def test_exactly_one_candidate_has_the_colour_and_it_is_another_kind():
    study = control_study(30, 10)
    assert (len(study.natural), len(study.held_out)) == (30, 10)
    for one in (*study.natural, *study.held_out):
        colours = [item.partition("-")[0] for item in one.candidates]
        assert len(set(colours)) == len(colours) == 20
        assert {item.partition("-")[0] for item in one.history} == {one.target.partition("-")[0]}
        assert one.target in one.candidates and one.target not in one.history


def test_a_file_holds_what_was_written(tmp_path):
    study = replace(control_study(6, 3), drawn=9, found=4)
    write_study(tmp_path / "study.json", study)
    assert read_study(tmp_path / "study.json") == study


@pytest.mark.parametrize("content", ["", "{}", '{"form": 2}', "[1]", '{"form": 1, "items": 3}'])
def test_another_file_is_named(tmp_path, content):
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(AlkdError, match=r"study\.json: no file that recbole-alkd lora-examples wrote"):
        read_study(tmp_path / "study.json")
    with pytest.raises(AlkdError, match="No such file"):
        read_study(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("held_out", []),
        ("held_out", [[[0], [1], 1, 1]]),  # nothing to choose from
        ("held_out", [[[0], [1, 1, 2], 1, 1]]),
        ("natural", [[[0], [1, -2], 1, 1]]),
        ("natural", [[[0], [1, 2], 3, 1]]),
        ("settings", {}),
        ("settings", {"llm_candidates": "5"}),
        ("titles", ["\ud800"] * 600),
        ("form", 2),
    ],
)
def test_a_file_that_cannot_be_studied_is_no_file_of_examples(tmp_path, part, value):
    file = tmp_path / "study.json"
    write_study(file, control_study(6, 3))
    content = json.loads(file.read_text())
    if part == "titles":
        value = value[: len(content["titles"])]
    file.write_text(json.dumps({**content, part: value}))
    with pytest.raises(AlkdError, match=r"study\.json: no file that recbole-alkd lora-examples wrote"):
        read_study(file)


CUT = [b'{"dataset": "control", "po', b"\0" * 40, b""]
FOREIGN = [b"1", b"null", b"{}", b'{"dataset": "control"}', b"[" * 100_000, b"\xff\xfe\0", b"my notes"]


def test_lines_that_were_cut_are_left_out_and_other_files_are_not_appended_to(tmp_path, model):
    out, study = tmp_path / "out.jsonl", control_study(16, 8, candidates=5)
    (result,) = run_curve(study, out, [0], ["natural"], [model], "cpu")
    whole = out.read_bytes()
    for line in CUT:
        out.write_bytes(line + b"\n" + whole + line)
        assert read_lines(out) == [result]
    for line in FOREIGN:
        out.write_bytes(whole + line + b"\n")
        with pytest.raises(AlkdError, match=r"^--out: '.*out\.jsonl', line 2 is no result of lora-curve"):
            next(run_curve(study, out, [0], ["natural"], [model], "cpu"))
        assert out.read_bytes() == whole + line + b"\n"


@pytest.mark.parametrize("name", ["folder", "file/out.jsonl"])
def test_a_place_where_no_results_can_be_written_is_named_before_the_llm_is_loaded(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    never = {"llm_model": str(tmp_path / "no model")}
    with pytest.raises(AlkdError, match=r"^--out: .* cannot be (read|written): "):
        next(run_curve(control_study(4, 2), tmp_path / name, [0], ["natural"], [never], "cpu"))


@pytest.mark.parametrize("threads", ["0", "-1", "100000"])
def test_threads_that_no_machine_gives_are_refused(tmp_path, threads):
    args = parsed("control", "--out", str(tmp_path / "out.jsonl"), "--threads", threads)
    with pytest.raises(AlkdError, match=f"^--threads: {threads} is not allowed; allowed: .*from 1 to 1024"):
        args.run(args)


def test_a_curve_has_its_controls_and_goes_on_where_it_ended(model, tmp_path):
    study, out = control_study(16, 8, candidates=5), tmp_path / "out.jsonl"
    variants = [model, {**model, "lora_rank": 2}]
    steps = run_curve(study, out, [0, 8], ["natural"], variants, "cpu")
    first = next(steps)
    steps.close()  # killed after the first result
    with out.open("a") as stream:
        stream.write('{"half of a line')
    rest = list(run_curve(study, out, [0, 8], ["natural"], variants, "cpu"))
    assert len(rest) == 3 and read_lines(out) == [first, *rest]
    assert list(run_curve(study, out, [0, 8], ["natural"], variants, "cpu")) == []
    places = [one.candidates.index(one.target) + 1 for one in study.held_out]
    assert first["mrr"]["recommender"] == pytest.approx(np.mean(1 / np.asarray(places)), abs=1e-4)
    tuned = rest[0]
    assert (tuned["count"], tuned["natural"], tuned["steps"]) == (8, 8, 2)
    assert tuned["mrr"]["zero-shot"] == first["mrr"]["zero-shot"]
    gain, low, high = tuned["gains"]["tuned - zero-shot"]["mrr"]
    assert low <= gain <= high and gain == pytest.approx(
        tuned["mrr"]["tuned"] - tuned["mrr"]["zero-shot"], abs=2e-4
    )
    assert "| control | 8 natural |" in table(read_lines(out))
    assert not list(tmp_path.glob("alkd_lora_*"))


def test_results_of_other_examples_are_not_mixed_with_those_of_a_file(model, tmp_path):
    study, out = control_study(6, 4, candidates=5), tmp_path / "out.jsonl"
    list(run_curve(study, out, [0], ["natural"], [model], "cpu"))
    others = [
        control_study(6, 5, candidates=5),
        control_study(6, 4, candidates=6),
        replace(study, held_out=tuple(reversed(study.held_out))),
        replace(study, titles={**study.titles, study.held_out[0].target: "another"}),
    ]
    for other in others:
        with pytest.raises(AlkdError, match=r"^--out: .* has results of control from other examples"):
            next(run_curve(other, out, [0], ["natural"], [model], "cpu"))
    more = replace(study, natural=(*study.natural, *study.natural))  # as many as before are the same
    assert list(run_curve(more, out, [0], ["natural"], [model], "cpu")) == []
    # a line of an earlier version does not say
    line = read_lines(out)[0]
    out.write_text(json.dumps({key: line[key] for key in line if key not in ("judged_by", "trained_on")}))
    assert list(run_curve(others[2], out, [0], ["natural"], [model], "cpu")) == []
    line["count"] = "two"
    out.write_text(json.dumps(line))
    with pytest.raises(AlkdError, match=r"line 1 is no result of lora-curve's"):
        read_lines(out)


def test_what_another_command_has_added_meanwhile_is_not_done_again(model, tmp_path):
    study, out = control_study(6, 4, candidates=5), tmp_path / "out.jsonl"
    variants = [model, {**model, "llm_history": 2}]
    steps = run_curve(study, out, [0], ["natural"], variants, "cpu")
    next(steps)
    assert len(list(run_curve(study, out, [0], ["natural"], variants, "cpu"))) == 1
    assert list(steps) == [] and len(read_lines(out)) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_names_the_file_and_the_result():
    result = {"count": 8, "pool": "natural", "mrr": {"tuned": 0.5}}
    with pytest.raises(AlkdError, match=r"'/dev/full' cannot be written: No space .*8 natural .*0\.5"):
        append_line(Path("/dev/full"), result)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--set", "lora_rank=x"], "lora_rank: 'x'"),
        (["--set", "epochs=3"], "--set: 'epochs=3' is not allowed"),
        (["--set", "llm_candidates=3"], "--set llm_candidates: decided by the file"),
        (["--set", "lora_inserted=False"], "--set lora_inserted: decided by the file and --pool; allowed: l"),
        (["--set", "llm_threads=2"], "--set llm_threads: given as --threads"),
        (["--set", "lora_folds=3"], "--set lora_folds: has no effect here; allowed: llm_model, .*lora_rank"),
        (["--set", "lora_use=if_better"], "--set lora_use: has no effect here"),
        (["--set", "llm_base_url=http://localhost:1"], "--set llm_base_url: has no effect here"),
        (["--set", "lora_rnk=3"], r"--set lora_rnk: no such setting \(did you mean 'lora_rank'\?\)"),
        (["--set", "llm_history=9"], "--set llm_history: 9 is more than the 8 items.*allowed: 1 to 8"),
        (["--set", "llm_scoring=generate"], "--set llm_scoring: 'generate' has no scores.*title, index"),
        (["--set", "lora_patience=2"], "--set lora_patience: has no effect with lora_epochs 1"),
        (["--examples", "2000"], "--examples: 2000 is more than the 1000 natural ones"),
        (["--examples", "-1"], "--examples: -1 is not allowed"),
    ],
)
def test_what_cannot_work_is_said_before_a_model_is_loaded(words, told, tmp_path):
    args = parsed("control", "--out", str(tmp_path / "out.jsonl"), *words)
    with pytest.raises(AlkdError, match=told):
        args.run(args)
    assert not (tmp_path / "out.jsonl").exists()


def test_every_other_setting_of_the_llm_is_refused_by_name():
    """A setting that is new is either of use here, and listed, or refused."""
    study = control_study(4, 2)
    ours = [key for key in FIELDS if key.startswith(("llm_", "lora_"))]
    assert set(ALLOWED) < set(ours) and len(ours) > len(ALLOWED) + 10
    for key in set(ours) - set(ALLOWED):
        with pytest.raises(AlkdError, match=rf"^--set {key}: .*; allowed: llm_model, "):
            settings_of_study(study, {key: FIELDS[key].default}, 1)
    for key in set(ALLOWED) - {"lora_patience"}:
        settings_of_study(study, {key: FIELDS[key].default}, 1)
    settings_of_study(study, {"lora_patience": 2, "lora_epochs": 2}, 1)


def test_examples_of_a_data_set_are_of_other_sessions_than_those_that_judge(tmp_path, monkeypatch):
    from recbole_alkd.plugin import empty_argv
    from recbole_alkd.quick_start import lora_study_examples
    from recbole_alkd.testing.toy import TOY_SETTINGS, write_toy_data

    monkeypatch.chdir(tmp_path)
    data = write_toy_data(tmp_path / "data")
    own = {"data_path": str(data), "checkpoint_dir": str(tmp_path / "saved"), "llm_teacher": "text"}
    with empty_argv():
        made = lora_study_examples(
            "study.json", "toy", config_dict={**TOY_SETTINGS, **own}, examples=20, held_out=5
        )
    assert made == replace(read_study(Path("study.json")), settings=made.settings)
    assert made.held_out and all(one.natural for one in (*made.held_out, *made.natural))
    assert 0 < sum(one.natural for one in made.mixed) < len(made.mixed) <= 20
    assert all(one.target in one.candidates and len(one.candidates) == 8 for one in made.mixed)
    judged = {(one.history, one.target) for one in made.held_out}
    assert not judged & {(one.history, one.target) for one in (*made.mixed, *made.natural)}
    assert len(json.loads(Path("study.json").read_text())["titles"]) == 45
