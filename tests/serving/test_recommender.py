"""A bundle recommends what the trainer evaluated, in the user's own ids, and takes what people type."""

from __future__ import annotations

import numpy as np
import pytest
from served import bundle_scores, ranks, serve

from recbole_alkd import AlkdError, backbones
from recbole_alkd.serving import Recommender, students

NOT_EXPORTED = ("FEARec", "GCSAN", "SLIST", "SRGNN", "VSTAN")
EXPORTED = [name for name in backbones if name not in NOT_EXPORTED]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    served = serve(tmp_path_factory.mktemp("table"), "SessionKNN")
    return served, Recommender.load(served.bundle, verify=True)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"edges": True},
        {"student_neighbors": 5},
        {"student_config": {"knn_decay": 0.0, "knn_last_items": 3}},
    ],
    ids=str,
)
def test_a_table_ranks_every_test_session_as_the_trainer_does(tmp_path, how, masked):
    served = serve(tmp_path, "SessionKNN", **how, mask_session_items=masked)
    sessions, targets, scores = served.evaluated()
    served_scores = bundle_scores(Recommender.load(served.bundle), sessions, masked)
    np.testing.assert_array_equal(served_scores[:, 1:], scores[:, 1:])
    np.testing.assert_array_equal(ranks(served_scores, targets), ranks(scores, targets))


OTHERS = [(name, False) for name in EXPORTED if name != "SessionKNN"]
OTHERS += [("SessionFPMC", True), ("GRU4Rec", True), ("BERT4Rec", True)]


@pytest.mark.parametrize(("name", "fusion"), OTHERS)
def test_every_other_backbone_ranks_as_the_trainer_does(tmp_path, name, fusion):
    """Matrix products add in another order, so an item that is as good as the target but for rounding may
    change places."""
    served = serve(tmp_path, name, fusion)
    sessions, targets, scores = served.evaluated()
    served_scores = bundle_scores(Recommender.load(served.bundle), sessions)
    size = np.abs(scores[:, 1:]).max()
    np.testing.assert_allclose(served_scores[:, 1:], scores[:, 1:], rtol=0, atol=1e-5 * size)
    own = np.take_along_axis(scores, targets[:, None], 1)
    near = (np.abs(scores[:, 1:] - own) < 2e-5 * size).sum(1) - 1
    assert (np.abs(ranks(served_scores, targets) - ranks(scores, targets)) <= near).all()


