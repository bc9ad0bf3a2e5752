"""Which examples a local LLM's adapter is trained on: those whose target the recommender found by itself."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from recbole_alkd.labelling.examples import LoraExamples
from recbole_alkd.settings.reading import read_settings
from recbole_alkd.teacher.base import LoraExample

SESSIONS = [np.array([10 * s + k for k in range(1, 8)]) for s in range(12)]  # 5 prefixes each inside


class Known(LoraExamples):
    """Examples whose recommender finds a target by itself where ``finds`` says so."""

    def __init__(self, finds, **values):
        rows = SimpleNamespace(
            dataset=SimpleNamespace(config={"seed": 2020}, session_items=lambda session: SESSIONS[session]),
            settings=read_settings({"llm_teacher": "local", **values}),
        )
        super().__init__(rows, SimpleNamespace(sessions=range(len(SESSIONS))))
        self.finds = finds

    def of(self, examples):
        return [
            LoraExample((), (), str(SESSIONS[s][p]), natural=bool(self.finds(SESSIONS[s][p])))
            for s, p in examples
        ]


def test_only_examples_whose_target_was_found_are_drawn():
    made = Known(lambda item: item % 2, lora_examples=8).drawn()
    assert len(made) == 8 == len({one.target for one in made}) and all(one.natural for one in made)


def test_where_fewer_targets_were_found_than_wanted_there_are_fewer_examples(caplog):
    made = Known(lambda item: item % 10 == 3, lora_examples=30).drawn()
    assert len(made) == 12 and all(one.natural for one in made)
    assert "LoRA: 12 examples in place of 30: the recommender found no more targets by itself" in caplog.text


def test_where_no_target_was_found_examples_with_inserted_ones_are_taken(caplog):
    made = Known(lambda item: False, lora_examples=8).drawn()
    assert len(made) == 8 and not any(one.natural for one in made)
    assert "LoRA: the recommender found none of 60 targets by itself" in caplog.text


def test_inserted_targets_can_be_asked_for():
    made = Known(lambda item: item % 5 == 0, lora_examples=30, lora_inserted=True).drawn()
    assert len(made) == 30 and 0 < sum(one.natural for one in made) < 30


@pytest.mark.parametrize("inserted", [False, True])
def test_held_out_examples_are_natural_and_not_trained_on(inserted):
    one = Known(lambda item: item % 2, lora_examples=20, lora_held_out=10, lora_inserted=inserted)
    held_out = one.held_out()
    assert held_out and all(example.natural for example in held_out)
    assert not {example.target for example in held_out} & {example.target for example in one.drawn()}
