"""The bundled LLM learns a rule that can be learned: the control for every LoRA that does not help."""

import math

import pytest

from recbole_alkd.bench.lora_control import control_study
from recbole_alkd.bench.lora_curves import run_curve


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "settings"),
    [(64, {"llm_scoring": "title"})],
    ids=["title"],
)
def test_the_colour_of_what_was_bought_is_learned(count, settings, tmp_path):
    study = control_study(count, 40)
    made = run_curve(study, tmp_path / "out.jsonl", [count], ["natural"], [settings], "cpu", 1)
    (result,) = made
    assert result["mrr"]["tuned"] >= 0.9 > result["mrr"]["zero-shot"]
    assert result["gains"]["tuned - zero-shot"]["mrr"][1] > 0
    assert result["loss_start"] <= math.log(20) + 0.02
    assert result["loss_last"] < result["loss_first"]
    # the recommender's order, which is random here, says nothing
    assert result["mrr"]["recommender"] < 0.4
