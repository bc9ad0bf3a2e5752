"""Every causal LM ranks as it reads: in one pass where it can, text by text where it cannot,
and never more than it can read."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from test_lora import ITEMS, examples
from tiny_llm import (
    FAMILIES,
    NO_SYSTEM_TEMPLATE,
    TITLES,
    context,
    instances,
    tiny_llm,
    tiny_model,
    with_examples,
)

from recbole_alkd.llm.likelihood import build_tree, log_likelihoods
from recbole_alkd.llm.models import load_causal_lm
from recbole_alkd.llm.reading import read_once
from recbole_alkd.registry import teachers
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.teacher.base import Instance

ONE_PASS = {"gpt2", "opt", "neox", "mistral", "gemma2"}  # those whose mask and positions can be given


def alone(model, before, after):
    """Sum of log p(token | all before), by a forward pass of its own."""
    with torch.no_grad():
        logs = model(input_ids=torch.tensor([[*before, *after]])).logits[0].float().log_softmax(-1)
    return sum(float(logs[len(before) - 1 + k, token]) for k, token in enumerate(after))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    home = tmp_path_factory.mktemp("families")
    return {family: tiny_model(home / family, family) for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_what_single_passes_give(folders, family):
    model, _ = load_causal_lm(str(folders[family]), dtype="float32")
    reading = read_once(model)
    assert reading.causal
    assert reading.one_pass == (family in ONE_PASS)
    rng = np.random.default_rng(1)
    for length in (5, 30):  # within the sliding windows, and past them
        prefix = rng.integers(0, 256, length).tolist()
        texts = [tuple(rng.integers(0, 256, n).tolist()) for n in (3, 1, 4)] + [()]
        texts.append((*texts[0][:2], 7))
        tree = build_tree(prefix, texts)
        with torch.no_grad():
            (scores,) = log_likelihoods(model, [tree], reading.in_one_pass(length + 4))
        assert scores.tolist() == pytest.approx([alone(model, prefix, text) for text in texts], abs=2e-3)


def test_a_model_that_sees_what_comes_is_no_causal_lm(tmp_path):
    values = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "initializer_range": 0.3,
    }
    folder = tiny_model(tmp_path / "m", "BertConfig", "BertLMHeadModel", is_decoder=True, **values)
    model, _ = load_causal_lm(str(folder), dtype="float32")
    assert read_once(model).causal
    for layer in model.bert.encoder.layer:
        layer.attention.self.is_causal = False
    model.config.is_decoder = model.bert.config.is_decoder = False
    assert not read_once(model).causal


@pytest.mark.parametrize("family", ["bloom", "mamba", "gpt2"])
def test_other_families_label_and_are_tuned(folders, tmp_path, family):
    targets = {"bloom": "query_key_value", "mamba": "in_proj", "gpt2": "c_attn"}
    values = {
        "lora": True, "lora_held_out": 0, "lora_scale": "fixed",
        "lora_examples": 16, "lora_learning_rate": 1e-2, "lora_targets": [targets[family]],
        "llm_candidates": 6,
        "llm_top_n": 6,
    }  # fmt: skip
    teachers.get("local").check(context(folders[family], tmp_path, values).settings)
    one = teachers.get("local")(context(folders[family], tmp_path, values, titles=ITEMS))
    with_examples(one, lambda: examples(4) * 4)
    asked = [Instance(k, str(k), e.history, e.candidates) for k, e in enumerate(examples(3, seed=8))]
    answered = dict(one.ask(asked))
    assert all(answer.status == "ok" and len(answer.ranking) == 6 for answer in answered.values())
    assert one.lora_report["loss_last"] < one.lora_report["loss_first"]


@pytest.mark.parametrize("family", ["bloom", "mamba", "gpt2", "neox", "mpt"])
def test_modules_that_a_family_lacks_are_named_before_training(folders, tmp_path, family):
    settings = context(folders[family], tmp_path, {"lora": True}).settings
    with pytest.raises(
        AlkdError, match=r"lora_targets: \['q_proj', .* has no module q_proj, .*; it has: "
    ) as error:
        teachers.get("local").check(settings)
    named = {
        "bloom": "query_key_value",
        "mamba": "in_proj",
        "gpt2": "c_attn",
        "neox": "query_key_value",
        "mpt": "Wqkv",
    }
    assert named[family] in str(error.value).rpartition("it has: ")[2].split(", ")
    assert "lm_head" not in str(error.value)


def test_a_default_target_that_a_family_lacks_is_no_error(folders, tmp_path, caplog):
    caplog.set_level("INFO")
    teachers.get("local").check(context(folders["opt"], tmp_path, {"lora": True}).settings)
    assert "has no module o_proj" in caplog.text


# the end of what a model reads


def teacher(folder, tmp_path, values=None, **own):
    return teachers.get("local")(context(folder, tmp_path, values, **own))


LONG = Instance(1, "s", ("c3", "a2", "a3", "c2", "b3", "c1", "a1"), ("b1", "c1", "a3"))


def places(tmp_path, instance, shown, values, titles=TITLES, training=False):
    """How many tokens a model must read for ``instance`` with ``shown`` items of its history,
    and for the answer."""
    folder = tmp_path / "roomy"
    one = teacher(
        folder if folder.is_dir() else tiny_llm(folder), tmp_path, {**values, "lora": False}, titles=titles
    )
    one.prepare()
    if training:
        return one._scorer._training_case(instance, 0, shown).depth
    answer = one._scorer._answer_tokens(instance) if values["llm_scoring"] == "generate" else 0
    return one._scorer._case(instance, shown).depth + answer


def gpt2(folder, max_position_embeddings):
    return tiny_model(folder, "gpt2", n_positions=max_position_embeddings)


@pytest.mark.parametrize("maker", [tiny_llm, gpt2])
@pytest.mark.parametrize("scoring", ["title", "index", "generate"])
def test_history_is_cut_to_what_the_model_reads_and_that_is_said_once(tmp_path, caplog, maker, scoring):
    values = {"llm_scoring": scoring, "llm_top_n": 3}
    room = places(tmp_path, LONG, 4, values) + 1  # and not for the fifth
    one = teacher(maker(tmp_path / "short", max_position_embeddings=room), tmp_path, values)
    answered = {
        instance.row: answer
        for instance, answer in one.ask([LONG, dataclasses.replace(LONG, row=2, session="t")])
    }
    case = one._scorer.case(LONG)
    assert case.depth == one._scorer._case(LONG, 4).depth and not case.problem
    wanted = one._scorer._answers([LONG], [one._scorer._case(LONG, 4)])[0]
    assert (answered[1].raw, answered[1].ranking) == (wanted.raw, wanted.ranking)
    assert caplog.text.count("sessions are cut to the last items that fit") == 1


@pytest.mark.parametrize("scoring", ["title", "index", "generate"])
def test_a_session_that_cannot_fit_is_a_failed_label_and_the_others_go_on(tmp_path, caplog, scoring):
    values = {"llm_scoring": scoring, "llm_top_n": 3, "llm_title_tokens": 12}
    titles = {**TITLES, "a1": "A" * 60, "c1": "C" * 60}
    asked = [Instance(1, "s", ("b1",), ("b2", "a2")), Instance(2, "t", ("a1",), ("c1", "b1"))]
    room = places(tmp_path, asked[0], 1, values, titles)
    room = max(room, len("A user watched these movies, in order:\n") + 12)
    one = teacher(tiny_llm(tmp_path / "m", max_position_embeddings=room), tmp_path, values, titles=titles)
    answered = {instance.row: answer for instance, answer in one.ask(asked)}
    assert answered[2].status == "failed" and f"more than the {room} that the model reads" in answered[2].raw
    assert not one._scorer.case(asked[0]).problem
    assert scoring == "generate" or answered[1].status == "ok"
    assert "too few for some sessions" in caplog.text


@pytest.mark.parametrize("scoring", ["title", "index", "generate"])
def test_lora_examples_are_cut_too(tmp_path, caplog, scoring):
    values = {
        "llm_scoring": scoring,
        "lora": True,
        "lora_held_out": 0,
        "lora_scale": "fixed",
        "lora_examples": 8,
        "lora_targets": ["c_attn"],
        "llm_candidates": 6,
    }
    values["llm_top_n"] = 3
    made = [dataclasses.replace(e, history=e.history * 3) for e in examples(8)]
    instance = Instance(0, "0", made[0].history, made[0].candidates)
    room = places(tmp_path, instance, 3, values, ITEMS, training=True)
    one = with_examples(teacher(gpt2(tmp_path / "m", room), tmp_path, values, titles=ITEMS), lambda: made)
    one.prepare()
    assert one.lora_report["examples"] == 8
    assert caplog.text.count("sessions are cut to the last items that fit") == 1
    few = gpt2(tmp_path / "few", max(places(tmp_path, instance, 1, values, ITEMS, training=True) - 1, 48))
    if scoring != "title":
        with pytest.raises(AlkdError, match="no LoRA example with 6 candidates fits"):
            with_examples(teacher(few, tmp_path, values, titles=ITEMS), lambda: made).prepare()


def test_a_model_that_reads_next_to_nothing_is_refused_before_training(tmp_path):
    folder = tiny_model(tmp_path / "m", "gpt2", n_positions=16)
    with pytest.raises(
        AlkdError, match=r"reads 16 tokens, and the prompt's first line with one title has \d+"
    ):
        teachers.get("local").check(context(folder, tmp_path).settings)
    with pytest.raises(AlkdError, match="reads 16 tokens"):
        teacher(folder, tmp_path).prepare()


# chat templates


def test_a_template_without_a_system_role_has_the_text_in_the_user_s_message(tmp_path):
    plain = tiny_llm(tmp_path / "plain")
    texts = {}
    for name, template in (
        ("refuses", NO_SYSTEM_TEMPLATE),
        (
            "drops",
            "{% for m in messages %}{% if m['role'] == 'user' %}<turn>{{ m['content'] }}</turn>{% endif %}{% "
            "endfor %}",
        ),
    ):
        folder = tmp_path / name
        tiny_llm(folder)
        (folder / "chat_template.jinja").write_text(template)
        one = teacher(folder, tmp_path, {"llm_scoring": "generate"})
        one.prepare()
        texts[name] = one._scorer.tokenizer.decode(one._scorer.case(instances()[0]).trees[0].tokens.tolist())
        request = one._scorer._request(instances()[0], 2)
        for message in request:
            assert texts[name].count(message["content"]) == 1
        assert texts[name].count("<turn>") == (2 if name == "refuses" else 1)
        assert one._scorer.chat(request).raw is not None
    one = teacher(plain, tmp_path, {"llm_scoring": "generate"})
    one.prepare()
    assert one._scorer.tokenizer.decode(one._scorer.case(instances()[0]).trees[0].tokens.tolist()).startswith(
        "system: "
    )


def test_a_template_that_is_no_template_is_named(tmp_path):
    folder = tiny_llm(tmp_path / "m")
    (folder / "chat_template.jinja").write_text("{% for %}")
    one = teacher(folder, tmp_path, {"llm_scoring": "generate"})
    with pytest.raises(AlkdError, match=r"chat template of .* cannot be used"):
        list(one.ask(instances()))


def test_a_tokenizer_without_marks_writes_too(tmp_path):
    folder = tiny_llm(tmp_path / "m", eos_token_id=None, pad_token_id=None)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    for key in ("eos_token", "pad_token"):
        config.pop(key, None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    one = teacher(folder, tmp_path, {"llm_scoring": "generate", "llm_batch_size": 3})
    assert one.chunk and len(list(one.ask(instances()))) == 3
    assert one._scorer.tokenizer.pad_token_id is None
