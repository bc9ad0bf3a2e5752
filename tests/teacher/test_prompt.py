"""Prompts: the shipped ones are valid, wrong ones are named, and what an LLM is shown holds what
it should."""

import dataclasses
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tiny_llm import TITLES, instances

from recbole_alkd.plugin import properties_dir
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.reading import read_settings
from recbole_alkd.teacher.base import Instance
from recbole_alkd.teacher.prompt import (
    SLOTS,
    load_prompt,
    ranking_request,
    session_titles,
    shown_order,
    title_prefix,
)

SHIPPED = sorted(file.stem for file in (properties_dir() / "prompt").glob("*.yaml"))
SETTINGS = read_settings({"llm_candidates": 8, "llm_top_n": 3, "llm_history": 4}).teacher


def prompt_file(tmp_path, change=None, drop=None):
    content = yaml.safe_load((properties_dir() / "prompt" / "neutral.yaml").read_text(encoding="utf-8"))
    content.update(change or {})
    for key in drop or ():
        group, _, name = key.partition(".")
        del (content[group] if name else content)[name or group]
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(file)


def test_the_shipped_prompts():
    assert SHIPPED == ["games", "movies", "neutral", "products"]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_prompt_can_be_used(name):
    prompt = load_prompt(name, "")
    assert prompt.name == name
    assert "\n" not in prompt["title"]
    request = ranking_request(prompt, instances()[0], TITLES, SETTINGS)
    assert "{" not in request.text.replace("{2}", "")


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("ml-100k", "movies"),
        ("ML-1M", "movies"),
        ("alkdrec-ml", "movies"),
        ("Amazon_Movies_and_TV", "movies"),
        ("Amazon_Video_Games", "games"),
        ("steam", "games"),
        ("online-retail", "products"),
        ("Amazon_Beauty", "products"),
        ("diginetica", "neutral"),
        ("html", "neutral"),
    ],
)
def test_the_data_set_chooses_the_prompt(dataset, name):
    assert load_prompt(None, dataset).name == name
    assert load_prompt("games", dataset).name == "games"


def test_a_file_of_ones_own(tmp_path):
    prompt = load_prompt(
        prompt_file(tmp_path, {"title": "Somebody read these books, in order:"}, drop=["datasets"]), "ml-100k"
    )
    assert title_prefix(prompt, ["Emma"]) == "Somebody read these books, in order:\nEmma\n"


@pytest.mark.parametrize("key", SLOTS)
def test_a_missing_key_is_named(tmp_path, key):
    with pytest.raises(AlkdError, match=rf"prompt file .*mine\.yaml: the key '{re.escape(key)}' is missing"):
        load_prompt(prompt_file(tmp_path, drop=[key]), "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"titel": "x"}, "unknown key 'titel'"),
        ({"title": ""}, "title: '' is not allowed"),
        ({"title": ["x"]}, r"title: \['x'\] \(list\) is not allowed"),
        ({"datasets": "ml-*"}, "datasets: 'ml-\\*' is not allowed"),
        (
            {"generate": {"system": "s", "hints": "no slot", "user": "{hints}{history}{candidates}{top_n}"}},
            r"generate\.hints",
        ),
        (
            {"generate": {"system": "s", "hints": "{hints}", "user": "{hints}{history}{candidates}"}},
            r"generate\.user: .*\{top_n\}",
        ),
        (
            {
                "generate": {
                    "system": "s",
                    "hints": "{hints}",
                    "user": "{hints.x}{history}{candidates}{top_n}",
                }
            },
            r"generate\.user",
        ),
        (
            {"generate": {"system": "s", "hints": "{hints", "user": "{hints}{history}{candidates}{top_n}"}},
            r"generate\.hints: ",
        ),
    ],
)
def test_a_wrong_text_is_named(tmp_path, change, message):
    with pytest.raises(AlkdError, match=rf"prompt file .*mine\.yaml: .*{message}"):
        load_prompt(prompt_file(tmp_path, change), "")


