"""Recorded rankings: which sessions have one, what is repaired, and files that are wrong."""

import json
import os
from pathlib import Path

import pytest

from recbole_alkd.registry import teachers
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.reading import read_settings
from recbole_alkd.teacher.base import Instance, TeacherContext
from recbole_alkd.teacher.replay import check_recordings
from recbole_alkd.testing.teachers import TeacherTests, some_instances

RECORDS = [
    {"session_id": "s1", "ranking": ["a", "b", "c", "d"], "hit": 1},
    {"session_id": "s2", "ranking": ["a", "b", "a", "c", "a"]},
    {"session_id": 3, "ranking": [12, "b"]},
    {"session_id": "s4", "ranking": []},
    {"session_id": "s5", "ranking": ["h", "zz"]},
]
TITLES = {item: item.upper() for item in ("a", "b", "c", "d", "h", "12")}


class TestReplay(TeacherTests):
    """The laws of every teacher; its rankings are recorded here for the sessions that they ask about."""

    teacher = "replay"

    def make(self, folder, **values):
        lines = [
            json.dumps({"session_id": i.session, "ranking": list(i.candidates)}) for i in some_instances()
        ]
        (folder / "ml-tiny.llm.jsonl").write_text("\n".join(lines), encoding="utf-8")
        return super().make(folder, **values)


def teacher(tmp_path, content=None, titles=None, **values):
    text = "".join(json.dumps(record) + "\n" for record in RECORDS) if content is None else content
    (tmp_path / "shop.llm.jsonl").write_text(text, encoding="utf-8")
    return of(tmp_path, titles=TITLES if titles is None else titles, **values)


def of(folder, dataset="shop", titles=TITLES, **values):
    settings = read_settings({"llm_top_n": 3, "llm_teacher": "replay", **values})
    return teachers.get("replay")(
        TeacherContext(
            settings=settings, dataset=dataset, data_path=Path(folder), titles=titles, cache=Path(folder)
        )
    )


def ask(one, session, history=("h",)):
    ((_, answer),) = one.ask([Instance(0, session, history, ("x", "y"))])
    return answer


def test_recorded_sessions_can_be_labelled(tmp_path):
    one = teacher(tmp_path)
    assert one.can_label(["s1", "3", "s4", "s9", "s5"]) == [True, True, False, False, True]
    assert not one.needs_titles


def test_the_recorded_list_decides(tmp_path):
    answer = ask(teacher(tmp_path), "s1")
    assert answer.ranking == ("a", "b", "c")
    assert (answer.status, answer.repairs) == ("ok", {})
    assert json.loads(answer.raw) == ["a", "b", "c", "d"]


def test_repairs_are_counted(tmp_path):
    one = teacher(tmp_path)
    assert (ask(one, "s2").ranking, ask(one, "s2").repairs) == (("a", "b", "c"), {"duplicate": 2})
    assert ask(one, "3").ranking == ("12", "b")
    assert ask(one, "s1", history=("h", "b")).ranking == ("a", "c", "d")
    assert ask(one, "s1", history=("h", "b")).repairs == {"in_session": 1}


def test_nothing_left_is_a_failure(tmp_path):
    answer = ask(teacher(tmp_path), "s5")
    assert (answer.ranking, answer.status, answer.repairs) == ((), "failed", {"unknown": 1, "in_session": 1})
    assert ask(teacher(tmp_path), "s9").status == "failed"


def test_without_titles_no_item_is_unknown(tmp_path):
    assert ask(teacher(tmp_path, titles={}), "s5").ranking == ("zz",)


def test_identity_is_the_content_not_the_place(tmp_path):
    folders = [tmp_path / name for name in "xyz"]
    for folder in folders:
        folder.mkdir()
    same = [teacher(folder).identity for folder in folders[:2]]
    other = teacher(folders[2], content=json.dumps(RECORDS[0])).identity
    assert same[0] == same[1] != other
    assert teacher(folders[0], llm_top_n=2).identity != same[0]
    (tmp_path / "elsewhere.jsonl").write_bytes((folders[0] / "shop.llm.jsonl").read_bytes())
    assert (
        of(tmp_path, dataset="other", llm_replay_file=str(tmp_path / "elsewhere.jsonl")).identity == same[0]
    )


