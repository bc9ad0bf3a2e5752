"""Every error leaves the console command as one line with an exit code;
the traceback is kept, and shown when asked for."""

from __future__ import annotations

import errno
import logging
import subprocess
import sys

import pytest
from process import ROOT, environment, fresh

from recbole_alkd import AlkdError, door
from recbole_alkd.cli import main
from recbole_alkd.door import describe, leave
from recbole_alkd.listing import all_settings
from recbole_alkd.settings.error import during, what_went_on
from recbole_alkd.settings.groups import FIELDS


def raising(error):
    def command():
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (AlkdError("budget_labels: 0 is not allowed"), 2, "error: budget_labels: 0 is not allowed\n"),
        (AlkdError("two\nlines"), 2, "error: two lines\n"),
        (
            PermissionError(errno.EACCES, "Permission denied", "log"),
            2,
            "error: PermissionError: [Errno 13] Permission denied: 'log'\n",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            2,
            "error: OSError: [Errno 28] No space left on device\n",
        ),
        (
            ZeroDivisionError("division by zero"),
            1,
            "error: ZeroDivisionError: division by zero (--traceback shows where; ",
        ),
        (KeyError("item_id"), 1, "error: KeyError: 'item_id' ("),
        (RuntimeError("\n  first\nsecond"), 1, "error: RuntimeError: first ("),
        (RuntimeError(""), 1, "error: RuntimeError ("),
        (MemoryError(), 1, "error: MemoryError ("),
        (KeyboardInterrupt(), 130, "interrupted: "),
    ],
)
def test_one_line_and_an_exit_code(error, code, expected, capsys, monkeypatch):
    monkeypatch.delenv(door.TRACEBACK, raising=False)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with pytest.raises(SystemExit) as leaving:
        leave(raising(error))
    said = capsys.readouterr().err
    assert leaving.value.code == code
    assert said.startswith(expected) and said.count("\n") == 1


def test_an_end_without_error_is_zero():
    for value in (None, 0):
        with pytest.raises(SystemExit) as leaving:
            leave(lambda value=value: value)
        assert leaving.value.code == 0


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_output_is_no_error(tmp_path, closed):
    program = "import sys; from recbole_alkd.door import leave; "
    program += "leave(lambda: print('said', file=sys.stdout) or print('told', file=sys.stderr))"
    command = ["bash", "-c", f'"$1" -c "$2" {closed}', "bash", sys.executable, program]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    said = ("" if closed.startswith(">") else "said\n", "" if "2>" in closed else "told\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, *said)


def test_the_stage_is_named_and_the_traceback_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(door.TRACEBACK, raising=False)
    handler = logging.FileHandler(tmp_path / "run.log")
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])

    def command():
        with during("labelling"), during("stage teacher"):
            raise ZeroDivisionError("division by zero")

    with pytest.raises(SystemExit):
        leave(command)
    said = capsys.readouterr().err
    assert said.startswith(
        "error: stage teacher: ZeroDivisionError: division by zero (the traceback is in run.log; "
    )
    handler.close()
    log = (tmp_path / "run.log").read_text()
    assert "Traceback (most recent call last)" in log and "in command" in log


def test_the_traceback_is_shown_when_it_is_asked_for(capsys, monkeypatch):
    monkeypatch.setenv(door.TRACEBACK, "1")
    with pytest.raises(SystemExit):
        leave(raising(AlkdError("x: 3 is not allowed")))
    said = capsys.readouterr().err
    assert "Traceback (most recent call last)" in said and said.endswith("error: x: 3 is not allowed\n")


