"""A stage that is killed resumes from its last kept epoch and ends as if nothing had happened,
digit for digit."""

from __future__ import annotations

import os
import textwrap

import pytest
import torch
from test_trainer import TEACHER, finish, go, home, killed_while  # noqa: F401  (home: the fixture)
from tiny import write_benchmark

from recbole_alkd import AlkdError
from recbole_alkd.compat import load_checkpoint
from recbole_alkd.learner import progress
from recbole_alkd.learner.batches import Cycle
from recbole_alkd.learner.stage_names import stage_words
from recbole_alkd.learner.stage_trainer import StageTrainer

SLOW = "\n\nimport recbole_alkd.learner.progress\n" + textwrap.dedent(
    """
    from recbole_alkd.learner.stage_trainer import StageTrainer

    recbole_alkd.learner.progress.SECONDS = recbole_alkd.learner.progress.SHARE = 0.0
    recbole_alkd.learner.progress.SHARE = 1e9
    train = StageTrainer._train_epoch

    def slow(self, data, epoch, *args, **how):
        with open("epochs.txt", "a") as diary:
            diary.write(f"{self._stage.name} {epoch}\\n")
        time.sleep(float(os.environ.get("EPOCH_PAUSE", "0")))
        return train(self, data, epoch, *args, **how)

    StageTrainer._train_epoch = slow
    """
)


class Killed(BaseException):
    """Stands for a kill, where a real one would cost a process."""


def killed_in(monkeypatch, stage, epoch, **settings):
    """A run that ends in the middle of an epoch of a stage."""
    step = StageTrainer._train_epoch

    def dies(self, train_data, epoch_idx, *args, **how):
        if self._stage and self._stage.name == stage and epoch_idx == epoch:
            taken = self._stage.loss

            def loss(batch):
                taken(batch)  # draws random numbers, and then the lights go out
                raise Killed

            self._stage.loss = loss
        return step(self, train_data, epoch_idx, *args, **how)

    with monkeypatch.context() as patch:
        patch.setattr(StageTrainer, "_train_epoch", dies)
        with pytest.raises(Killed):
            go(**settings)


def outcomes(report):
    """What must be the same; times and memory may differ."""
    volatile = {"seconds", "peak_mb"}
    return {
        name: {key: value for key, value in stage.items() if key not in volatile}
        for name, stage in report["stages"].items()
    }


@pytest.fixture
def every_epoch(monkeypatch):
    """Progress is kept at every epoch, however short."""
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    monkeypatch.setattr(progress, "SHARE", 1e9)


