"""What a user sees while a model trains: a line an epoch and nothing twice, for every model that our command
runs; RecBole's own lines are in the log file."""

from __future__ import annotations

import io
import sys

import pytest
from process import ROOT, run

from recbole_alkd import bars
from recbole_alkd.bars import progress_bar
from recbole_alkd.trainer.console import SingleModel

FAST = ["--dataset=tiny", "--data_path=data", "--epochs=3", "--topk=[5]", "--valid_metric=NDCG@5"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("console")
    clicks = [(user, step) for user in range(60) for step in range(6)]
    rows = [f"u{user}\ti{(user + step) % 12}\t{86400 * user + 60 * step}" for user, step in clicks]
    (home / "data" / "tiny").mkdir(parents=True)
    header = "user_id:token\titem_id:token\ttimestamp:float"
    (home / "data" / "tiny" / "tiny.inter").write_text("\n".join([header, *rows]) + "\n")
    return home


def lines_of(done):
    assert done.returncode == 0, done.stderr[-2000:]
    return [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]


@pytest.mark.parametrize(
    ("words", "epochs"),
    [
        (["-m", "recbole_alkd.cli", "run", "--model=SessionKNN"], 0),
        (["-m", "recbole_alkd.cli", "run", "--model=SessionFPMC"], 3),
        ([str(ROOT / "run_recbole_alkd.py"), "--model=BPR"], 3),
    ],
    ids=["counted", "ours", "recbole"],
)
def test_a_single_model_says_what_a_reader_needs(home, words, epochs):
    lines = lines_of(run([*words, *FAST], home))
    texts = [line.partition("INFO  ")[2] for line in lines]
    assert len(lines) < 12 + epochs
    assert sum(text.startswith("epoch ") for text in texts) == epochs
    for nothing in ("learning_rate =", "FLOPs", "Environment", "OrderedDict", "Saving", "Evaluate", "it/s"):
        assert nothing not in "\n".join(lines)
    assert len({*texts}) == len(texts) or texts.count("") > 1
    (log,) = [text.split()[2] for text in texts if text.startswith("log file: ")]
    kept = (home / log).read_text()
    assert "learning_rate =" in kept and "FLOPs" in kept and "test result" in kept
    assert kept.count("training [time") == epochs
    valid, test = (next(line for line in lines if line.startswith(name)) for name in ("valid ", "test "))
    assert len(valid.split()) == len(test.split()) > 3


def test_all_of_it_where_that_is_asked_for(home):
    words = ["-m", "recbole_alkd.cli", "run", "--model=SessionFPMC", "--short_log=False", *FAST]
    printed = "\n".join(lines_of(run(words, home)))
    assert "learning_rate =" in printed and "epoch 0 evaluating" in printed and "FLOPs" in printed


def test_recboles_own_function_speaks_as_it_does(home):
    code = "import sys, recbole_alkd; from recbole.quick_start import run_recbole; sys.argv = ['x']; "
    code += "run_recbole('BPR', 'tiny', config_dict={'data_path': 'data', 'epochs': 1})"
    printed = "\n".join(lines_of(run(["-c", code], home)))
    assert "learning_rate =" in printed and "epoch 0 training" in printed


def test_epochs_that_nobody_judges_have_a_line_too():
    single = SingleModel("NDCG@10", True, every=2)
    said = [
        "\x1b[1;32mepoch 0 training\x1b[0m [\x1b[1;34mtime\x1b[0m: 1.50s, \x1b[1;34mtrain loss\x1b[0m: 2.0]",
        "epoch 1 training [time: 1.00s, train loss: 1.5]",
        "epoch 1 evaluating [time: 0.10s, valid_score: 0.250000]",
        "epoch 2 training [time: 1.00s, train_loss1: 1.0000, train_loss2: 2.0000]",
        "epoch 3 training [time: 1.00s, train loss: 1.2]",
        "epoch 3 evaluating [time: 0.10s, valid_score: 0.200000]",
    ]
    assert [words for words in map(single.words, said) if words] == [
        "epoch 1: loss 2.0, 1.50 s",
        "epoch 2: loss 1.5, 1.00 s, ndcg@10 0.2500 on validation, the best so far",
        "epoch 3: train_loss1: 1.0000, train_loss2: 2.0000, 1.00 s",
        "epoch 4: loss 1.2, 1.00 s, ndcg@10 0.2000 on validation",
    ]


def test_less_may_be_better():
    single = SingleModel("RMSE", False, every=1)
    said = [
        f"epoch {n} evaluating [time: 0.10s, valid_score: {score}]" for n, score in enumerate((1, 2, 0.5))
    ]
    assert ["best" in single.words(words) for words in said] == [True, False, True]


@pytest.mark.parametrize(
    "words",
    ["OrderedDict([('hit@10', {}), ('mrr@10', {})])", "OrderedDict({{'hit@10': {}, 'mrr@10': {}}})"],
)
@pytest.mark.parametrize("number", ["{}", "np.float64({})"])
def test_results_are_read_as_each_python_writes_them(words, number):
    single = SingleModel("MRR@10", True, every=1)
    values = (0.25, 1e-05), (0.5, 0.125)
    said = [words.format(*map(number.format, pair)) for pair in values]
    assert single.words(f"best valid : {said[0]}") is None
    lines = single.words(f"test result: {said[1]}").splitlines()
    assert lines[2].split() == ["hit@10", "mrr@10"]
    assert [line.split() for line in lines[4:6]] == [["valid", "0.25", "1e-05"], ["test", "0.5", "0.125"]]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_is_for_a_terminal_and_elsewhere_there_is_a_line_a_minute(monkeypatch):
    file, terminal = io.StringIO(), Terminal()
    monkeypatch.setattr(bars, "EVERY", 0.0)
    for stream in (file, terminal):
        monkeypatch.setattr(sys, "stderr", stream)
        list(progress_bar(range(3), desc="Labelling", total=3, mininterval=0))
    lines = file.getvalue().splitlines()
    assert "\r" not in file.getvalue() and lines[0].startswith("Labelling: 0 of 3 (")
    assert all(line.startswith("Labelling: ") for line in lines)
    assert "\r" in terminal.getvalue() and "100%" in terminal.getvalue()
    monkeypatch.setattr(bars, "EVERY", 60.0)
    quick = io.StringIO()
    monkeypatch.setattr(sys, "stderr", quick)
    list(progress_bar(range(3), desc="Labelling"))
    assert quick.getvalue() == "", "what is done within a minute needs no line"


def test_a_bar_within_another_leaves_no_empty_lines_in_a_file(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(bars, "EVERY", 0.0)
    monkeypatch.setattr(sys, "stderr", file)
    with progress_bar(total=1, desc="Labelling") as outer:
        list(progress_bar(range(3), desc="LoRA", total=3))
        outer.update()
    lines = file.getvalue().splitlines()
    assert len(lines) > 3 and all(line.startswith(("Labelling: ", "LoRA: ")) for line in lines)
