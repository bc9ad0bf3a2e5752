"""The console command, in real processes: select, sessions, help, and errors of one line."""

from __future__ import annotations

import json
import re
import sys

import pytest
from process import run
from test_trainer import BASE, go, home  # noqa: F401  (the fixture)

from recbole_alkd.cli import main


def cli(home, *words):  # noqa: F811
    return run(["-m", "recbole_alkd.cli", *words], home)


def settings(**extra):
    values = {**BASE, "alkd_plugins": [], "llm_teacher": "recommender", "data_path": "data", **extra}
    return [
        "--dataset=tiny",
        *(f"--{k}={json.dumps(v) if isinstance(v, (list, dict)) else v}" for k, v in values.items()),
    ]


def test_select_asks_nobody_and_listed_takes_it_up(home):  # noqa: F811
    done = cli(home, "select", "--out=picks.json", *settings())
    assert done.returncode == 0, done.stderr[-2000:]
    assert "12 of 40 sessions written to picks.json" in done.stdout
    content = json.loads((home / "picks.json").read_text())
    assert len(set(content["picks"])) == 12 and content["pool"] == 40
    assert 0 < content["value"] <= content["upper"] and content["gap"] == content["upper"] - content["value"]
    assert not (home / "alkd_labels").exists()
    report = go(alkd_policy="listed", alkd_picks="picks.json#picks")
    assert report["policy"]["picks"] == content["picks"]


def test_select_draws_a_picture(home):  # noqa: F811
    pytest.importorskip("matplotlib", reason="the extra `bench`")
    done = cli(
        home, "select", "--out=picks.json", "--picture=picks.png", *settings(alkd_policy="uncertainty")
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (home / "picks.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((home / "picks.json").read_text())["value"] is None


def test_the_run_that_follows_a_selection_does_not_train_the_recommender_again(home):  # noqa: F811
    assert cli(home, "select", "--out=picks.json", *settings(state="INFO")).returncode == 0
    done = cli(home, "run", *settings(state="INFO"))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "stage teacher recommender: finished by an earlier run" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["select", "--out=picks.json", "alkd_mu", "3"], "'alkd_mu' is not understood"),
        (
            ["select", "--out=picks.json", *settings(alkd_ratio="pilot", alkd_pilot=2)],
            "alkd_ratio: 'pilot' needs labels",
        ),
        (["sessions", "--inter", "none.inter", "--out", "x"], "none.inter"),
    ],
)
def test_errors_are_one_line(home, words, expected):  # noqa: F811
    done = cli(home, *words)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and expected in last and "Traceback" not in done.stderr


def test_help_names_the_commands(home):  # noqa: F811
    done = cli(home, "--help")
    assert done.returncode == 0
    for name in ("run", "select", "label", "sessions", "bench", "store"):
        assert name in done.stdout


def help_texts(monkeypatch, capsys, *words):
    """The ``--help`` of a command and of all commands below it, as (words, text)."""
    monkeypatch.setattr(sys, "argv", ["recbole-alkd"])
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert ended.value.code == 0, words
    text = capsys.readouterr().out
    yield words, text
    for name in re.findall(r"^    ([a-z][\w-]*)(?: |$)", text, re.MULTILINE):
        yield from help_texts(monkeypatch, capsys, *words, name)


def test_no_help_shows_a_default_that_is_none(monkeypatch, capsys):
    texts = dict(help_texts(monkeypatch, capsys))
    assert len(texts) > 25 and {("bench",), ("lora-curve",), ("store", "merge"), ("tune",)} <= texts.keys()
    shown = {
        words: re.findall(r"\(default: ?([^)]*)", " ".join(text.split())) for words, text in texts.items()
    }
    said = [one for ones in shown.values() for one in ones]
    assert not [one for one in said if one[:1] in ("[", "(", "'") or one in ("None", "False", "True", "")]
    assert {"1"} <= set(shown["bench",]) and {"0 250 1000", "cpu", "natural"} <= set(shown["lora-curve",])
    assert {"86400", "0.6 0.2 0.2", "random"} <= set(shown["sessions",])


def test_the_console_command_finds_plug_ins_in_the_working_directory(tmp_path):
    """A console command has its own folder on Python's path, and not the working directory."""
    script, here = tmp_path / "bin" / "recbole-alkd", tmp_path / "here"
    script.parent.mkdir()
    here.mkdir()
    script.write_text("from recbole_alkd.cli import main\nmain()\n")
    (here / "my_shelf.py").write_text(
        "from recbole_alkd.active.policy.base import Policy\nfrom recbole_alkd.registry import policies\n"
        "from recbole_alkd.settings.field import Field\n\n"
        "@policies.register('shelf', settings={'shelf_height': Field(3, int, help='Rows of a shelf.')})\n"
        "class Shelf(Policy):\n    pass\n"
    )
    words = [str(script), "settings", "shelf_height", "--plugins", "my_shelf"]
    done = run(words, here)
    assert "shelf_height: 3" in done.stdout, done.stderr
    elsewhere = run(words, tmp_path)
    assert elsewhere.returncode == 2 and "cannot import 'my_shelf'" in elsewhere.stderr