def test_what_went_on_is_the_innermost_name():
    with pytest.raises(ValueError, match="no") as error, during("a"), during("b"):
        raise ValueError("no")
    assert what_went_on(error.value) == "b" and describe(error.value).startswith("b: ValueError: no")


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs ``recbole-alkd WORD ...`` in an empty folder; gives back exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(door.TRACEBACK, "")
    monkeypatch.setattr(logging.getLogger(), "handlers", [])

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["recbole-alkd", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            main()
        return leaving.value.code or 0, *capsys.readouterr()

    return call


def line(done, code=2):
    code_got, _, said = done
    assert code_got == code, said[-2000:]
    last = said.strip().splitlines()[-1]
    assert last.startswith("error: ") and "Traceback" not in said
    return last


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run"], "dataset: none is named; give --dataset=NAME"),
        (["run", "--model=ALKDREC", "--dataset=ml-100k"], "model: 'ALKDREC' is no model"),
        (["run", "--dataset=ml-100k", "--epoch=3"], "epoch: no such setting; did you mean 'epochs'?"),
        (
            ["run", "--model=GRU4Rec", "--dataset=ml-100k", "--train_neg_sample_args=~", "--epoch=3"],
            "did you mean 'epochs'?",
        ),
        (["run", "--dataset=ml-100k", "--nproc=two"], "nproc: 'two' is not allowed"),
        (
            ["run", "--model=GRU4Rec", "--dataset=ml-100k", "--train_neg_sample_args=~", "--nproc=2"],
            "nproc: 2 is not allowed with GRU4Rec",
        ),
        (["select", "--out=x.json", "--dataset=ml-100k", "--nproc=2"], "nproc: 2 is not allowed"),
        (["run", "--model=GRU4Rec", "--dataset=ml-100k"], "should be None when the loss_type is CE"),
        (
            ["select", "--out=x.json", "--dataset=ml-100k", "--alkd_difficulty=hard"],
            "alkd_difficulty: 'hard'",
        ),
        (["label", "--dataset=ml-100k", "--llm_prompt=nuetral"], "llm_prompt: 'nuetral'"),
        (["settings", "no_such_setting_at_all"], "no_such_setting_at_all: no setting has this"),
    ],
)
def test_a_users_mistake_is_one_line_and_code_two(words, expected, command):
    assert expected in line(command(*words))


@pytest.mark.parametrize("name", ["log", "saved"])
def test_a_folder_that_cannot_be_made_is_one_line(name, command, tmp_path):
    (tmp_path / name).write_text("a file")
    assert name in line(command("run", "--dataset=ml-100k", "--epochs=1"))


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--traceback"],
        ["--traceback", "run"],
        ["--traceback", "settings", "zzzzz"],
        ["settings", "zzzzz", "--traceback"],
    ],
)
def test_the_traceback_option_stands_anywhere(words, command):
    code, _, said = command(*words)
    assert code == 2 and "Traceback" in said


def test_version_and_settings(command):
    import recbole

    import recbole_alkd

    code, said, _ = command("--version")
    assert code == 0 and said.count("\n") == 1
    assert f"recbole_alkd {recbole_alkd.__version__}" in said and f"recbole {recbole.__version__}" in said
    code, listed, _ = command("settings", "label_store")
    assert code == 0 and "properties" in listed.splitlines()[0]
    assert (
        "label_store: alkd_labels/labels.sqlite  (text)" in listed
        and "relative to the working directory" in listed
    )
    epochs = command("settings", "epochs")[1]
    assert "epochs: 300  (an integer of at least 0)  [RecBole]\n    The number of training epochs." in epochs
    assert "knn_decay: [0.0, 0.3, 0.5, 0.7]" in command("settings")[1]


def test_every_setting_of_ours_is_listed_with_a_comment():
    listed = {setting.key: setting for setting in all_settings() if setting.place == "ALKDRec"}
    assert set(FIELDS) <= set(listed)
    assert not [key for key in FIELDS if not listed[key].comment]


def test_the_script_leaves_by_the_same_door(tmp_path):
    done = fresh([str(ROOT / "run_recbole_alkd.py"), "--dataset=ml-100k", "--epoch=3"], tmp_path)
    assert done.returncode == 2 and done.stderr.strip().splitlines()[-1].startswith(
        "error: epoch: no such setting"
    )