CASES = {
    "defaults": ("student", {}),
    "dense optimizer, dropout": ("student", {"student_model": "NARM", "student_embedding_size": 8,
                                             "train_loss": None}),
    "weight decay": ("teacher", {"weight_decay": 0.01, "clip_grad_norm": {"max_norm": 1.0}}),
    "labels alone": ("distilled", {}),
    "labels beside all rows": ("distilled", {"kd_rec_weight": 1.0, "kd_batch_size": 20}),
    "extra parameters": ("distilled", {"kd_loss": {"de": 1.0, "htd": 0.5}, "kd_rec_weight": 1.0}),
    "a moving mask": ("distilled", {"kd_loss": "dsl", "kd_rec_weight": 1.0,
                                    "kd_config": {"dsl": {"update_every": 2}}}),
    "a loss that begins later": ("distilled", {"kd_loss": "rd", "kd_rec_weight": 1.0,
                                               "kd_config": {"rd": {"start_epoch": 2}}}),
    "batches without an end": ("student_longer", {}),
    "rows read backwards": ("student_longer", {"train_backwards": True, "session_augmentation": "prefix"}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_resumed_stage_ends_the_same(case, home, monkeypatch, every_epoch, caplog):  # noqa: F811
    caplog.set_level("INFO")
    stage, settings = CASES[case]
    settings = {"epochs": 6, "stopping_step": 3, "state": "INFO", "stage_cache": False, **settings}
    whole = go(**settings)
    assert whole["stages"][stage]["epochs"] > 3
    killed_in(monkeypatch, stage, 3, **settings)
    left = next(path for path in (home / "saved").iterdir() if not (path / "result.json").exists())
    assert (left / f"{stage}.progress.pth").is_file()
    caplog.clear()
    resumed = go(**settings)
    words = f" {stage_words(stage)}: resumes after epoch 3"
    assert any(words in line for line in caplog.messages), caplog.messages
    assert resumed["run_folder"] == f"saved/{left.name}" and not list(left.glob("*.progress.pth"))
    assert outcomes(resumed) == outcomes(whole)
    for name in ("student", "distilled", "student_longer"):
        ours, theirs = (
            load_checkpoint(f"{report['run_folder']}/{name}.stage.pth")["state"]
            for report in (resumed, whole)
        )
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name


def test_a_damaged_or_foreign_progress_begins_the_stage_anew(
    home,  # noqa: F811
    monkeypatch,
    every_epoch,
    caplog,
):
    whole = go(epochs=5, stage_cache=False)
    for spoil in ("empty", "foreign"):
        killed_in(monkeypatch, "student", 3, epochs=5, stage_cache=False)
        left = next(path for path in (home / "saved").iterdir() if not (path / "result.json").exists())
        file = left / "student.progress.pth"
        kept = load_checkpoint(str(file))
        kept["model"] = {key: value[:2] for key, value in kept["model"].items()}
        torch.save(kept, file, pickle_protocol=2) if spoil == "foreign" else file.write_bytes(b"")
        caplog.clear()
        resumed = go(epochs=5, stage_cache=False)
        assert "damaged" in caplog.text or "begins anew" in caplog.text
        assert outcomes(resumed) == outcomes(whole)


def test_short_stages_keep_nothing_and_long_ones_now_and_then(home, monkeypatch):  # noqa: F811
    writes = []
    monkeypatch.setattr(StageTrainer, "_keep_progress", lambda self, stage, epoch: writes.append(epoch))
    go()
    assert writes == []
    now = [0.0]
    monkeypatch.setattr(progress, "perf_counter", lambda: now[0])
    clock = progress.ProgressClock(earlier=5.0)
    assert not clock.due()
    now[0] = progress.SECONDS
    assert clock.due() and clock.seconds == 5 + progress.SECONDS
    clock.wrote(10.0)  # a slow disk: at most a fiftieth of the time
    now[0] += 499
    assert not clock.due()
    now[0] += 1
    assert clock.due()


def test_modules_of_others_are_trusted_with_torchs_own_word_only():
    class Opaque(torch.nn.Linear):
        pass

    class Frank(torch.nn.Linear):
        def get_extra_state(self):
            return {}

    assert progress.keeps_all_state(torch.nn.Linear(1, 1)) and progress.keeps_all_state(Frank(1, 1))
    assert not progress.keeps_all_state(torch.nn.Sequential(Opaque(1, 1)))


def test_a_cycle_finds_its_place():
    class Loader:
        def __init__(self):
            self.generator = torch.Generator().manual_seed(3)

        def __iter__(self):
            yield from torch.randperm(5, generator=self.generator).tolist()

    for taken in (0, 1, 5, 7, 10):
        one, other = Cycle(Loader()), Cycle(Loader())
        assert len([next(one) for _ in range(taken)]) == taken
        other.loader.generator.manual_seed(99)
        place = one.place()
        if taken == 0:
            other.loader.generator.manual_seed(3)
        other.find(place)
        assert [next(one) for _ in range(8)] == [next(other) for _ in range(8)]


def test_a_loss_that_is_no_number_names_its_stage(home, monkeypatch):  # noqa: F811
    with pytest.raises(AlkdError, match=r"stage teacher recommender: .*nan.*learning_rate") as error:
        go(learning_rate=1e30, train_loss=None)
    assert "\n" not in str(error.value)


def test_scores_that_are_no_numbers_name_their_stage_though_the_loss_was_one(home):  # noqa: F811
    with pytest.raises(
        AlkdError, match=r"stage teacher recommender: scores on validation are .*nan.*epoch 1.*learning_rate"
    ) as error:
        go(learning_rate=1e30, train_loss=None, epochs=1, train_batch_size=4096)
    assert "\n" not in str(error.value)


def test_a_run_killed_in_the_middle_of_its_stages_ends_the_same(tmp_path):
    """SIGKILL, in the teacher recommender's training and again in the distillation."""
    homes = [tmp_path / "killed", tmp_path / "whole"]
    for folder in homes:
        write_benchmark(folder / "data", counts=(40, 12, 12))
        (folder / "scripted_teacher.py").write_text(TEACHER + SLOW)
    killed, whole = homes
    for stage in ("teacher", "distilled"):
        killed_while(
            killed, lambda stage=stage: list(killed.glob(f"saved/**/{stage}.progress.pth")), EPOCH_PAUSE="0.4"
        )
    resumed, uninterrupted = finish(killed), finish(whole)
    assert outcomes(resumed) == outcomes(uninterrupted)
    assert len(list((killed / "saved").glob("ALKDRec-*"))) == 1
    trained = (killed / "epochs.txt").read_text().splitlines()
    assert [trained.count(f"{stage} 0") for stage in ("teacher", "distilled")] == [1, 1], (
        "no stage began anew"
    )
    assert not any(name.endswith(".part") for _, _, names in os.walk(killed) for name in names)
