"""recbole-alkd sessions."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path

import pytest
import yaml
from session_files import read_rows, token_rows, write_inter

from recbole_alkd.data.cli import add_sessions_command
from recbole_alkd.data.sessions import make_sessions

CLICKS = [(f"s{s}", f"i{k}", 1_291_191_960_000 + s * 100 + k) for s in range(12) for k in (2, 0, 1)]


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_sessions_command(parser.add_subparsers())
    return parser.parse_args(["sessions", *words])


def test_same_names_and_defaults_as_make_sessions() -> None:
    args = vars(parse("--inter", "a", "--out", "b"))
    args.pop("run")
    signature = inspect.signature(make_sessions).parameters
    assert args == {name: p.default for name, p in signature.items() if name not in ("inter", "out")} | {
        "inter": "a",
        "out": "b",
    }


def test_dashes_and_underscores() -> None:
    one = parse(
        "--inter",
        "a",
        "--out",
        "b",
        "--min-length",
        "3",
        "--split",
        "0.5",
        "0.3",
        "0.2",
        "--window",
        "none",
        "--time-unit",
        "ms",
    )
    two = parse(
        "--inter=a",
        "--out=b",
        "--min_length=3",
        "--split",
        "0.5",
        "0.3",
        "0.2",
        "--window=~",
        "--time_unit=ms",
    )
    assert (
        vars(one) == vars(two) and one.window is None and one.min_length == 3 and one.split == [0.5, 0.3, 0.2]
    )


@pytest.mark.parametrize(
    "words", [["--order", "RO"], ["--window", "day"], ["--augmentation", "all"], ["--split", "0.8", "0.2"]]
)
def test_wrong_words(words: list[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--inter", "a", "--out", "b", *words)


def test_run_prints_counts_and_settings_that_read_the_files(tmp_path: Path, capsys, config_of, build) -> None:
    raw = write_inter(tmp_path / "raw.inter", CLICKS, "visit:token\tsku:token\ttimestamp:float")
    args = parse(
        *(
            "--inter",
            str(raw),
            "--out",
            str(tmp_path / "made"),
            "--session-field",
            "visit",
            "--item-field",
            "sku",
        ),
        *("--min-length", "3", "--time-unit", "ms", "--augmentation", "last"),
    )
    assert args.run(args) == 0
    printed = capsys.readouterr().out
    assert "sessions                      12\n" in printed
    hint = yaml.safe_load(printed.split("with\n")[1])
    parts = build(config_of("made", **hint, session_augmentation="last"))
    assert [token_rows(part) for part in parts] == [
        read_rows(tmp_path / "made", part) for part in ("train", "valid", "test")
    ]
