"""The ALKDRec authors' release: every layout of its sessions that can be told by the recorded rankings,
and no other.

A real clone is not in the tests. The text files are built as the release has them; the pickled sessions,
whose layout is described nowhere, in several ways.
"""

from __future__ import annotations

import csv
import json
import os
import pickle
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from process import ROOT, run

from recbole_alkd.data.importers import import_alkdrec
from recbole_alkd.data.recorded_tables import Layout
from recbole_alkd.data.titles import load_titles
from recbole_alkd.settings.error import AlkdError

DATA = Path(os.environ.get("RECBOLE_ALKD_DATA", ROOT.parent / "shared" / "data")) / "alkdrec-ml"
TITLES = [f"Film {k}" for k in range(28)] + ['The "other" one, part 2', "Tab\tand\nline"]
TOKENS = [str(3 * k + 1) for k in range(30)]


def sessions(count: int = 40, short: bool = False) -> list[list[int]]:
    """Item numbers; with ``short`` every fifth session is too short."""
    rng = random.Random(5)
    return [rng.sample(range(30), 3 if short and k % 5 == 0 else rng.randint(5, 9)) for k in range(count)]


def write_clone(
    folder: Path, table: Any, kept: dict[int, list[int]], tokens: list[str], titles: list[str]
) -> Path:
    """A clone whose recorded rankings fit the sessions ``kept`` (number -> items, label last)."""
    place = folder / "datasets" / "ML"
    place.mkdir(parents=True)
    with (place / "ML_title.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows(
            [("itemID", "title"), *zip(tokens, titles, strict=True)]
        )
    rng = random.Random(6)
    train = sorted(kept)[: int(0.6 * len(kept))]
    lines = []
    for number in rng.sample(train, min(20, len(train))):
        ranking = [*rng.sample(range(len(tokens)), 6), len(tokens) + 3]  # the last one is no item
        label = kept[number][-1]
        lines.append(f"{number}\t{ranking}\t{ranking.index(label) if label in ranking else 25}\n")
    (place / "ML_LLM_Database.data").write_text("".join(lines))
    for name in ("ALKERec", "RAD-BC", "easiest"):
        (place / f"ML_{name}.base").write_text("".join(f"{number}\n" for number in rng.sample(train, 10)))
    with (place / "ML.pkl").open("wb") as stream:
        pickle.dump(table, stream, protocol=4)
    return folder


def layouts() -> dict[str, tuple[Any, dict[int, list[int]], Layout]]:
    """Name -> the pickled table, its sessions, and how it is read."""
    plain, short = sessions(), sessions(short=True)
    numbered = dict(enumerate(plain))
    long_enough = dict(enumerate(items for items in short if len(items) >= 5))
    ids = [number + 100 for number in numbered]
    return {
        "a list of sessions": (plain, numbered, Layout("items")),
        "a column of whole sessions": (pd.DataFrame({"i": plain, "x": [0.5] * 40}), numbered, Layout("i")),
        "history and label": (
            pd.DataFrame({"h": [s[:-1] for s in plain], "l": [s[-1] for s in plain]}),
            numbered,
            Layout("h", "l"),
        ),
        "numbers of its own": (
            pd.DataFrame({"s": ids, "i": plain}),
            dict(zip(ids, plain, strict=True)),
            Layout("i", None, "s"),
        ),
        "ids of the title file": (
            {"i": [[int(TOKENS[k]) for k in s] for s in plain]},
            numbered,
            Layout("i", raw=True),
        ),
        "short sessions first left out": (pd.DataFrame({"i": short}), long_enough, Layout("i")),
        "one item a row": (
            pd.DataFrame([(n, item) for n, s in numbered.items() for item in s], columns=["s", "i"]),
            numbered,
            Layout("i", None, "s"),
        ),
    }


@pytest.mark.parametrize("name", layouts())
def test_the_layout_is_found_by_the_recorded_places(tmp_path: Path, name: str) -> None:
    table, kept, layout = layouts()[name]
    write_clone(tmp_path / "clone", table, kept, TOKENS, TITLES)
    report = import_alkdrec(tmp_path / "clone", tmp_path / "mine")
    assert report["layout"] == layout
    ends = [int(0.6 * len(kept)), int(0.8 * len(kept))]
    assert (report["train"], report["valid"], report["test"]) == (
        ends[0],
        ends[1] - ends[0],
        len(kept) - ends[1],
    )
    rows = {}
    for part in ("train", "valid", "test"):
        head, *lines = (tmp_path / "mine" / f"mine.{part}.inter").read_text().splitlines()
        assert head == "session_id:token\titem_id_list:token_seq\titem_id:token"
        rows |= {
            session: [*history.split(), label]
            for session, history, label in (line.split("\t") for line in lines)
        }
    assert rows == {str(number): [TOKENS[item] for item in items] for number, items in kept.items()}
    records = [json.loads(line) for line in (tmp_path / "mine" / "mine.llm.jsonl").read_text().splitlines()]
    assert report["ranked_items_dropped"] == len(records) == report["rankings"]
    for record in records:
        label = rows[record["session_id"]][-1]
        assert record["hit"] == (record["ranking"].index(label) if label in record["ranking"] else 25)
    titles = (tmp_path / "mine" / "mine.item").read_text().splitlines()
    assert titles[-2:] == [f"{TOKENS[28]}\tThe other one, part 2", f"{TOKENS[29]}\tTab and line"]
    picks = json.loads((tmp_path / "mine" / "mine.selection.json").read_text())
    assert {key: len(value) for key, value in picks.items()} == {"alkdrec": 10, "rad_bc": 10, "easiest": 10}