@pytest.mark.parametrize("content", ["a: [", "just text", "\x00"])
def test_a_file_that_is_no_mapping_is_named(tmp_path, content):
    file = tmp_path / "mine.yaml"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(AlkdError, match=r"prompt file .*mine\.yaml"):
        load_prompt(str(file), "")


def test_a_misspelt_name_gets_a_suggestion():
    with pytest.raises(
        AlkdError,
        match=r"llm_prompt: 'movie' .* \(did you mean 'movies'\?\).* games \| movies \| neutral \| products",
    ):
        load_prompt("movie", "ml-100k")


tokens = st.lists(st.text(alphabet="abc123", min_size=1, max_size=4), min_size=2, max_size=8, unique=True)


@given(tokens, st.randoms(use_true_random=False), st.integers(0, 99))
def test_the_shown_order_hides_the_ranking(candidates, random, seed):
    shuffled = random.sample(candidates, len(candidates))
    a, b = (Instance(0, "s", ("h",), tuple(c)) for c in (candidates, shuffled))
    assert shown_order(a, seed) == shown_order(b, seed)
    assert sorted(shown_order(a, seed)) == sorted(candidates)


def test_the_shown_order_depends_on_session_history_and_seed():
    one = Instance(0, "s", ("h",), tuple(str(k) for k in range(9)))
    orders = {shown_order(one, 0), shown_order(one, 1)}
    orders.add(shown_order(dataclasses.replace(one, session="t"), 0))
    orders.add(shown_order(dataclasses.replace(one, history=("h", "i")), 0))
    assert len(orders) == 4


def test_every_place_is_shown_equally_often():
    last = [shown_order(Instance(0, str(k), ("h",), tuple("abcde")), 0).index("e") for k in range(2000)]
    assert all(abs(last.count(place) / 2000 - 0.2) < 0.05 for place in range(5))


def test_a_ranking_request_shows_session_and_candidates():
    instance = instances()[2]
    request = ranking_request(
        load_prompt("movies", ""), instance, TITLES, SETTINGS, hints="1. Sequels follow.\n2. So do remakes.\n"
    )
    system, user = request.messages
    assert (system["role"], user["role"]) == ("system", "user")
    assert [token for token, _ in request.shown] == list(shown_order(instance, SETTINGS.llm_seed))
    assert all(TITLES[token] == title for token, title in request.shown)
    lines = user["content"].splitlines()
    history = [f"<ID{token}> {TITLES[token]}" for token in instance.history[-4:]]
    assert [line for line in lines if line.startswith("<ID")] == history + [
        f"<ID{token}> {title}" for token, title in request.shown
    ]
    assert "1. Sequels follow.\n2. So do remakes." in user["content"]
    assert "exactly 3 different" in user["content"]


def test_without_hints_nothing_speaks_of_them():
    texts = [
        ranking_request(load_prompt("movies", ""), instances()[0], TITLES, SETTINGS, hints=h).text
        for h in ("", " \n")
    ]
    assert texts[0] == texts[1]
    assert "bservations" not in texts[0]


def test_no_more_ranks_are_asked_for_than_there_are_candidates():
    instance = dataclasses.replace(instances()[0], candidates=("a2", "a3"))
    assert (
        "exactly 2 different" in ranking_request(load_prompt("movies", ""), instance, TITLES, SETTINGS).text
    )


def test_braces_in_titles_are_only_text():
    titles = {**TITLES, "a1": "{history} {0.__class__} {{", "a3": "{top_n}"}
    text = ranking_request(load_prompt("neutral", ""), instances()[0], titles, SETTINGS).text
    assert "<IDa1> {history} {0.__class__} {{\n" in text
    assert "<IDa3> {top_n}\n" in text


def test_session_titles_are_the_last_ones_in_order():
    assert session_titles(instances()[2], TITLES, 2) == ["Sabrina", TITLES["c3"]]