def test_the_decay_of_session_fpmc_is_served(tmp_path):
    served = serve(tmp_path, "SessionFPMC", item_decay=0.6)
    sessions, _, scores = served.evaluated()
    served_scores = bundle_scores(Recommender.load(served.bundle), sessions)
    np.testing.assert_allclose(served_scores[:, 1:], scores[:, 1:], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", NOT_EXPORTED)
def test_a_backbone_that_cannot_be_exported_is_refused_by_name(tmp_path, name):
    with pytest.raises(AlkdError, match=f"{name} cannot be exported to ONNX: .*(numpy|Fourier|loop)"):
        serve(tmp_path, name)
    assert not [one for one in tmp_path.iterdir() if one.name != "data"]


@pytest.mark.parametrize(
    ("name", "dense"), [("SessionKNN", 4), ("SessionKNN", 0), ("SessionFPMC", 4), ("GRU4Rec", 4)]
)
@pytest.mark.parametrize("exclude", [False, True])
def test_the_best_items_are_those_of_a_full_sort(tmp_path, monkeypatch, name, dense, exclude):
    """dense: 0 has a table sort its edges however small the catalogue is."""
    monkeypatch.setattr(students, "_DENSE", dense)
    served = serve(tmp_path, name, **({"student_neighbors": 3} if name == "SessionKNN" else {}))
    recommender = Recommender.load(served.bundle)
    sessions, _, _ = served.evaluated()
    for session in sessions:
        scores = recommender.scores(session)
        wanted = sorted(range(1, len(scores)), key=lambda item: (-scores[item], item))
        never = {served.tokens[2], *(session if exclude else ())}
        wanted = [served.tokens[item] for item in wanted if served.tokens[item] not in never]
        best = recommender.recommend(session, 30, exclude_history=exclude, blocked=[served.tokens[2]])
        assert [one.item for one in best] == wanted
        some = [served.tokens[4], served.tokens[9], "not an item"]
        only = recommender.recommend(
            session, 30, exclude_history=exclude, blocked=[served.tokens[2]], allowed=some
        )
        assert [one.item for one in only] == [item for item in wanted if item in some]
        assert [one.item for one in recommender.recommend(session, 3, exclude_history=exclude)] == [
            served.tokens[item] for item in sorted(range(1, len(scores)), key=lambda item: (-scores[item],
                                                                                            item))
            if not exclude or served.tokens[item] not in session
        ][:3]  # fmt: skip


def test_many_sessions_give_a_list_of_lists(table):
    _, recommender = table
    lists = recommender.recommend([["i3"], ["i4", "i5"], []], 2)
    assert lists == [recommender.recommend(one, 2) for one in (["i3"], ["i4", "i5"], [])]
    assert all(len(one) == 2 for one in lists)


def test_unknown_items_are_ignored_and_counted_or_refused(table):
    _, recommender = table
    before = recommender.ignored
    assert recommender.recommend(["i3", "who?", "i4"], 5) == recommender.recommend(["i3", "i4"], 5)
    assert recommender.ignored == before + 1
    with pytest.raises(AlkdError, match=r"history: 'who\?' is not in the catalogue of 30 items"):
        recommender.recommend(["i3", "who?"], unknown="error")


@pytest.mark.parametrize("session", [[], ["who?", "what?"], ()])
def test_a_session_of_which_nothing_is_known_is_served_by_popularity(table, session):
    served, recommender = table
    counts = served.model.recommender.counts.numpy()
    wanted = sorted(range(1, 31), key=lambda item: (-counts[item], item))
    assert [one.item for one in recommender.recommend(session, 30)] == [
        served.tokens[item] for item in wanted
    ]
    without = recommender.recommend(session, 3, blocked=[served.tokens[wanted[0]]])
    assert [one.item for one in without] == [served.tokens[item] for item in wanted[1:4]]


def test_a_session_longer_than_in_training_is_cut_to_its_newest_known_items(tmp_path):
    served = serve(tmp_path, "SessionFPMC")
    recommender = Recommender.load(served.bundle)
    newest = [f"i{k}" for k in range(1, 1 + recommender.max_length)]
    session = ["i20", "i21", *newest[:2], "who?", *newest[2:]]
    np.testing.assert_array_equal(recommender.scores(session), recommender.scores(newest))
    items = {one.item for one in recommender.recommend(session, 30)}
    assert items == set(served.tokens[1:]) - set(session)  # those before are left out as well


def test_ids_may_be_numbers_where_they_look_like_some(tmp_path):
    from recbole_alkd.serving.items import Items, write_items

    write_items(tmp_path, ["7", "08", "x"], ["", "a", ""], np.array([0, 1, 1, 1]))
    items = Items.read(tmp_path)
    assert items.numbers(["7", "8", "08", "x", "7"]).tolist() == [1, 0, 2, 3, 1]


@pytest.mark.parametrize(
    ("history", "more", "words"),
    [
        ("i3", {}, "history: 'i3' is not allowed; allowed: a list"),
        (None, {}, "history: None is not allowed"),
        ([1.5], {}, "history: 1.5 is no item id"),
        ([True], {}, "history: True is no item id"),
        ([["i3"], "i4"], {}, r"history: \['i3'\] is no item id"),
        (["i3"], {"k": -1}, "k: -1 is not allowed"),
        (["i3"], {"k": 2.5}, "k: 2.5 is not allowed"),
        (["i3"], {"k": True}, "k: True is not allowed"),
        (["i3"], {"unknown": "drop"}, "unknown: 'drop' is not allowed; allowed: ignore | error"),
        (["i3"], {"allowed": "i4"}, "allowed: 'i4' is not allowed; allowed: item ids"),
        (["i3"], {"blocked": [None]}, "blocked: None is no item id"),
    ],
)
def test_what_is_no_session_is_refused_in_one_line(table, history, more, words):
    _, recommender = table
    with pytest.raises(AlkdError, match=words) as error:
        recommender.recommend(history, **more)
    assert "\n" not in str(error.value)


def test_a_session_of_a_million_items_is_served(table):
    _, recommender = table
    assert recommender.recommend(["i3", "i4"] * 500_000, 3) == recommender.recommend(["i3", "i4"] * 3, 3)


def test_titles_are_shown_as_they_are(table):
    _, recommender = table
    recommendations = recommender.recommend(["i3"], 30)
    # brackets are made round when titles are read, and nothing is done to them after that
    assert {one.item: one.title for one in recommendations}["i7"] == "The 7. film of (b)many(/b)"


def test_items_without_titles_have_none(tmp_path):
    served = serve(tmp_path, "SessionKNN", titles=False)
    assert {one.title for one in Recommender.load(served.bundle).recommend(["i3"], 5)} == {""}


# finding items


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    from recbole_alkd.serving.items import Items, write_items

    folder = tmp_path_factory.mktemp("catalogue")
    titles = [
        "Star Wars",
        "The Star Chamber",
        "Empire Strikes Back",
        "Stargate",
        "Amélie",
        "Amélie",
        "",
        "Mustard",
    ]
    write_items(folder, [f"m{k}" for k in range(1, 9)], titles, np.array([0, 50, 5, 40, 60, 9, 8, 7, 100]))
    return Items.read(folder)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "star",
            ["m4", "m1", "m2", "m8"],
        ),  # titles that begin so, then words, then anything; the popular first
        ("STAR W", ["m1"]),
        ("amelie", ["m5", "m6"]),
        ("m2", ["m2"]),
        ("Emprie strikes bakc", ["m3"]),
        ("zzzz", []),
        ("", []),
        ("\n", []),
    ],
)
def test_items_are_found_by_words_of_their_title(catalogue, text, wanted):
    assert [one.item for one in catalogue.find(text)] == wanted