def write_release(folder: Path) -> tuple[Path, dict[int, tuple[list[str], str]]]:
    """A made-up release as the authors' loader reads theirs: ids that no title row has, in sessions and in
    labels, sessions of two items, an item with an empty title, an item that stands twice, a ranking of fifty.
    Gives the sessions that are left."""
    place = folder / "datasets" / "Games"
    place.mkdir(parents=True)
    tokens = [f"B{k:03d}X" for k in range(40)]
    with (place / "Games_title.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = [
            ("itemID", "title"),
            *((token, "" if k == 3 else f"Game, part {k}") for k, token in enumerate(tokens)),
        ]
        csv.writer(stream, lineterminator="\n").writerows([*rows[:20], (tokens[2], "again"), *rows[20:]])
    rng = random.Random(8)
    table, kept = [], {}
    for k in range(60):
        history, label = (
            rng.sample([*tokens, "GONE1", "GONE2"], 1 if k % 7 == 0 else rng.randint(2, 8)),
            rng.choice(tokens),
        )
        history, label = (["GONE1"] if k % 11 == 5 else history), ("GONE3" if k % 13 == 6 else label)
        table.append({"session": history, "label": label, "negatives": rng.sample(tokens, 5)})
        known = [item for item in history if item in tokens]
        if known and label in tokens:
            kept[len(kept)] = (known, label)
    with (place / "Games.pkl").open("wb") as file:
        pickle.dump(pd.DataFrame(table), file, protocol=4)
    lines = []
    for number, (_, label) in list(kept.items())[:25]:
        ranking = rng.sample(range(40), 36 if number == 4 else 25)
        at = tokens.index(label)
        lines.append(f"{number}\t{ranking}\t{ranking.index(at) if at in ranking else 25}\n")
    (place / "Games_LLM_Database.data").write_text("".join(lines))
    (place / "Games_easiest.base").write_text("0\n3\n")
    return folder, kept


def test_a_release_is_read_as_its_own_loader_reads_it(tmp_path: Path, config_of) -> None:
    clone, kept = write_release(tmp_path / "clone")
    report = import_alkdrec(clone, tmp_path / "alkdrec-games", "Games")
    assert 40 < len(kept) < 60 and min(len(history) for history, _ in kept.values()) == 1
    assert (report["sessions"], report["items"], report["rankings"]) == (len(kept), 40, 25)
    assert report["layout"] == Layout("session", "label", raw=True)
    rows: dict[str, tuple[list[str], str]] = {}
    for part in ("train", "valid", "test"):
        for line in (tmp_path / "alkdrec-games" / f"alkdrec-games.{part}.inter").read_text().splitlines()[1:]:
            session, history, label = line.split("\t")
            rows[session] = (history.split(), label)
    assert rows == {str(number): pair for number, pair in kept.items()}
    titles = load_titles(tmp_path / "alkdrec-games", "alkdrec-games", "item_id")
    assert len(titles) == 40 and titles["B002X"] == "Game, part 2" and titles["B003X"] == "item B003X"
    # the shipped settings and the ones beside the files say the same
    (tmp_path / "alkdrec-games" / "alkdrec-games.yaml").unlink()
    config = config_of(
        "alkdrec-games", model="ALKDRec", llm_teacher="replay", load_col={"inter": ["session_id"]}
    )
    assert (
        config["benchmark_filename"] == ["train", "valid", "test"] and config["USER_ID_FIELD"] == "session_id"
    )


def test_what_is_named_is_not_searched_for(tmp_path: Path) -> None:
    table, kept, _ = layouts()["history and label"]
    write_clone(tmp_path / "clone", table, kept, TOKENS, TITLES)
    report = import_alkdrec(
        tmp_path / "clone", tmp_path / "mine", items_column="h", label_column="l", raw_ids=False
    )
    assert report["sessions"] == 40
    with pytest.raises(
        AlkdError, match=r"no way of reading .*at most \d+\); there are 40 rows with the columns .*h \(\["
    ):
        import_alkdrec(
            tmp_path / "clone", tmp_path / "other", items_column="h", label_column="l", raw_ids=True
        )
    with pytest.raises(AlkdError, match="no column 'x'"):
        import_alkdrec(tmp_path / "clone", tmp_path / "other", items_column="x")
    assert not (tmp_path / "other").exists()


