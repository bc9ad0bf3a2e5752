"""Answers against a plain computation on catalogues larger than a session's neighbours, and arguments
that nobody sends in good faith."""

from __future__ import annotations

import numpy as np
import pytest
from service_process import named_table

from recbole_alkd import AlkdError
from recbole_alkd.serving import Recommender
from recbole_alkd.serving.items import write_items
from recbole_alkd.serving.manifest import STUDENT, copy_bundle, write_bundle_folder
from recbole_alkd.tensors import write_tensors

ITEMS = 3_000


@pytest.fixture(scope="module")
def recommender(tmp_path_factory):
    """Rows of 0 to 8 neighbours, an item among its own, weights with ties, some of them negative or 0."""
    rng = np.random.default_rng(5)
    degrees = rng.integers(0, 9, size=ITEMS)
    rows = [np.sort(rng.choice(np.arange(1, ITEMS + 1), size, replace=False)) for size in degrees]

    def fill(folder):
        table = {
            "indptr": np.concatenate([[0, 0], degrees.cumsum()]).astype(np.int32),
            "indices": np.concatenate(rows).astype(np.int32),
            "weights": (rng.integers(-2, 6, degrees.sum()) / 8).astype(np.float16),
            "recency": (0.7 ** np.arange(6)).astype(np.float32),
        }
        write_tensors(folder / STUDENT, table)
        counts = np.concatenate([[0], rng.integers(0, 40, ITEMS)])
        write_items(folder, [str(k) for k in range(1, ITEMS + 1)], [""] * ITEMS, counts)

    facts = {"kind": "table", "backbone": "SessionKNN", "items": ITEMS, "max_length": 7, "last_items": 6}
    out = tmp_path_factory.mktemp("limits") / "bundle"
    return Recommender.load(write_bundle_folder(out, {"student": facts}, fill))


def plainly(recommender, session, k, never, only):
    """The definition: all scores, what is left out, and a stable sort."""
    scores = recommender.scores(session)
    never = {0, *(int(one) for one in never)}
    left = [one for one in (range(1, ITEMS + 1) if only is None else sorted(only)) if one not in never]
    return [(str(one), float(scores[one])) for one in sorted(left, key=lambda one: (-scores[one], one))[:k]]


@pytest.mark.parametrize("seed", range(40))
def test_the_best_items_are_those_of_a_plain_computation(recommender, seed):
    rng = np.random.default_rng(seed)
    session = [str(one) for one in rng.integers(1, ITEMS + 1, size=rng.integers(0, 12))]
    if session and seed % 3 == 0:
        session += session[:2]  # an item twice
    k = int(rng.choice([1, 3, 10, 200, ITEMS, 10 * ITEMS]))
    blocked = [str(one) for one in rng.integers(1, ITEMS + 1, size=rng.integers(0, 60))]
    only = None if seed % 2 else {int(one) for one in rng.integers(1, ITEMS + 1, size=rng.integers(0, 90))}
    exclude = bool(seed % 5)
    answer = recommender.recommend(
        session, k, exclude_history=exclude, blocked=blocked, allowed=None if only is None else map(str, only)
    )
    never = [*blocked, *(session if exclude else [])]
    assert [(one.item, one.score) for one in answer] == plainly(recommender, session, k, never, only)


@pytest.mark.parametrize("session", [["1", "2"], []])
@pytest.mark.parametrize("nothing", [[], ["no such item"], ["1"]])
def test_nothing_is_allowed(recommender, session, nothing):
    assert recommender.recommend(session, 5, allowed=nothing, blocked=["1"]) == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"history": [10**5000]}, "history: a value of type int that is too large is no item id"),
        ({"history": [-(10**120)]}, "is no item id"),
        ({"history": ["1"], "k": -(10**5000)}, "k: a value of type int that is too large is not allowed"),
        ({"history": [1.0]}, "history: 1.0 is no item id"),
        ({"history": [None]}, "history: None is no item id"),
        ({"history": [["1"], "2"]}, r"history: \['1'\] is no item id"),
        ({"history": ["1"], "blocked": "1"}, "blocked: '1' is not allowed; allowed: item ids"),
        ({"history": {"1": 2}}, "history: {'1': 2} is not allowed"),
    ],
)
def test_what_cannot_be_meant_is_an_error_in_one_line(recommender, given, words):
    with pytest.raises(AlkdError, match=words) as error:
        recommender.recommend(given.pop("history"), **given)
    assert len(str(error.value)) < 200 and "\n" not in str(error.value)


def test_long_sessions_numbers_of_numpy_and_unknown_ids(recommender):
    session = [str(one) for one in range(1, ITEMS + 1)] * 20
    assert recommender.recommend(session, 3, exclude_history=False) == recommender.recommend(
        session[-7:], 3, exclude_history=False
    )
    assert recommender.recommend(session, 3) == []
    assert recommender.recommend(np.array([5, 6]), 3) == recommender.recommend(["5", "6"], 3)
    odd = ["\x00", "\ud800", "", " 5", "5 ", "05", "5.0", "\u0665"]
    before = recommender.ignored
    assert recommender.recommend([*odd, "6"], 3) == recommender.recommend(["6"], 3)
    assert recommender.ignored == before + len(odd)


def test_ids_and_titles_of_any_text_come_back_as_they_are(tmp_path):
    ids = ["a", " a", "A", "\u200b", "two\nlines", "\U0001f3ac", "-k", "--bundle", "50;51", "x" * 5000]
    titles = ["<script>1</script>", "\u202egnirts", "", "\x1b[2J", "\x00", "a\tb", "|", "#", "*", "y" * 9000]
    recommender = Recommender.load(named_table(tmp_path / "b", ids, titles), verify=True)
    answer = recommender.recommend(["a"], 20, exclude_history=False)
    assert {(one.item, one.title) for one in answer} == set(zip(ids, titles, strict=True))
    for one in ids:
        assert recommender.recommend([one], 3) and recommender.ignored == 0


def test_a_bundle_that_changes_while_it_is_copied_is_not_copied(tmp_path, monkeypatch):
    import shutil

    bundle = named_table(tmp_path / "b", list("abcdef"))
    copyfile = shutil.copyfile

    def changing(source, target):
        copyfile(source, target)
        target.write_bytes(target.read_bytes() + b"x")

    monkeypatch.setattr("recbole_alkd.serving.manifest.shutil.copyfile", changing)
    with pytest.raises(AlkdError, match="it was changed while it was copied; try again"):
        copy_bundle(bundle, tmp_path / "copy")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["b"]