def test_the_prompt_is_the_session_s(tmp_path):
    one = teacher(tmp_path)
    a, b, other = (
        Instance(0, "s1", ("h",), ("x",)),
        Instance(9, "s1", ("h",), ("y",)),
        Instance(0, "s2", ("h",), ("x",)),
    )
    assert one.prompt(a) == one.prompt(b) != one.prompt(other)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"shop\.llm\.jsonl, line 2: not readable as JSON"),
        ('["s", []]', "line 2: .*is expected"),
        ('{"session_id": true, "ranking": []}', "line 2: .*is expected"),
        ('{"session_id": "s", "ranking": [false]}', "line 2: a ranking holds item ids only"),
        ('{"ranking": []}', "line 2: .*is expected"),
        ('{"session_id": "s", "ranking": "a b"}', "line 2: .*is expected"),
        ('{"session_id": "s", "ranking": [["a"]]}', "line 2: a ranking holds item ids only"),
        ('{"session_id": "ok", "ranking": ["a"]}', "line 2: session 'ok' stands in line 1 already"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, message):
    with pytest.raises(AlkdError, match=message):
        teacher(tmp_path, content='{"session_id": "ok", "ranking": []}\n' + line + "\n").can_label(["ok"])


def test_blank_lines_are_allowed(tmp_path):
    assert teacher(tmp_path, content='\n{"session_id": "s", "ranking": ["a"]}\r\n\n').can_label(["s"]) == [
        True
    ]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(
        AlkdError, match=r"llm_replay_file: '.*none\.llm\.jsonl' cannot be read \(No such file"
    ):
        _ = of(tmp_path, dataset="none").identity


def test_the_authors_recordings():
    data = Path(
        os.environ.get("RECBOLE_ALKD_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data"
    )
    if not (data / "alkdrec-ml" / "alkdrec-ml.llm.jsonl").is_file():
        pytest.skip("the recorded rankings are not beside the checkout")
    one = of(data / "alkdrec-ml", dataset="alkdrec-ml", titles={}, llm_top_n=25)
    answers = [ask(one, session, history=()) for session in one.recorded]
    assert len(answers) == 4991  # one of the 4992 lists is empty
    assert sum("duplicate" in answer.repairs for answer in answers) == 509
    assert all(len(set(answer.ranking)) == len(answer.ranking) <= 25 for answer in answers)


# recordings of other data

OWN = (["s1", "s2", "s9"], ["a", "b", "c", "d", "h", "12"])


def test_recordings_that_match_in_part_are_counted(tmp_path, caplog):
    one = teacher(tmp_path)
    check_recordings(one._recordings, *OWN)
    assert (
        "rankings of 4 sessions, 2 of which are training sessions of this data set; "
        "of the 13 items in the rankings 1 are not in it"
        in caplog.text
    )
    caplog.clear()
    check_recordings(one._recordings, ["s1", "s2", "3", "s5"], [*OWN[1], "zz"])
    assert not caplog.records


@pytest.mark.parametrize(
    ("sessions", "items", "words"),
    [
        (
            ["x1", "x2"],
            OWN[1],
            r"none of its 4 session ids \('3', 's1', 's2', ...\) is one of this data set's 2 \('x1', 'x2'\)",
        ),
        (
            OWN[0],
            ["85123A", "22423"],
            r"none of its 7 items \('12', 'a', 'b', ...\) is one of this data set's 2 \('22423', '85123A'\)",
        ),
    ],
)
def test_recordings_of_other_data_are_refused_with_both_kinds_of_id(tmp_path, sessions, items, words):
    with pytest.raises(AlkdError, match=words):
        check_recordings(teacher(tmp_path)._recordings, sessions, items)


@pytest.mark.parametrize("content", ["", "\n\n", '{"session_id": "s1", "ranking": []}'])
def test_a_file_without_a_ranking_says_so(tmp_path, content):
    with pytest.raises(AlkdError, match=r"shop\.llm\.jsonl holds no ranking.*needed is one .*\"session_id\""):
        check_recordings(teacher(tmp_path, content)._recordings, *OWN)


def test_titles_in_place_of_ids_are_refused(tmp_path):
    content = json.dumps({"session_id": "s1", "ranking": ["Toy Story (1995)", "Heat (1995)"]})
    with pytest.raises(
        AlkdError,
        match=r"items \('Heat \(1995\)', 'Toy Story \(1995\)'\) is one of this data set's 6 \('12', 'a'",
    ):
        check_recordings(teacher(tmp_path, content)._recordings, *OWN)


def test_foreign_items_are_left_out_without_titles_too(tmp_path):
    text = "".join(json.dumps(record) + "\n" for record in RECORDS)
    (tmp_path / "shop.llm.jsonl").write_text(text)
    settings = read_settings({"llm_top_n": 3, "llm_teacher": "replay"})
    context = TeacherContext(settings, "shop", tmp_path, {}, tmp_path, items=frozenset("bcd"))
    answer = ask(teachers.get("replay")(context), "s1")
    assert (answer.ranking, dict(answer.repairs)) == (("b", "c", "d"), {"unknown": 1})
    assert ask(teachers.get("replay")(context), "s5").status == "failed"
