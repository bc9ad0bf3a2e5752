"""Recommendations for files of sessions: the same as one by one, and whole whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from process import ROOT, environment
from served import serve
from service_process import alone, table_bundle, until
from test_serving_alone import ALONE

from recbole_alkd.serving import Recommender
from recbole_alkd.serving.file_job import recommend_file
from recbole_alkd.serving.items import Items, write_items
from recbole_alkd.serving.many import _sorted, best_of_rows, distinct
from recbole_alkd.serving.students import best
from recbole_alkd.settings.error import AlkdError


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return table_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


def sessions(count, rng, most=25):
    """Sessions with unknown ids, repeated items, and none at all."""
    return [[str(one) for one in rng.integers(-5, 61, size=rng.integers(0, most))] for _ in range(count)]


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def read(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def same(line, wanted):
    assert line["items"] == [one.item for one in wanted]
    assert line["scores"] == pytest.approx([one.score for one in wanted], rel=1e-6)


@pytest.mark.parametrize("exclude", [True, False])
@pytest.mark.parametrize("k", [1, 10, 500])
def test_the_same_as_one_by_one(bundle, tmp_path, k, exclude):
    here, rows = Recommender.load(bundle), sessions(700, np.random.default_rng(k))
    done = recommend_file(here, write(tmp_path / "in", rows), tmp_path / "out", k, exclude)
    lines = read(tmp_path / "out")
    assert len(lines) == done.done == 700 and here.ignored == 0
    for row, one in zip(rows, lines, strict=True):
        same(one, here.recommend(row, k, exclude_history=exclude))
    assert done.unknown == here.ignored > 0


@pytest.mark.parametrize("name", ["SessionKNN", "SessionFPMC", "GRU4Rec"])
def test_every_kind_of_student(tmp_path, name):
    here = Recommender.load(serve(tmp_path, name).bundle)
    rng = np.random.default_rng(0)
    rows = [[f"i{k}" for k in rng.integers(1, 34, size=rng.integers(0, 9))] for _ in range(40)]
    recommend_file(here, write(tmp_path / "in", rows), tmp_path / "out", 7)
    for row, one in zip(rows, read(tmp_path / "out"), strict=True):
        same(one, here.recommend(row, 7))


def test_best_of_rows_is_best_of_each():
    rng = np.random.default_rng(0)
    for _ in range(50):
        widths = rng.integers(0, 30, size=20)
        rows = np.arange(20).repeat(widths)
        scores = rng.choice(
            np.array([-np.inf, -2.5, -1, -0.0, 0.0, 0.25, 1e-30, 3, 7e8], dtype=np.float32), size=len(rows)
        )
        place, many = best_of_rows(rows, scores, 20, 6)
        assert many.tolist() == np.bincount(rows[place], minlength=20).tolist()
        wanted = [best(np.flatnonzero(rows == row), scores[rows == row], 6)[0] for row in range(20)]
        assert place.tolist() == np.concatenate(wanted).tolist()


@pytest.mark.parametrize("largest", [50, 2**62])  # with room for places beside the keys, and without
def test_distinct_is_numpy_s(largest):
    rng = np.random.default_rng(0)
    keys = rng.integers(0, largest, size=400)
    keys[200:] = keys[:200]
    unique, place = distinct(keys)
    wanted, inverse = np.unique(keys, return_inverse=True)
    assert (unique == wanted).all() and (place == inverse).all()
    order, rising = _sorted(keys)
    assert (order == keys.argsort(kind="stable")).all() and (rising == keys[order]).all()


def test_what_a_session_is_known_by_comes_back(bundle, tmp_path):
    names = ["s1", 7, None, {"user": "ü", "n": [1]}, 1.5]
    rows = [*({"session": name, "history": [3, "7"]} for name in names), {"history": ["3", 7]}, [3, 7]]
    file = write(tmp_path / "in", rows)
    file.write_text(file.read_text().replace("\n", "\n\n \n"))  # empty lines are none
    recommend_file(Recommender.load(bundle), file, tmp_path / "out", 3)
    lines = read(tmp_path / "out")
    assert [one.get("session", "none") for one in lines] == [*names, "none", "none"]
    assert len({str(one["items"]) for one in lines}) == 1
    assert not list(tmp_path.glob("out.*"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nonsense", "'nonsense\\n' is no JSON"), ("7", "7 is not allowed; allowed: a list"), ('"3 7"', "'3 "
                                                                                                        "7' "
                                                                                                        "is "
                                                                                                        "not "
                                                                                                        "allowed"),
        ('{"session": 3}', "no history"), ('{"history": "3"}', "'3' is not allowed"), ('["3", null]', "None "
                                                                                                      "is no "
                                                                                                      "item "
                                                                                                      "id"),
        ('{"history": [], "k": 3}', "'k' is not understood; allowed: history, session"), ("[[3]]", "is no "
                                                                                                   "item id"),
        ("[" * 100_000, "is no JSON"), ('["3"', "is no JSON"),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_read_is_named_and_corrected(bundle, tmp_path, line, words):
    here, rows = Recommender.load(bundle), sessions(300, np.random.default_rng(0))
    file, out = write(tmp_path / "in", rows[:290]), tmp_path / "out"
    with open(file, "a") as stream:
        stream.write(line + "\n")
    with pytest.raises(AlkdError) as error:
        recommend_file(here, file, out)
    assert str(error.value).startswith(f"{file}:291: ") and words in str(error.value)
    assert not out.exists()
    write(file, rows)
    assert recommend_file(here, file, out).resumed == 290
    write(tmp_path / "again", rows)
    recommend_file(here, tmp_path / "again", tmp_path / "wanted")
    assert out.read_bytes() == (tmp_path / "wanted").read_bytes()


def test_another_job_is_not_resumed(bundle, tmp_path):
    here, rows = Recommender.load(bundle), sessions(300, np.random.default_rng(0))
    out = tmp_path / "out"

    def stop(_):
        raise KeyboardInterrupt

    file = write(tmp_path / "in", rows)
    with pytest.raises(KeyboardInterrupt):
        recommend_file(here, file, out, tell=stop)
    for change, words in (
        (lambda: recommend_file(here, file, out, 11), "begun with another k"),
        (lambda: recommend_file(here, file, out, titles=True), "begun with another titles"),
        (
            lambda: recommend_file(here, file, out, exclude_history=False),
            "begun with another exclude_history",
        ),
        (
            lambda: recommend_file(here, write(tmp_path / "other", rows[1:]), out),
            r"first 256 lines are not those of .*out\.part",
        ),
        (
            lambda: recommend_file(Recommender.load(table_bundle(tmp_path / "b", seed=3)), file, out),
            "begun with another bundle",
        ),
    ):
        with pytest.raises(AlkdError, match=words):
            change()
    part = tmp_path / "out.part"
    content = part.read_bytes()
    part.write_bytes(content[:-5])
    with pytest.raises(AlkdError, match=r"shorter than out\.part\.json says"):
        recommend_file(here, file, out)
    part.write_bytes(content + b'{"items": ["half a li')
    assert recommend_file(here, file, out).resumed == 256
    with pytest.raises(AlkdError, match="there is such a file"):
        recommend_file(here, file, out)
    part.write_bytes(b"somebody else's")
    out.unlink()
    with pytest.raises(AlkdError, match=r"out\.part\.json does not say what it is"):
        recommend_file(here, file, out)
    assert part.read_bytes() == b"somebody else's"


@pytest.mark.skipif(sys.platform == "win32", reason="no lock there")
def test_two_processes_do_not_write_one_file(bundle, tmp_path):
    here, file = Recommender.load(bundle), write(tmp_path / "in", [["3"]])

    def another(_):
        with pytest.raises(AlkdError, match="another process is writing it"):
            recommend_file(here, file, tmp_path / "out")

    assert recommend_file(here, file, tmp_path / "out", tell=another).done == 1


def test_killed_again_and_again_it_ends_with_the_same_file(bundle, tmp_path):
    rows = sessions(3000, np.random.default_rng(1))
    file = write(tmp_path / "in", rows)
    recommend_file(Recommender.load(bundle), file, tmp_path / "wanted")
    out = tmp_path / "out"
    # a batch, a note and some pieces of lines that are not noted, and so on:
    # killed at moments of its own choosing
    job = f"""
