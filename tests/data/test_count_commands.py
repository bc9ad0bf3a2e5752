"""What ``count``, ``merge`` and ``table`` are given by mistake is told in one line, with what is allowed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from recbole_alkd.cli import main
from recbole_alkd.data import count_spark
from recbole_alkd.data.click_blocks import ClickColumns
from recbole_alkd.data.count_sessions import count_file
from recbole_alkd.data.partial_counts import CountSettings

COUNTED = "counted.counts.safetensors"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Clicks, their counts, and a plain file where a folder is wanted."""
    folder = tmp_path_factory.mktemp("commands")
    rng = random.Random(0)
    rows = [f"s{s}\ti{rng.randrange(9)}\t{1000 + k}" for s in range(40) for k in range(rng.randrange(2, 8))]
    (folder / "a.inter").write_text(
        "\n".join(["session_id:token\titem_id:token\ttimestamp:float", *rows]) + "\n"
    )
    (folder / "plain").write_text("no folder\n")
    (folder / "empty").mkdir()
    counted = count_file(
        folder / "a.inter", folder / "c", ClickColumns("session_id", window=None), CountSettings()
    )
    counted.rename(folder / COUNTED)
    return folder


def files(folder):
    return sorted(one for one in folder.rglob("*") if one.is_file())


def told(words, place, monkeypatch, capsys):
    """The exit code and what the command says."""
    monkeypatch.chdir(place)
    before = files(place)
    with pytest.raises(SystemExit) as ended:
        main(words)
    out = capsys.readouterr()
    if ended.value.code:
        assert files(place) == before
    return ended.value.code or 0, out.out, out.err


COUNT = ["count", "--inter", "a.inter", "--session-field", "session_id"]
TABLE = ["table", "--counts", COUNTED]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*COUNT, "--out", "plain"], "--out: 'plain' cannot be made, because '*/plain' is a file"),
        ([*COUNT, "--out", "plain/x"], "--out: 'plain/x' cannot be made, because '*/plain' is a file"),
        (["merge", COUNTED, "--out", "plain/x"], "--out: 'plain' cannot be made"),
        ([*TABLE, "--out", "plain/x"], "--out: 'plain' cannot be made"),
        ([*TABLE, "--out", "plain"], "plain is there already; allowed: a folder that is not there"),
        (
            [*TABLE, "--out", "x", "--source-exponent", "200"],
            "under source_exponent 200 and target_exponent 0.2 every weight rounds to 0",
        ),
        (
            [*TABLE, "--out", "x", "--target-exponent", "90"],
            "under source_exponent 0.5 and target_exponent 90 every weight rounds to 0",
        ),
        ([*COUNT, "--out", "x", "--encoding", "base64"], "encoding: 'base64' is no encoding of text"),
        (["merge", "empty", "--out", "new"], "empty: no *.counts.safetensors in it"),
    ],
)
def test_a_mistake_is_one_line(place, words, message, monkeypatch, capsys):
    code, _, err = told(words, place, monkeypatch, capsys)
    assert code == 2 and err.count("\n") == 1, err
    assert message.replace("*/plain", f"{place}/plain") in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*COUNT, "--out", ""], "argument --out: '' is no path"),
        (["count", "--inter", "", "--out", "x"], "argument --inter: '' is no path"),
        (["merge", "", "--out", "x"], "argument COUNTS: '' is no path"),
        (["merge", COUNTED, "--out", ""], "argument --out: '' is no path"),
        (["table", "--counts", "", "--out", "x"], "argument --counts: '' is no path"),
        (
            [*COUNT, "--out", "x", "--last-items", "few"],
            "'few' is not allowed; allowed: a whole number, or all",
        ),
        ([*COUNT, "--out", "x", "--window", "1d"], "'1d' is not allowed; allowed: a whole number, or none"),
    ],
)
def test_a_word_that_cannot_be_read_is_named(place, words, message, monkeypatch, capsys):
    code, _, err = told(words, place, monkeypatch, capsys)
    assert code == 2 and message in err