def test_sessions_that_contradict_the_rankings_are_refused(tmp_path: Path) -> None:
    plain = sessions()
    shuffled = dict(enumerate(plain[::-1]))
    write_clone(tmp_path / "clone", plain, shuffled, TOKENS, TITLES)
    with pytest.raises(
        AlkdError, match="no way of reading its sessions makes the hits of all 20 recorded rankings true"
    ):
        import_alkdrec(tmp_path / "clone", tmp_path / "mine")


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("ML_title.csv", "id,name\n1,x\n", "the columns itemID,title are expected, found id,name"),
        ("ML_title.csv", "itemID,title\n1\n", "row 2"),
        ("ML_LLM_Database.data", "1\t[1, 2\t0\n", "line 1: session"),
        ("ML_LLM_Database.data", "1\t[true]\t0\n", "line 1: session"),
        ("ML_LLM_Database.data", "", "without recorded rankings"),
        ("ML_easiest.base", "1\nx\n", "one session number a line"),
        ("ML_easiest.base", "99999\n", "names session 99999"),
        ("ML.pkl", "no pickle", "not readable as a pickle"),
        ("ML.pkl", None, "no datasets/ML/ML.pkl"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, file: str, content: str | None, words: str) -> None:
    plain = sessions()
    place = (
        write_clone(tmp_path / "clone", plain, dict(enumerate(plain)), TOKENS, TITLES)
        / "datasets"
        / "ML"
        / file
    )
    if content is None:
        place.unlink()
    else:
        place.write_text(content)
    with pytest.raises(AlkdError, match=words):
        import_alkdrec(tmp_path / "clone", tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_the_command(tmp_path: Path) -> None:
    plain = sessions()
    write_clone(tmp_path / "clone", plain, dict(enumerate(plain)), TOKENS, TITLES)
    done = run(["-m", "recbole_alkd.cli", "import", "alkdrec", "clone", "--out", "data/mine"], tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "ML.pkl was read as Layout(items='items'" in done.stdout
    assert "benchmark_filename: [train, valid, test]" in done.stdout
    assert (tmp_path / "data" / "mine" / "mine.train.inter").is_file()


@pytest.mark.slow
@pytest.mark.skipif(
    not DATA.is_dir(), reason="alkdrec-ml is not there; set RECBOLE_ALKD_DATA to the data folder"
)
def test_the_paper_s_sessions_there_and_back(tmp_path: Path) -> None:
    """From the imported files back to a clone in one of the layouts, and again: the same files."""
    rows = [
        line.split("\t") for line in (DATA / "alkdrec-ml.item").read_text(encoding="utf-8").splitlines()[1:]
    ]
    tokens = [row[0] for row in rows]
    number = {token: k for k, token in enumerate(tokens)}
    whole = []
    for part in ("train", "valid", "test"):
        for line in (DATA / f"alkdrec-ml.{part}.inter").read_text().splitlines()[1:]:
            session, history, label = line.split("\t")
            whole.append((int(session), [number[token] for token in [*history.split(), label]]))
    place = tmp_path / "clone" / "datasets" / "ML"
    place.mkdir(parents=True)
    pd.DataFrame(whole, columns=["a", "b"]).to_pickle(place / "ML.pkl", protocol=4)
    with (place / "ML_title.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows([("itemID", "title"), *rows])
    records = [json.loads(line) for line in (DATA / "alkdrec-ml.llm.jsonl").read_text().splitlines()]
    lines = (f"{r['session_id']}\t{[number[token] for token in r['ranking']]}\t{r['hit']}\n" for r in records)
    (place / "ML_LLM_Database.data").write_text("".join(lines))
    picks = json.loads((DATA / "alkdrec-ml.selection.json").read_text())
    for policy, chosen in picks.items():
        name = {"alkdrec": "ALKERec", "rad_bc": "RAD-BC"}.get(policy, policy)
        (place / f"ML_{name}.base").write_text("\n".join(chosen))
    report = import_alkdrec(tmp_path / "clone", tmp_path / "alkdrec-ml")
    assert (report["sessions"], report["items"], report["rankings"]) == (12_323, 8_475, 4_992)
    for name in ("train.inter", "valid.inter", "test.inter", "item", "llm.jsonl"):
        assert (tmp_path / "alkdrec-ml" / f"alkdrec-ml.{name}").read_bytes() == (
            DATA / f"alkdrec-ml.{name}"
        ).read_bytes(), name
    assert json.loads((tmp_path / "alkdrec-ml" / "alkdrec-ml.selection.json").read_text()) == picks
    # one session moved, and the recorded places tell
    with pytest.raises(AlkdError, match="no way of reading"):
        broken = [*whole[1:], whole[0]]
        pd.DataFrame({"b": [items for _, items in broken]}).to_pickle(place / "ML.pkl", protocol=4)
        import_alkdrec(tmp_path / "clone", tmp_path / "alkdrec-ml")
