"""The local teacher: title scoring against its definition, answers, identity, and what it leaves behind."""

import dataclasses
import functools
import json
import weakref
from typing import ClassVar

import pytest
import torch
from tiny_llm import TITLES, context, instances, tiny_llm

from recbole_alkd.llm.models import load_causal_lm
from recbole_alkd.registry import teachers
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.teacher.base import Instance
from recbole_alkd.teacher.local import scorer, scorers
from recbole_alkd.teacher.local import teacher as local
from recbole_alkd.teacher.prompt import shown_order
from recbole_alkd.testing.teachers import TeacherTests


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_llm(tmp_path_factory.mktemp("llm") / "tiny")


@pytest.fixture(autouse=True)
def _load_once(monkeypatch, loaded):
    monkeypatch.setattr(local, "load_causal_lm", loaded)


@pytest.fixture(scope="module")
def loaded():
    return functools.cache(load_causal_lm)


def teacher(model, tmp_path, **values):
    own = {key: values.pop(key) for key in ("titles", "lora_key") if key in values}
    return teachers.get("local")(context(model, tmp_path, values, **own))


class TestTitle(TeacherTests):
    """The laws of every teacher, with a random model."""

    teacher = "local"
    values: ClassVar = {"llm_dtype": "float32"}

    @pytest.fixture(autouse=True)
    def _tiny(self, model):
        self.model = str(model)

    def make(self, folder, **values):
        return super().make(folder, **{"llm_model": self.model, **values})


class TestIndex(TestTitle):
    values: ClassVar = {"llm_dtype": "float32", "llm_scoring": "index"}


def answers(model, tmp_path, asked=None, **values):
    one = teacher(model, tmp_path, **values)
    return {instance.row: answer for instance, answer in one.ask(asked or instances())}


def log_likelihood(model, text, continuation):
    """Sum of log p(byte | all before) of ``continuation`` after ``text``, by a forward pass of its own."""
    llm, tokenizer = load_causal_lm(str(model), "cpu", "float32")
    before = tokenizer(text)["input_ids"]
    after = tokenizer(continuation)["input_ids"]
    with torch.no_grad():
        logs = llm(input_ids=torch.tensor([before + after])).logits[0].log_softmax(-1)
    return sum(float(logs[len(before) - 1 + k, token]) for k, token in enumerate(after))


def test_scores_are_the_pmi_of_title_and_session(model, tmp_path):
    head = "A user watched these movies, in order:\n"
    answered = answers(model, tmp_path, llm_title_tokens=20)
    for instance in instances():
        scores = json.loads(answered[instance.row].raw)
        session = head + "".join(TITLES[item][:20] + "\n" for item in instance.history)
        for item in instance.candidates:
            title = TITLES[item][:20]
            wanted = log_likelihood(model, session, title) - log_likelihood(model, head, title)
            assert scores[item] == pytest.approx(wanted, abs=2e-3)


def test_ranking_is_by_score(model, tmp_path):
    for instance in instances():
        answer = answers(model, tmp_path)[instance.row]
        scores = json.loads(answer.raw)
        assert sorted(answer.ranking) == sorted(instance.candidates)
        ranked = [scores[item] for item in answer.ranking]
        assert ranked == sorted(ranked, reverse=True)
        assert answer.status == "ok"
        assert answer.completion_tokens == 0


def test_equal_titles_stand_together_in_the_shown_order(model, tmp_path):
    for seed in range(4):
        answered = answers(model, tmp_path, llm_seed=seed)
        for instance in instances():
            scores = json.loads(answered[instance.row].raw)
            pair = [item for item in ("b1", "b2") if item in instance.candidates]
            if len(pair) < 2:
                continue
            assert scores["b1"] == scores["b2"]
            ranking = answered[instance.row].ranking
            first, second = sorted(pair, key=ranking.index)
            assert ranking.index(second) == ranking.index(first) + 1
            assert sorted(pair, key=shown_order(instance, seed).index) == [first, second]


def test_titles_and_histories_are_cut(model, tmp_path):
    long, cut = ({**TITLES, "a1": title} for title in ("Toy sto" + "X" * 500, "Toy sto"))
    long_answers, wanted = (
        answers(model, tmp_path, titles=titles, llm_title_tokens=7) for titles in (long, cut)
    )
    for row in long_answers:
        assert json.loads(long_answers[row].raw) == pytest.approx(json.loads(wanted[row].raw), abs=2e-3)
    instance = instances()[2]
    last = dataclasses.replace(instance, history=instance.history[-2:])
    assert (
        answers(model, tmp_path, [instance], llm_history=2)[instance.row].raw
        == answers(model, tmp_path, [last], llm_history=2)[instance.row].raw
    )


def test_only_the_first_ranks_are_kept(model, tmp_path):
    every, three = answers(model, tmp_path), answers(model, tmp_path, llm_top_n=2)
    for row in every:
        assert three[row].ranking == every[row].ranking[:2]


def test_batches_do_not_change_scores(model, tmp_path):
    alone, together = (answers(model, tmp_path, llm_batch_size=size) for size in (1, 3))
    for row in alone:
        a, b = json.loads(alone[row].raw), json.loads(together[row].raw)
        assert a == pytest.approx(b, abs=2e-3)


