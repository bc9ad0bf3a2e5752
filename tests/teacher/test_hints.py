"""Hints: asked for once, parsed, kept under a key of what decides them, and shown in the prompts."""

import sqlite3
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_llm import TITLES, context, instances, tiny_llm

from recbole_alkd.labelling.collect import prepare
from recbole_alkd.labelling.hints import hints_of
from recbole_alkd.labelling.supplies import Supplies
from recbole_alkd.labels import Budget, LabelStore, LabelStoreError, tools
from recbole_alkd.labels import file as file_module
from recbole_alkd.labels.cost import Cost
from recbole_alkd.labels.hints import all_hints, get_hints, put_hints
from recbole_alkd.registry import teachers
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.teacher.base import Answer, LLMTeacher
from recbole_alkd.teacher.hints import MAX_HINT, MAX_HINTS, as_lines, hint_key, hint_messages, parse_hints
from recbole_alkd.teacher.local.generate import GenerateScorer
from recbole_alkd.teacher.prompt import load_prompt

ANSWER = """Here are the rules:
1. **Sequels** follow what they continue.
   This holds for franchises too.

2) People stay in a genre <ID7>.
- Old films follow old films.
That is all."""
HINTS = (
    "Sequels follow what they continue. This holds for franchises too.",
    "People stay in a genre (ID7).",
    "Old films follow old films. That is all.",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_llm(tmp_path_factory.mktemp("llm") / "tiny")


def with_cases(model, tmp_path, key="c", **values):
    return context(model, tmp_path, {"llm_scoring": "generate", **values}, hint_key=key)


SUPPLIES = Supplies(hint_cases=instances, lora_examples=list)


def test_points_are_read():
    assert parse_hints(ANSWER) == HINTS


@pytest.mark.parametrize(
    ("text", "hints"),
    [
        ("", ()),
        ("No rules here, sorry.", ()),
        ("1. one\n1. one\n2. two", ("one", "two")),
        ("<think>1. a thought</think>1. a rule", ("a rule",)),
        ("<think>1. a thought that never ends", ()),
        ("**1.** bold number", ("bold number",)),
        ("(3) in brackets\n4: colon", ("in brackets", "colon")),
        ("1.5 stars are rare", ()),
        ("1. " + "x" * 1000, ("x" * MAX_HINT,)),
        (
            "\n".join(f"{k}. rule {k}" for k in range(1, 30)),
            tuple(f"rule {k}" for k in range(1, MAX_HINTS + 1)),
        ),
    ],
)
def test_other_answers_are_read_too(text, hints):
    assert parse_hints(text) == hints


@given(st.text(alphabet=st.sampled_from("1.)-* \n<>abc{}"), max_size=200))
def test_hints_are_always_safe_lines(text):
    hints = parse_hints(text)
    assert len(hints) <= MAX_HINTS
    for hint in hints:
        assert 0 < len(hint) <= MAX_HINT
        assert not set(hint) & set("<>\n")


def test_the_question_shows_every_case():
    system, user = hint_messages(load_prompt("movies", ""), instances(), TITLES)
    assert system["role"] == "system"
    for number, case in enumerate(instances(), start=1):
        assert f"Case {number}\n" in user["content"]
        for item in case.history + case.candidates:
            assert f"- {TITLES[item]}\n" in user["content"]


class Stub(LLMTeacher):
    """Has hints of its own under ``hint_key``; ``answer`` gives its answer to a chat."""

    identity = "an LLM"
    instant = True

    def __init__(self, ctx, answer):
        super().__init__(ctx)
        self.prompts, self.answer = load_prompt("movies", ""), answer

    @property
    def hint_key(self):
        return hint_key(self.context, self.prompts, "an LLM")

    def hint_messages(self, cases):
        return hint_messages(self.prompts, cases, TITLES)

    def text_costs(self, messages):
        return Cost(50), Cost(100, usd=1.0)

    def write(self, messages, reservation):
        return self.answer(messages)


def hints_for(ctx, store, answer, budget=None):
    """The rules, and what they took."""
    return hints_of(Stub(ctx, answer), store, budget or Budget(9), SUPPLIES)


@pytest.fixture
def store(tmp_path):
    with LabelStore(tmp_path / "labels.sqlite") as store:
        yield store


def test_hints_are_asked_for_once(model, tmp_path, store):
    asked = []

    def ask(messages):
        asked.append(messages)
        return Answer((), raw=ANSWER, prompt_tokens=90, completion_tokens=7, usd=0.5)

    ctx, budget = with_cases(model, tmp_path), Budget(9, tokens=1000)
    key = hint_key(ctx, load_prompt("movies", ""), "an LLM")
    (first, paid), (second, again) = hints_for(ctx, store, ask, budget), hints_for(ctx, store, ask, budget)
    assert first == HINTS == second and as_lines(HINTS).startswith(f"1. {HINTS[0]}\n2. {HINTS[1]}\n")
    assert len(asked) == 1
    assert (paid.tokens, paid.usd) == (97, 0.5) and again == Cost()  # paid for once
    assert (budget.spent.tokens, budget.spent.usd, budget.spent.labels) == (97, 0.5, 0)
    kept = get_hints(store, key)
    assert (kept.rules, kept.raw, kept.teacher) == (HINTS, ANSWER, "an LLM")
    (spent,) = tools.stats(store)
    assert (spent.hints, spent.ok, spent.prompt_tokens, spent.usd) == (1, 0, 90, 0.5)
    with LabelStore(tmp_path / "other.sqlite") as other:
        tools.merge(other, store)
        tools.merge(other, store)
        assert list(all_hints(other)) == [kept]
        assert not put_hints(other, kept)
    with store.transaction() as db:
        db.execute("UPDATE hints SET rules = '{'")
    with pytest.raises(LabelStoreError, match="not readable"):
        hints_for(ctx, store, ask)


def test_of_two_that_want_the_same_hints_one_asks(model, tmp_path, store):
    ctx = with_cases(model, tmp_path)
    asked, began, may_end, supplied = [], threading.Event(), threading.Event(), []

    def ask(messages):
        asked.append(messages)
        began.set()
        assert may_end.wait(30)
        return Answer((), raw=ANSWER)

    def want():
        with LabelStore(store.path) as own:
            supplied.append(hints_for(ctx, own, ask))

    threads = [threading.Thread(target=want) for _ in range(2)]
    threads[0].start()
    assert began.wait(30)
    threads[1].start()
    may_end.set()
    for thread in threads:
        thread.join(30)
    assert len(asked) == 1 and [rules for rules, _ in supplied] == [HINTS, HINTS]


def test_hints_that_cannot_be_stored_are_kept_beside_the_store(model, tmp_path, store, monkeypatch):
    monkeypatch.setattr(file_module, "LOCKED_SECONDS", 0.2)
    ctx = with_cases(model, tmp_path)
    held = []

    def ask(messages):
        held.append(sqlite3.connect(store.path, isolation_level=None, check_same_thread=False))
        held[0].execute("BEGIN IMMEDIATE")
        return Answer((), raw=ANSWER, prompt_tokens=90)

    class Costly(Stub):
        instant = False

    with pytest.raises(
        LabelStoreError, match=r"another process holds it .*; 1 answers are kept in .*the next start"
    ):
        hints_of(Costly(ctx, ask), store, Budget(9), SUPPLIES)
    held[0].close()
    assert hints_for(ctx, store, lambda _: pytest.fail("asked again"))[0] == HINTS


def test_hints_that_take_more_than_was_said_name_the_teacher(model, tmp_path, store):
    ctx, budget = with_cases(model, tmp_path), Budget(9, tokens=1000)
    with pytest.raises(
        AlkdError, match=r"'an LLM', the hints: 200 tokens were taken where 100 were reserved"
    ):
        hints_for(ctx, store, lambda _: Answer((), raw=ANSWER, prompt_tokens=200), budget)
    assert (
        budget.spent.tokens == 200 and hints_for(ctx, store, lambda _: pytest.fail("asked again"))[0] == HINTS
    )


def test_a_store_without_hints_gets_them(tmp_path):
    path = tmp_path / "labels.sqlite"
    with LabelStore(path) as store, store.transaction() as db:
        db.execute("DROP TABLE hints")
        db.execute("PRAGMA user_version = 1")
    with LabelStore(path) as store:
        assert list(all_hints(store)) == []


def test_the_key_is_of_what_decides_the_hints(model, tmp_path):
    prompt = load_prompt("movies", "")
    keys = [
        hint_key(with_cases(model, tmp_path), prompt, "an LLM"),
        hint_key(with_cases(model, tmp_path), prompt, "another"),
        hint_key(with_cases(model, tmp_path, key="d"), prompt, "an LLM"),
        hint_key(with_cases(model, tmp_path, llm_seed=1), prompt, "an LLM"),
        hint_key(with_cases(model, tmp_path), load_prompt("games", ""), "an LLM"),
        hint_key(with_cases(model, tmp_path, llm_hints=False), prompt, "an LLM"),
    ]
    assert len(set(keys)) == len(keys)
    assert keys[-1] == hint_key(context(model, tmp_path), prompt, "an LLM") == "none"


def test_without_hints_nobody_is_asked(model, tmp_path, store):
    assert hints_for(context(model, tmp_path), store, lambda _: pytest.fail("asked")) == (None, Cost())


def test_an_llm_without_hints_is_not_asked_again(model, tmp_path, store, caplog):
    ctx = with_cases(model, tmp_path)
    assert hints_for(ctx, store, lambda _: Answer((), raw="I cannot."))[0] == ()
    assert "no hints that can be used" in caplog.text
    assert hints_for(ctx, store, lambda _: pytest.fail("asked again"))[0] == ()


def test_hints_stand_in_the_prompts_of_the_local_teacher(model, tmp_path, store, monkeypatch):
    monkeypatch.setattr(GenerateScorer, "chat", lambda self, messages: Answer((), raw=ANSWER))
    one = teachers.get("local")(with_cases(model, tmp_path))
    prepare(one, store, Budget(9), SUPPLIES)
    read = one._scorer.tokenizer.decode(one._scorer.case(instances()[0]).trees[0].tokens.tolist())
    assert f"1. {HINTS[0]}\n2. {HINTS[1]}\n" in read
    other = teachers.get("local")(with_cases(model, tmp_path, key="d"))
    assert one.identity != other.identity


def test_the_hints_of_the_local_teacher_are_counted(model, tmp_path, store):
    teacher = teachers.get("local")(with_cases(model, tmp_path))
    budget = Budget(9, tokens=10**6)
    paid = prepare(teacher, store, budget, SUPPLIES)
    (kept,) = all_hints(store)
    asked = hint_messages(load_prompt("movies", ""), instances(), TITLES)
    # every byte is a token here
    assert kept.prompt_tokens >= sum(len(message["content"].encode()) for message in asked)
    assert 0 < kept.completion_tokens <= 400
    assert budget.spent.tokens == kept.cost.tokens == paid.tokens
    poor = teachers.get("local")(with_cases(model, tmp_path, key="d"))
    with pytest.raises(ValueError, match=r"budget_tokens: .* too little for the hints"):
        prepare(poor, store, Budget(9, tokens=100), SUPPLIES)


def test_likelihoods_have_no_hints(model, tmp_path, monkeypatch):
    monkeypatch.setattr(GenerateScorer, "chat", lambda *_: pytest.fail("asked"))
    with_hints, without = (
        teachers.get("local")(with_cases(model, tmp_path, llm_scoring="title", llm_hints=on))
        for on in (True, False)
    )
    with_hints.prepare()  # without any
    assert with_hints.identity == without.identity
