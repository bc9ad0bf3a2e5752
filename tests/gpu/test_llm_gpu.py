"""The local LLM teacher on a GPU: title scoring, LoRA, bfloat16, ``llm_device: auto``, 4-bit weights."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
import torch
from tiny_llm import context, instances, tiny_llm

from recbole_alkd.llm.models import best_dtype, load_causal_lm
from recbole_alkd.registry import teachers
from recbole_alkd.teacher.base import LoraExample

FAMILIES = "abcdef"
ITEMS = {f"{family}{k}": f"{family * 3} {k}" for family in FAMILIES for k in range(4)}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_llm(tmp_path_factory.mktemp("llm") / "tiny")


def scores(model, folder, device, scoring="title", **values):
    one = teachers.get("local")(
        context(model, folder, {"llm_scoring": scoring, "llm_device": device, **values})
    )
    answers = {instance.row: answer for instance, answer in one.ask(instances())}
    one.close()
    return answers


def numbers(answers):
    return {row: json.loads(answer.raw) for row, answer in answers.items()}


@pytest.mark.parametrize("scoring", ["title", "index"])
def test_scores_are_those_of_the_cpu(model, tmp_path, device, scoring):
    expected = scores(model, tmp_path / "cpu", "cpu", scoring)
    answers = scores(model, tmp_path / "gpu", device, scoring)
    assert {row: answer.ranking for row, answer in answers.items()} == {
        row: answer.ranking for row, answer in expected.items()
    }
    if scoring == "title":
        for row, values in numbers(expected).items():
            assert numbers(answers)[row] == pytest.approx(values, rel=1e-3, abs=1e-3)


def test_generated_answers_come_back(model, tmp_path, device):
    answers = scores(model, tmp_path, device, "generate", llm_hints=False)
    assert set(answers) == {instance.row for instance in instances()}


def test_bfloat16_is_the_choice_there_and_ranks_alike(model, tmp_path, device):
    if device == "cuda":
        assert best_dtype("cuda") == torch.bfloat16
    expected = numbers(scores(model, tmp_path / "a", device))
    on_gpu = numbers(scores(model, tmp_path / "b", device, llm_dtype="bfloat16"))
    for row, values in expected.items():
        ours, theirs = (np.array([side[item] for item in values]) for side in (on_gpu[row], values))
        assert np.corrcoef(ours, theirs)[0, 1] > 0.95


def test_auto_places_the_model_on_the_gpu(model, tmp_path, device):
    llm, _ = load_causal_lm(str(model), "auto")
    assert next(llm.parameters()).device.type == device
    answers = scores(model, tmp_path / "auto", "auto", llm_dtype="float32")
    expected = scores(model, tmp_path / "cpu", "cpu", llm_dtype="float32")
    assert {row: answer.ranking for row, answer in answers.items()} == {
        row: answer.ranking for row, answer in expected.items()
    }


def examples(count, seed=0):
    """What is chosen next is of the family of the last item."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        family = str(rng.choice(list(FAMILIES)))
        target, *history = (f"{family}{n}" for n in rng.permutation(4)[:3])
        others = [f"{f}{rng.integers(4)}" for f in FAMILIES if f != family]
        candidates = tuple(str(item) for item in rng.permutation([*others, target]))
        made.append(LoraExample(tuple(history), candidates, target, natural=True))
    return made


def tuned(model, folder, device, **values):
    values = {
        "lora": True, "lora_held_out": 0, "lora_scale": "fixed",
        "lora_examples": 160, "lora_batch_size": 4, "lora_learning_rate": 2e-2,
        "llm_candidates": 6,
        "llm_top_n": 6, "llm_device": device, **values,
    }  # fmt: skip
    own = {"titles": ITEMS, "lora_key": "k", "lora_examples": lambda: examples(160)}
    one = teachers.get("local")(context(model, folder, values, **own))
    one.prepare()
    report = one.lora_report
    one.close()
    return report


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_lora_learns_there(model, tmp_path, device, dtype):
    report = tuned(model, tmp_path, device, llm_dtype=dtype)
    assert report["loss_last"] < 0.7 * report["loss_first"]


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_quantised_weights_rank_and_learn(tmp_path, device, bits):
    if device != "cuda":
        pytest.skip("on a GPU only")
    wide = tiny_llm(tmp_path / "wide", width=128)
    expected = numbers(scores(wide, tmp_path / "a", device))
    on_gpu = numbers(scores(wide, tmp_path / "b", device, llm_quantize=bits, llm_dtype="bfloat16"))
    for row, values in expected.items():
        ours, theirs = (np.array([side[item] for item in values]) for side in (on_gpu[row], values))
        assert np.corrcoef(ours, theirs)[0, 1] > 0.8
    assert tuned(wide, tmp_path / "c", device, llm_quantize=bits, llm_dtype="bfloat16")["loss_last"] > 0
