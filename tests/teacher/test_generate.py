"""Generation: what is written and read, in batches and alone, and training it to begin with the
right item."""

import pytest
import torch
from tiny_llm import TITLES, context, instances, tiny_llm, with_examples

from recbole_alkd.llm.models import load_causal_lm
from recbole_alkd.registry import teachers
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.teacher.local.generate import GenerateScorer
from recbole_alkd.teacher.prompt import load_prompt, ranking_request


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_llm(tmp_path_factory.mktemp("llm") / "tiny")


def teacher(model, tmp_path, values=None, **own):
    return teachers.get("local")(
        context(model, tmp_path, {"llm_scoring": "generate", **(values or {})}, **own)
    )


def scorer(model, tmp_path):
    one = teacher(model, tmp_path)
    one.prepare()
    return one._scorer


def test_the_prompt_is_the_ranking_request_as_a_chat(model, tmp_path):
    one = teacher(model, tmp_path)
    one.prepare()
    instance = instances()[0]
    request = ranking_request(load_prompt("movies", ""), instance, TITLES, one.settings)
    system, user = request.messages
    ids = one._scorer.case(instance).trees[0].tokens.tolist()
    text = one._scorer.tokenizer.decode(ids)
    assert text == f"system: {system['content']}\nuser: {user['content']}\nassistant: "
    assert one.prompt(instance) == request.text


def test_batches_write_what_each_writes_alone(model, tmp_path):
    one = scorer(model, tmp_path)
    prompts = [one.case(instance).trees[0].tokens.tolist() for instance in instances()]
    together = one._write(prompts, 24)
    assert together == [one._write([prompt], 24)[0] for prompt in prompts]
    llm, tokenizer = load_causal_lm(str(model), "cpu", "float32")
    ids, wanted = list(prompts[0]), []
    with torch.no_grad():  # greedy by hand
        for _ in range(24):
            wanted.append(int(llm(input_ids=torch.tensor([ids + wanted])).logits[0, -1].argmax()))
    assert together[0] == (tokenizer.decode(wanted), 24)


def test_an_end_ends_the_answer(model, tmp_path, monkeypatch):
    one = scorer(model, tmp_path)
    end, text = one.tokenizer.eos_token_id, list(one._encode("[<IDa3>]"))

    def write(input_ids, **_):
        tail = torch.tensor([[*text, end, *[end] * 5], [*text, *text[:6]]])
        return torch.cat([input_ids, tail[:, :14]], dim=1)

    monkeypatch.setattr(one.model, "generate", write)
    assert one._write([[1, 2], [3]], 14) == [("[<IDa3>]", 9), ("[<IDa3>][<IDa3", 14)]


def test_answers_are_parsed_and_counted(model, tmp_path, monkeypatch):
    monkeypatch.setattr(
        GenerateScorer, "_write", lambda self, prompts, _: [("[<IDb1>, <IDz9>, <IDb1>]", 7) for _ in prompts]
    )
    one = teacher(model, tmp_path, {"llm_batch_size": 3})
    answers = {instance.row: answer for instance, answer in one.ask(instances())}
    assert {answer.completion_tokens for answer in answers.values()} == {7}
    assert all(answer.prompt_tokens > 100 for answer in answers.values())
    assert (answers[3].ranking, answers[3].status) == (("b1",), "ok")
    assert answers[3].repairs == {"unknown": 1, "duplicate": 1}
    assert (answers[7].ranking, answers[7].status) == ((), "failed")  # none of these was offered there


def test_tokens_stay_within_the_estimate(model, tmp_path):
    one = teacher(model, tmp_path, {"llm_top_n": 3})
    for instance, answer in one.ask(instances()):
        assert answer.prompt_tokens + answer.completion_tokens <= one.estimate(instance)[0]


def test_lora_learns_to_begin_with_the_right_item(model, tmp_path):
    from test_lora import ITEMS, examples

    values = {
        "llm_candidates": 6,
        "llm_top_n": 6,
        "lora": True,
        "lora_held_out": 0,
        "lora_scale": "fixed",
        "lora_examples": 48,
        "lora_learning_rate": 1e-2,
    }
    fixed = examples(4) * 12
    one = with_examples(teacher(model, tmp_path, values, titles=ITEMS), lambda: fixed)
    one.prepare()
    assert one.lora_report["loss_last"] < 0.8 * one.lora_report["loss_first"]


def test_a_prompt_that_is_too_long_is_a_failed_label(model, tmp_path):
    one = teacher(model, tmp_path, {"llm_dtype": "bfloat16"})
    one.prepare()
    one._scorer.model.config.max_position_embeddings = 300
    for _, answer in one.ask(instances()):
        assert answer.status == "failed" and answer.raw.endswith(
            "tokens are more than the 300 that the model reads"
        )
    with pytest.raises(
        AlkdError, match=r"llm_hint_cases: 10 cases make a prompt of \d+ tokens, and 400 for the answer"
    ):
        one._scorer.chat(one._scorer._request(instances()[0], 2))


def test_a_model_without_a_chat_template_is_named(model, tmp_path):
    one = scorer(model, tmp_path)
    one.tokenizer.chat_template = None
    with pytest.raises(AlkdError, match=r"needs a model with a chat template.* title \| index"):
        one.case(instances()[0])


@pytest.mark.slow
def test_the_bundled_model_writes(tmp_path):
    one = teacher("smollm2-135m-instruct", tmp_path, {"llm_dtype": None, "llm_top_n": 3})
    for _, answer in one.ask(instances()[:1]):
        assert answer.completion_tokens > 0
        assert answer.status in ("ok", "failed")