def test_counts_without_a_pair_are_told_from_weights_that_round_to_nothing(place, monkeypatch, capsys):
    # every session has one item, many times
    words = ["count", "--inter", "a.inter", "--session-field", "session_id", "--item-field", "session_id"]
    assert told([*words, "--out", "alone"], place, monkeypatch, capsys)[0] == 0
    code, _, err = told(["table", "--counts", "alone", "--out", "new"], place, monkeypatch, capsys)
    assert code == 2 and "no pair of items in them, so that the table would be empty" in err


def test_count_takes_the_words_of_sessions(place, monkeypatch, capsys):
    """``--window none`` and ``--separator tab``; and a window longer than all times is none."""
    words = ["count", "--inter", "a.inter", "--user-field", "session_id", "--separator", "tab"]
    for out, window in (("none", "none"), ("longest", "9" * 30)):
        code, said, _ = told(
            [*words, "--out", out, "--window", window, "--time-unit", "s"], place, monkeypatch, capsys
        )
        assert code == 0 and "in 40 sessions, 9 items" in said


def test_the_largest_repeat_is_taken_without_a_warning(place, monkeypatch, capsys):
    code, _, err = told([*TABLE, "--out", "loud", "--repeat", "1e300"], place, monkeypatch, capsys)
    assert code == 0 and not err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--out", "plain"], "error: --out: 'plain' cannot be made"),
        (["--out", "x", "--tasks", "0"], "error: --tasks: 0 is not allowed"),
        (["--out", "x", "--last-items", "1"], "error: --last-items: 1 is not allowed"),
    ],
)
def test_the_command_of_spark_says_the_same(place, given, message, monkeypatch, capsys):
    """Before Spark is started."""
    monkeypatch.chdir(place)
    monkeypatch.setattr("sys.argv", ["count_spark", "--inter", "clicks", *given])
    with pytest.raises(SystemExit) as ended:
        count_spark.main()
    err = capsys.readouterr().err
    assert ended.value.code == 2 and err.startswith(message) and err.count("\n") == 1


@pytest.mark.parametrize("kilobytes", [8, 40])
def test_a_full_disk_is_named_with_what_was_to_be_written(place, tmp_path, monkeypatch, capsys, kilobytes):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "labels")
    from disks import small_disk

    rows = "".join(f"s{k % 300}\ti{k * k % 1009}\t{k}\n" for k in range(4000))
    (tmp_path / "b.inter").write_text("session_id:token\titem_id:token\ttimestamp:float\n" + rows)
    columns = ClickColumns("session_id", window=None)
    counted = count_file(tmp_path / "b.inter", tmp_path / "c", columns, CountSettings())
    count = ["count", "--inter", str(tmp_path / "b.inter"), "--session-field", "session_id"]
    with small_disk(tmp_path / "disk", kilobytes) as disk:
        for words in (
            [*count, "--window", "none", "--out", str(disk / "c")],
            ["merge", str(counted), "--out", str(disk / "all")],
            ["table", "--counts", str(counted), "--out", str(disk / "t")],
        ):
            code, _, said = told(words, place, monkeypatch, capsys)
            assert code == 2 and said.count("\n") == 1
            assert str(disk) in said and said.endswith("cannot be written: No space left on device\n")
        assert not files(disk)


def test_the_table_of_counts_says_how_sessions_are_added_to_it(place, tmp_path, monkeypatch, capsys):
    out = str(tmp_path / "t")
    assert told([*TABLE, "--out", out], place, monkeypatch, capsys)[0] == 0
    words = ["update", "--bundle", out, "--inter", "a.inter", "--out", str(tmp_path / "new")]
    code, _, said = told(words, place, monkeypatch, capsys)
    assert code == 2 and "merge both files of counts" in said