def test_ids_with_equal_hashes_are_told_apart(tmp_path):
    """CRC-32 of these two is the same."""
    import zlib

    from recbole_alkd.serving.items import Items, write_items

    first, second = "plumless", "buckeroo"
    assert zlib.crc32(first.encode()) == zlib.crc32(second.encode())
    write_items(tmp_path, ["a", first, "b", second], [""] * 4, np.arange(5))
    items = Items.read(tmp_path)
    assert items.numbers([second, first, "a", "b", "c"]).tolist() == [4, 2, 1, 3, 0]


# reasons


@pytest.mark.parametrize("name", ["SessionKNN", "SessionFPMC", "GRU4Rec", "BERT4Rec"])
def test_reasons_sum_to_the_score(tmp_path, name):
    served = serve(tmp_path, name, edges=name == "SessionKNN", fusion=name != "SessionKNN")
    recommender = Recommender.load(served.bundle)
    sessions, _, _ = served.evaluated()
    for session in [*sessions, [], ["i3"], ["i3", "i4", "i3"]]:
        scores = recommender.scores(session)
        for number in (1, 5, 17):
            reasons = recommender.explain(session, served.tokens[number])
            assert sum(reason.weight for reason in reasons) == pytest.approx(
                scores[number], rel=1e-5, abs=1e-6
            )
            assert {reason.item for reason in reasons} <= {served.tokens[number]}
            assert {reason.source for reason in reasons} <= {None, *session}


def test_an_unknown_item_has_no_reasons(table):
    _, recommender = table
    with pytest.raises(AlkdError, match="item: 'who' is not in the catalogue"):
        recommender.explain(["i3"], "who")
