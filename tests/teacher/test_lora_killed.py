"""LoRA trainings that are killed or wanted by two processes: they resume with the same losses; one trains."""

import multiprocessing
import time

import pytest
import torch
from safetensors.torch import load_file
from test_lora import adapter_of, examples, recorded, teacher
from tiny_llm import tiny_llm


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_llm(tmp_path_factory.mktemp("llm") / "tiny")


class Killed(BaseException):
    """What no handler catches, as a kill."""


def killed_at(monkeypatch, step):
    from transformers import TrainerCallback

    from recbole_alkd.teacher.local import lora_trainer

    original = lora_trainer.build_trainer

    def dies(*args):
        class Die(TrainerCallback):
            def on_step_begin(self, args, state, control, **kwargs):
                if state.global_step == step:
                    raise Killed

        trainer = original(*args)
        trainer.add_callback(Die())
        return trainer

    monkeypatch.setattr(lora_trainer, "build_trainer", dies)


@pytest.mark.parametrize(
    ("epochs", "step", "more"),
    [
        (1, 7, {"lora_scale": "learnt", "held_out": examples(12, 9)}),
        (2, 15, {"lora_scale": "learnt"}),
        (1, 7, {}),
        (3, 17, {}),
        (1, 7, {"make": recorded, "lora_target": "replay"}),
        (3, 17, {"lora_checkpointing": True}),
    ],
)
def test_a_killed_training_goes_on_with_the_same_losses(model, tmp_path, monkeypatch, epochs, step, more):
    values = {
        "made": 44,
        "wanted": 44,
        "lora_epochs": epochs,
        "lora_dropout": 0.1,
        "lora_learning_rate": 1e-3,
        **more,
    }
    wanted: list = []
    whole = teacher(model, tmp_path / "whole", log_metric=lambda *entry: wanted.append(entry), **values)
    whole.prepare()

    logged: list = []
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, step)
        teacher(model, tmp_path, log_metric=lambda *entry: logged.append(entry), **values).prepare()
    (partial,) = (tmp_path / "alkd_labels" / "adapters").glob(".*.partial")
    newest = max((partial / "checkpoints").iterdir(), key=lambda path: int(path.name.rpartition("-")[2]))
    half = newest.with_name("checkpoint-999")  # what a kill in the middle of a checkpoint leaves
    half.mkdir()
    (half / "trainer_state.json").write_text("{")
    before = len(logged)
    again = teacher(model, tmp_path, log_metric=lambda *entry: logged.append(entry), **values)
    again.prepare()
    assert logged[before][2] > 1  # it did not begin again
    assert {(name, n): value for name, value, n in logged} == {(name, n): value for name, value, n in wanted}
    a, b = (load_file(f"{adapter_of(one)}/adapter_model.safetensors") for one in (whole, again))
    assert all(torch.equal(a[name], b[name]) for name in a)
    seconds = again.lora_report.pop("seconds")
    assert 0 < seconds < 600
    assert again.identity == whole.identity  # the same was decided
    for one in (whole, again):
        for key in ("seconds", "adapter"):
            one.lora_report.pop(key, None)
    assert again.lora_report == whole.lora_report
    assert not partial.exists()


def _train_in_a_process(model, tmp_path):
    one = teacher(model, tmp_path, made=24, wanted=24)
    one.prepare()
    return one.lora_report


@pytest.mark.slow
def test_of_two_processes_one_trains(model, tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        reports = pool.starmap(_train_in_a_process, [(model, tmp_path)] * 2)
    assert sorted(report.pop("reused") for report in reports) == [False, True]
    assert reports[0] == reports[1]


def _train_slowly(model, tmp_path):
    teacher(
        model, tmp_path, made=200, wanted=200, lora_dropout=0.1, log_metric=lambda *_: time.sleep(0.05)
    ).prepare()


@pytest.mark.slow
def test_a_training_survives_sigkill(model, tmp_path):
    values = {"made": 200, "wanted": 200, "lora_dropout": 0.1}
    whole = teacher(model, tmp_path / "whole", **values)
    whole.prepare()
    for _ in range(3):
        process = multiprocessing.get_context("spawn").Process(target=_train_slowly, args=(model, tmp_path))
        process.start()
        known = set(tmp_path.glob("alkd_labels/adapters/.*.partial/checkpoints/checkpoint-*"))
        until = time.monotonic() + 120
        while (
            process.is_alive()
            and set(tmp_path.glob("alkd_labels/adapters/.*.partial/checkpoints/checkpoint-*")) <= known
        ):
            assert time.monotonic() < until
            time.sleep(0.01)  # the kill comes right where a checkpoint is being written
        process.kill()
        process.join()
    again = teacher(model, tmp_path, **values)
    again.prepare()
    assert again.lora_report["loss_last"] == whole.lora_report["loss_last"]
    a, b = (load_file(f"{adapter_of(one)}/adapter_model.safetensors") for one in (whole, again))
    assert all(torch.equal(a[name], b[name]) for name in a)