import os, random, signal, sys
from pathlib import Path
from recbole_alkd.serving import Recommender, file_job
file_job._SAVED, file_job._BATCH = 0.0, 50
random.seed(int(sys.argv[1]))
write = file_job._Job._save
def save(self):
    if random.random() < .05:
        self.target.write(b'{{"items": ["half')
        self.target.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    write(self)
    if random.random() < .05:
        os.kill(os.getpid(), signal.SIGKILL)
file_job._Job._save = save
file_job.recommend_file(Recommender.load({str(bundle)!r}), Path({str(file)!r}), Path({str(out)!r}))
"""
    killed = 0
    for seed in range(100):
        done = subprocess.run(
            [sys.executable, "-c", ALONE + job, str(seed)],
            env=environment(PYTHONPATH=str(ROOT)),
            capture_output=True,
            timeout=60,
        )
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        killed += 1
        assert not out.exists()
    assert killed > 2
    assert out.read_bytes() == (tmp_path / "wanted").read_bytes()
    assert not list(tmp_path.glob("out.*"))


def test_the_command(bundle, tmp_path):
    write(tmp_path / "in.jsonl", [["3", "7"], ["no"]])
    words = ["recommend", "--bundle", str(bundle)]
    done = alone([*words, "--file", "in.jsonl", "--out", "out.jsonl", "-k", "2"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "written: out.jsonl, 2 sessions; 1 ids are not in the catalogue and were ignored\n"
    assert [len(one["items"]) for one in read(tmp_path / "out.jsonl")] == [2, 2]
    for more, said in (
        (["--file", "in.jsonl"], "--out: it goes with --file"), (["--history", "3", "--out", "x"], "--out: "
                                                                                                   "it goes "
                                                                                                   "with "
                                                                                                   "--file"),
        (["--file", "none.jsonl", "--out", "x"], "none.jsonl"),
        (["--file", "in.jsonl", "--out", "no/x"], "no/x"),
        (["--file", "in.jsonl", "--out", "x", "-k", "0"], "k: 0 is not allowed"),
    ):  # fmt: skip
        done = alone([*words, *more], tmp_path)
        assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1, (
            done.stderr
        )


def test_ctrl_c_is_resumed(bundle, tmp_path):
    file = write(tmp_path / "in", sessions(30_000, np.random.default_rng(1), most=8))
    command = ["recommend", "--bundle", str(bundle), "--file", str(file), "--out", "out"]
    code = ALONE + f"from recbole_alkd.cli import main; main({command!r})"
    where = environment(PYTHONPATH=str(ROOT))
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=where, stderr=subprocess.PIPE)
    until(lambda: (tmp_path / "out.part").exists() and os.path.getsize(tmp_path / "out.part") > 1000)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    done = alone(command, tmp_path)
    assert done.returncode == 0 and "of them by an earlier start" in done.stdout
    assert len(read(tmp_path / "out")) == 30_000


def test_titles_in_place_of_ids(bundle, tmp_path):
    """Whole, in any case; an id is an id first, and of items with one title the most popular is taken."""
    here = Recommender.load(bundle)
    assert here.items.title(3) == "The 3. film" and "<b>" in here.items.title(7)
    rows = [["the 3.  FILM", "4"], [here.items.title(7)], ["The 3. fil", "5"], ["", " ", "\n"], ["3", "4"]]
    file = write(tmp_path / "in", rows)
    done = recommend_file(here, file, tmp_path / "out", 5, titles=True)
    lines = read(tmp_path / "out")
    for line, ids in zip(lines, (["3", "4"], ["7"], ["5"], [], ["3", "4"]), strict=True):
        same(line, here.recommend(ids, 5))
    assert done.unknown == 4
    plain = recommend_file(here, file, tmp_path / "plain", 5)
    assert plain.unknown == 6 and read(tmp_path / "plain")[0]["items"] != lines[0]["items"]
    command = ["recommend", "--bundle", str(bundle), "--file", "in", "--out", "said", "-k", "5", "--titles"]
    assert alone(command, tmp_path).returncode == 0
    assert (tmp_path / "said").read_bytes() == (tmp_path / "out").read_bytes()
    said = alone(["recommend", "--bundle", str(bundle), "--history", "3", "--titles"], tmp_path)
    assert said.returncode == 2 and "--titles: it goes with --file" in said.stderr


def test_of_items_with_one_title_the_most_popular_is_named(tmp_path):
    titles = ["Emma", "emma ", "", "Ëmma", "Other"]
    write_items(tmp_path, ["a", "b", "c", "d", "e"], titles, np.array([0, 1, 5, 9, 7, 5]))
    items = Items.read(tmp_path)
    assert items.titled(["EMMA", "Other", "", "Emm", "a"]).tolist() == [4, 5, 0, 0, 0]
