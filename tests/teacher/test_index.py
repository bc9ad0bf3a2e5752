"""Index scoring: letters against a forward pass for each order, and what it needs of model and settings."""

import json

import numpy as np
import pytest
import torch
from tiny_llm import TITLES, context, instances, tiny_llm, with_examples

from recbole_alkd.llm.models import load_causal_lm
from recbole_alkd.registry import teachers
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.teacher.base import Instance, LoraExample
from recbole_alkd.teacher.local import teacher as local
from recbole_alkd.teacher.local.scorers import LETTERS, ORDERS
from recbole_alkd.teacher.prompt import shown_order


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_llm(tmp_path_factory.mktemp("llm") / "tiny")


def teacher(model, tmp_path, titles=TITLES, **values):
    return teachers.get("local")(context(model, tmp_path, {"llm_scoring": "index", **values}, titles=titles))


def test_scores_are_the_letters_averaged_over_orders(model, tmp_path):
    llm, tokenizer = load_causal_lm(str(model), "cpu", "float32")
    one = teacher(model, tmp_path, llm_title_tokens=6, llm_seed=5)
    for instance, answer in one.ask(instances()):
        wanted = dict.fromkeys(instance.candidates, 0.0)
        for order in range(ORDERS):
            shown = shown_order(instance, 5 + order)
            lines = [
                "A user watched these movies, in order:",
                *(TITLES[item][:6] for item in instance.history),
                "Options:",
            ]
            lines += [f" {letter}:{TITLES[item][:6]}" for letter, item in zip(LETTERS, shown, strict=False)]
            ids = tokenizer("\n".join(lines) + "\nThe best option for the next one is: ")["input_ids"]
            letters = [tokenizer(letter)["input_ids"][0] for letter in LETTERS[: len(shown)]]
            with torch.no_grad():
                logs = llm(input_ids=torch.tensor([ids])).logits[0, -1, letters].log_softmax(-1)
            for item, log in zip(shown, logs.tolist(), strict=True):
                wanted[item] += log / ORDERS
        assert json.loads(answer.raw) == pytest.approx(wanted, abs=2e-3)
        assert answer.ranking == tuple(sorted(instance.candidates, key=lambda item: -wanted[item]))
        assert answer.prompt_tokens <= one.estimate(instance)[0]


def test_the_order_of_the_candidates_decides_nothing(model, tmp_path):
    one = teacher(model, tmp_path)
    a = instances()[0]
    b = Instance(a.row, a.session, a.history, a.candidates[::-1])
    (_, first), (_, second) = *one.ask([a]), *one.ask([b])
    assert json.loads(first.raw) == pytest.approx(json.loads(second.raw), abs=1e-4)
    assert first.ranking == second.ranking


def test_more_candidates_than_letters_are_an_error(model, tmp_path):
    with pytest.raises(AlkdError, match="llm_candidates: 53 is more than the 52 letters"):
        teacher(model, tmp_path, llm_candidates=53).prepare()


def test_letters_must_be_tokens(model, tmp_path, monkeypatch):
    class LowerCase:
        """A tokenizer that knows no capitals."""

        def __init__(self, tokenizer):
            self.tokenizer, self.eos_token_id = tokenizer, tokenizer.eos_token_id

        def __call__(self, text, **options):
            return self.tokenizer(
                text.lower() if isinstance(text, str) else [t.lower() for t in text], **options
            )

    llm, tokenizer = load_causal_lm(str(model), "cpu", "float32")
    monkeypatch.setattr(local, "load_causal_lm", lambda *_: (llm, LowerCase(tokenizer)))
    with pytest.raises(AlkdError, match="llm_scoring: 'index' needs a token for each letter"):
        teacher(model, tmp_path, llm_candidates=52).prepare()


def test_lora_learns_letters(model, tmp_path):
    logged = []
    example = LoraExample(("a1",), ("a2", "b3", "c1"), "b3", True)
    values = {
        "llm_candidates": 3,
        "llm_top_n": 3,
        "lora": True,
        "lora_examples": 1,
        "lora_held_out": 0,
        "lora_scale": "fixed",
        "lora_epochs": 60,
        "lora_learning_rate": 1e-2,
    }
    one = teachers.get("local")(
        context(
            model,
            tmp_path,
            {"llm_scoring": "index", **values},
            log_metric=lambda *entry: logged.append(entry[1]),
        )
    )
    with_examples(one, lambda: [example])
    one.prepare()
    assert one.lora_report["steps"] == 60  # in a new order each
    assert np.mean(logged[-6:]) < 0.5 * np.mean(logged[:6])


@pytest.mark.slow
def test_the_bundled_model_has_the_letters(tmp_path):
    one = teacher("smollm2-135m-instruct", tmp_path, llm_candidates=52)
    ((_, answer),) = one.ask([instances()[0]])
    assert sorted(answer.ranking) == sorted(instances()[0].candidates)
