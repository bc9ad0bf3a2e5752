"""LoRA in two processes: the losses of one."""

from __future__ import annotations

import lora_members
import pytest
import torch
from safetensors.torch import load_file
from tiny_llm import tiny_llm

from recbole_alkd.processes.launch import launch
from recbole_alkd.processes.places import Places


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"lora_epochs": 1, "lora_scale": "learnt"}, {"lora_epochs": 3}])
def test_two_processes_have_the_losses_of_one(more, tmp_path):
    model = tiny_llm(tmp_path / "tiny")
    values = {
        "lora": True,
        "lora_examples": 24,
        "lora_batch_size": 4,
        "lora_learning_rate": 1e-2,
        "llm_candidates": 6,
        "llm_top_n": 6,
        "lora_scale": "fixed",
        "lora_held_out": 0,
        **more,
    }
    one = lora_members.train(model, tmp_path / "one", values)
    arguments = (model, tmp_path / "two", values)
    two = launch("lora_members:train", arguments, Places(2), "lora_members:told")
    assert [step[:2] for step in one["steps"]] == [step[:2] for step in two["steps"]]
    assert len(one["steps"]) >= 6
    curves = [[step[2] for step in run["steps"]] for run in (one, two)]
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)
    assert curves[0][0] != curves[0][-1]
    weights = [load_file(tmp_path / run / "adapter" / "adapter_model.safetensors") for run in ("one", "two")]
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], atol=1e-3), name
    assert one["report"]["steps"] == two["report"]["steps"]
    assert one["report"]["scale"] == pytest.approx(two["report"]["scale"], rel=1e-4)
