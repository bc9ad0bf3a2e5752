"""What settings alone tell is told before anything is read or trained."""

from __future__ import annotations

import json

import pytest
from recbole.config import Config

from recbole_alkd import AlkdError, teachers
from recbole_alkd.checks import asking_nobody
from recbole_alkd.plugin import empty_argv
from recbole_alkd.teacher.base import LLMTeacher


def make(model="ALKDRec", dataset="ml-100k", **values):
    with empty_argv():
        return Config(model=model, dataset=dataset, config_dict=values)


def refused(words, **values):
    with pytest.raises(AlkdError) as error:
        make(**values)
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text, (word, text)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"alkd_difficulty": "consistancy"}, ["alkd_difficulty", "consistancy", "did you mean 'consistency'", "loss | rank"]),
        ({"llm_prompt": "nuetral"}, ["llm_prompt", "nuetral", "did you mean neutral"]),
        ({"llm_prompt": "none/of/it.yaml"}, ["llm_prompt", "none/of/it.yaml"]),
        ({"alkd_policy": "listed", "alkd_picks": "none.json"}, ["alkd_picks", "none.json", "cannot be read"]),
        ({"llm_price_file": "none.yaml"}, ["llm_price_file", "none.yaml", "cannot be read"]),
        ({"llm_teacher": "replay", "llm_replay_file": "none.jsonl"}, ["llm_replay_file", "none.jsonl", "cannot be read"]),
    ],
)
def test_names_and_files_are_looked_up_before_training(values, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(words, **values)


def test_a_file_is_read_as_well_as_found(tmp_path):
    picks, replay = tmp_path / "picks.json", tmp_path / "replay.jsonl"
    picks.write_text(json.dumps({"a": ["1"]}))
    replay.write_text("{}\n")
    refused(["alkd_picks", "KEY one of a"], alkd_policy="listed", alkd_picks=f"{picks}#b")
    refused(["line 1", "session_id"], llm_teacher="replay", llm_replay_file=str(replay))


def test_an_llm_teacher_looks_for_what_it_needs_when_somebody_is_asked():
    class Needy(LLMTeacher):
        @classmethod
        def check(cls, settings):
            raise AlkdError(f"llm_device: {settings.teacher.llm_device!r} is not here")

    teachers.register("needy")(Needy)
    try:
        refused(["llm_device: 'tpu' is not here"], llm_teacher="needy", llm_device="tpu")
        with asking_nobody():
            assert make(llm_teacher="needy", llm_device="tpu")["llm_device"] == "tpu"
    finally:
        del teachers._entries["needy"]