def test_a_session_is_scored_the_same_whatever_else_is_asked(model, tmp_path):
    every = answers(model, tmp_path)
    for instance in instances():
        assert answers(model, tmp_path, [instance])[instance.row].raw == every[instance.row].raw


def test_tokens_are_those_forwarded_and_within_the_estimate(model, tmp_path):
    one = teacher(model, tmp_path)
    for instance, answer in one.ask(instances()):
        assert answer.prompt_tokens == one._scorer.case(instance).tokens
        assert answer.prompt_tokens <= one.estimate(instance)[0]
        assert one.estimate(instance)[1] is None
        assert answer.seconds > 0


def test_identity_and_prompt_need_no_model(model, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "load_causal_lm", lambda *_: pytest.fail("the model was loaded"))
    one = teacher(model, tmp_path, lora=True, lora_key="k")
    assert one.identity.startswith("local|tiny:")
    assert one.prompt(instances()[0]) == (
        "A user watched these movies, in order:\nToy story\nHeat\n\nToy soldiers\nHeat and "
        "dust\nHeat\nCasino\nSabrina"
    )


def test_identity_changes_with_what_decides_an_answer(model, tmp_path):
    same = teacher(model, tmp_path, lora=True, lora_key="k").identity
    assert teacher(model, tmp_path, lora=True, lora_key="k", llm_threads=1, llm_batch_size=3).identity == same
    other = [
        {"lora_key": "other"},
        {"lora": False},
        {"lora_rank": 8},
        {"lora_epochs": 2},
        {"llm_history": 3},
        {"llm_title_tokens": 3},
        {"llm_seed": 1},
        {"llm_top_n": 3},
        {"llm_dtype": "bfloat16"},
        {"llm_prompt": "games"},
        {"llm_model": "smollm2-135m-instruct"},
    ]
    identities = [
        teacher(model, tmp_path, **{"lora": True, "lora_key": "k", **change}).identity for change in other
    ]
    assert len({same, *identities}) == len(other) + 1


def test_threads_are_given_back(model, tmp_path):
    before = torch.get_num_threads()
    one = teacher(model, tmp_path, llm_threads=2)
    seen = []
    original = scorer.log_likelihoods
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            scorer, "log_likelihoods", lambda *args: seen.append(torch.get_num_threads()) or original(*args)
        )
        for _ in one.ask(instances()):
            assert torch.get_num_threads() == before
    assert set(seen) == {2}


def test_close_lets_the_model_go(model, tmp_path):
    one = teacher(model, tmp_path)
    one.prepare()
    alive = weakref.ref(one._scorer)  # which holds model and tokenizer
    one.close()
    assert alive() is None


def test_random_numbers_outside_are_left_alone(model, tmp_path):
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    answers(model, tmp_path)
    assert torch.equal(torch.rand(3), wanted)


def test_an_item_without_title_is_named(model, tmp_path):
    with pytest.raises(AlkdError, match=r"item 'zz' has no title"):
        answers(model, tmp_path, [Instance(1, "s", ("a1",), ("zz", "a2"))])


def test_scores_that_are_no_numbers_fail_the_label(model, tmp_path, monkeypatch):
    monkeypatch.setattr(scorers.TitleScorer, "scores", lambda *_: [torch.tensor([1.0, float("nan"), 0.0])])
    answered = answers(model, tmp_path, [instances()[1]])
    assert answered[3].status == "failed"
    assert answered[3].ranking == ()


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_bundled_model_one_pass_equals_single_passes(tmp_path, attention):
    one = teacher("smollm2-135m-instruct", tmp_path)
    one.prepare()
    llm, tokenizer = one._scorer.model, one._scorer.tokenizer
    llm.set_attn_implementation(attention)
    instance = instances()[0]
    raw = json.loads(next(answer for _, answer in one.ask([instance])).raw)

    def alone(prefix, text):
        before, after = tokenizer(prefix)["input_ids"], tokenizer(text)["input_ids"][:8]
        with torch.no_grad():
            logs = llm(input_ids=torch.tensor([before + after])).logits[0].log_softmax(-1)
        return sum(float(logs[len(before) - 1 + k, token]) for k, token in enumerate(after))

    head = "A user watched these movies, in order:\n"
    for item in instance.candidates:
        wanted = alone(head + "Toy story\nHeat\n", TITLES[item]) - alone(head, TITLES[item])
        assert raw[item] == pytest.approx(wanted, abs=1e-2)


@pytest.mark.slow
def test_bundled_model_knows_a_sequel(tmp_path):
    titles = {
        "1": "Star Wars",
        "2": "Star Wars: The Empire Strikes Back",
        "3": "Return of the Jedi",
        "4": "Casablanca",
        "5": "The Piano",
        "6": "Dirty Dancing",
        "7": "Four Weddings and a Funeral",
        "8": "Sense and Sensibility",
    }
    asked = Instance(0, "s", ("1", "2"), ("4", "5", "6", "3", "7", "8"))
    answered = answers("smollm2-135m-instruct", tmp_path, [asked], titles=titles, llm_dtype=None)
    assert answered[0].ranking[0] == "3"
