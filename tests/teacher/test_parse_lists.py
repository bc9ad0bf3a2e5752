"""Which of the lists in an answer is the ranking: the last one, never the candidates as they were shown,
never thoughts."""

import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from process import ROOT

from recbole_alkd.data.titles import clean_title
from recbole_alkd.llm.answers.thoughts import without_thoughts
from recbole_alkd.teacher.answers.parse import ParsedRanking, parse_ranking, read_ranking

SHOWN = ["318", "260", "1", "5", "3", "2", "10", "25", "34", "7"]
TITLES = {
    "318": "Shawshank Redemption, The (1994)",
    "260": "Star Wars (1977)",
    "1": "Toy Story (1995)",
    "5": "Father of the Bride",
    "3": "Movie <ID7> special",
    "2": "2001 10 7",
    "10": "1984 (1984)",
    "25": "Seven",
    "34": "Babe",
    "7": "Sabrina",
}
ECHO = "\n".join(f"<ID{token}> {TITLES[token]}" for token in SHOWN)


def check(text: str, items: str, **more) -> None:
    assert parse_ranking(text, SHOWN, 25, **more).items == tuple(items.split())


LAST = {
    ECHO + "\n\nMy ranking:\n[<ID5>,<ID3>,<ID1>]": "5 3 1",
    ECHO + "\n\n1. <ID5>\n2. <ID3>\n3. <ID1>": "5 3 1",
    ECHO + "\n1. <ID5>\n2. <ID3>\n3. <ID1>": "5 3 1",
    "[<ID5>,<ID3>,<ID1>]\n\nCandidates were:\n" + ECHO: "5 3 1",
    "Candidates: 318, 260, 1, 5, 3, 2, 10, 25, 34, 7. Ranking: 5, 3, 1": "5 3 1",
    '{"candidates": [318,260,1,5,3,2,10,25,34,7], "ranking": [5,3,1]}': "5 3 1",
    '{"ranking": [5,3,1], "candidates": [318,260,1,5,3,2,10,25,34,7]}': "5 3 1",
    '{"ranking": [5,3,1], "candidates": [318,260,5,1,3,2,10,25,34,7]}': "5 3 1",  # nor in another order
    '{"thoughts": ["318 is good", "260 too"], "ranking": ["<ID5>", "<ID3>"]}': "5 3",
    '{"ranking": [5, 3, 1], "ranking": [1, 3, 5]}': "1 3 5",
    "Draft: [318, 260]\nFinal: [5, 3]": "5 3",
    "Draft: 318, 260\nFinal: 5, 3": "5 3",
    "**Final ranking**\n5, 3, 1": "5 3 1",
    "5, 3, 1\n\nWait, better:\n\n5, 1, 3": "5 1 3",
    "First I think [318, 260, 1, 34]. But then: [5, 3, 1, 34]": "5 3 1 34",
    "Of these, [318, 260, 1, 5, 3] were close.\n\nRanking:\n1. 5\n2. 3\n3. 1": "5 3 1",
    "[5,3,1]\n\nExcluded: [318, 260]": "5 3 1",
    "[5,3,1]. I put 3 and 1 last.": "5 3 1",
    "1. <ID5>\n2. <ID3>\n3. <ID1>\n\nI put <ID3> and <ID1> last because they are old.": "5 3 1",
    "1. <ID5> - great\n   similar to their taste\n2. <ID3> - good\n   also fine\n3. <ID1>": "5 3 1",
    "<ID5>: because <ID318> was seen\n<ID3>: since <ID318>\n<ID1>: fine": "5 3 1",
    "Recommendation 1: 5\nRecommendation 2: 3\nRecommendation 3: 1": "5 3 1",
    "Ranked candidates: [5,3,1]": "5 3 1",
    "```json\n[318, 260]\n```\nAfter a second look:\n```json\n[260, 318]\n```": "260 318",
}


@pytest.mark.parametrize("text", LAST)
def test_the_last_list_counts(text: str) -> None:
    check(text, LAST[text], titles=TITLES)


@pytest.mark.parametrize(
    "text", [ECHO, ", ".join(SHOWN), f"[{', '.join(SHOWN)}]", "\n".join(SHOWN), json.dumps({"items": SHOWN})]
)
def test_the_candidates_in_shown_order_are_no_ranking(text: str) -> None:
    check(text, "", titles=TITLES)
    check(f"These are the candidates:\n{text}\nI cannot choose.", "", titles=TITLES)


def test_many_repetitions_take_no_recursion() -> None:
    check(", ".join(SHOWN * 3000) + "\n\n5, 3, 1", "5 3 1", titles=TITLES)


def test_the_beginning_of_the_candidates_is_no_ranking_either() -> None:
    shown = [str(number) for number in range(100, 150)]
    assert parse_ranking(", ".join(shown[:25]), shown, 25).items == ()
    assert parse_ranking(", ".join(shown[:3]), shown, 25).items == tuple(shown[:3])  # may well be meant
    assert parse_ranking("100, 101", shown[:2], 25).items == ("100", "101")


@pytest.mark.parametrize(
    "text",
    [
        "I cannot rank these 10 items",
        "I'm sorry, but these 10 or 25 are too many for me.",
        "Not 10 but 3!",
        "Sorry, 10 is too many. Error 5: limit 3, code 7",
        "I can only rank 3 of them, or 5.",
    ],
)
def test_numbers_in_prose_are_no_list(text: str) -> None:
    check(text, "")


PLACES = [
    "[1] 318\n[2] 260",
    "[1] 318, [2] 260",
    "[1] <ID318>\n[2] <ID260>",
    "(1) 318\n(2) 260",
    "(1) 318, (2) 260",
    "1) 318\n2) 260",
    "#1: 318\n#2: 260",
    "1 318\n2 260",
    "1: 318\n2: 260",
    "- [318]\n- [260]",
    "1. [318] Heat 5 (1994)\n2. [260] Ran",
    '"318", "260"',
    "1. [318] Title 2\n2. [260] Title 3",
    "| Rank | ID | Title |\n|---|---|---|\n| 1 | 318 | Star 5 |\n| 2 | 260 | X |",
    "Rank 1: 318\nRank 2: 260",
    "Top 1: 318\nTop 2: 260",
    "1. 318\n2. 260\n3",
    "1. 318\n2. 260\n3.",
    "Item 318, Item 260",
    '{"rank":1,"id":"318"}\n{"rank":2,"id":"260"}',
    "<ranking><item>318</item><item>260</item></ranking>",
]


@pytest.mark.parametrize("text", PLACES)
def test_places_are_no_ids(text: str) -> None:
    check(text, "318 260")


SCORED = {
    '{"1": 0.1, "5": 0.9, "3": 0.8}': "5 3 1",
    '{"1": 0.1, "5": NaN, "3": 0.8}': "3 1 5",
    '{"1": -3, "5": -1, "3": -2}': "5 3 1",
    '{"5": 1, "3": 2, "1": 3}': "5 3 1",  # places
    '{"1": 2, "5": 1, "3": 3}': "5 1 3",
    '{"scores": {"5": 10, "3": 30}}': "3 5",
    '{"5": {"score": 0.2}, "3": {"score": 0.7}}': "3 5",
    '{"result": {"ranking": [{"id": 5, "score": 0.1}, {"id": 3, "score": 0.9}]}}': "3 5",
    '[{"id": 5, "rank": 2}, {"id": 3, "rank": 1}]': "3 5",
    '[{"id": 5, "rank": 1}, {"id": 3, "rank": 2}]': "5 3",
    '{"ranking": {"1": "5", "2": "3"}}': "5 3",
    '{"ranking": {"5": 1, "3": 2}}': "5 3",
    '[{"item": "5"}, {"item": "3"}]': "5 3",
    '{"items": [{"item_id": "5", "reason": "like 3 and 1"}, {"item_id": "3", "reason": "x"}]}': "5 3",
}


@pytest.mark.parametrize("text", SCORED)
def test_scores_and_ranks_in_json_decide(text: str) -> None:
    check(text, SCORED[text])


@pytest.mark.parametrize(
    "text", ["[<ID318>, <ID260>, <ID2", "[318, 260, 2", "[318, 260, 3", '["318", "260", "2']
)
def test_a_half_id_at_the_end_is_left_out(text: str) -> None:
    check(text, "318 260")


def test_an_answer_that_is_known_to_be_cut() -> None:
    check("318, 260, 2", "318 260", cut=True)
    check("318, 260, 2", "318 260 2")
    check("318, 260, 34", "318 260 34", cut=True)  # the half of no other


THOUGHTS = [
    "seed:think",
    "think",
    "Thinking",
    "scratchpad",
    "analysis",
    "reflection",
    "pondering",
    "ant:thinking",
    "inner_monologue",
    "chain_of_thought",
    "reasoning",
    "planning",
    "musing_aloud",
]
PAIRS = [(f"<{name}>", f"</{name}>") for name in THOUGHTS]
PAIRS += [
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<think><scratchpad>x</scratchpad>", "</think>"),
]


@pytest.mark.parametrize(("opens", "closes"), PAIRS)
def test_thoughts_are_no_list_whatever_their_tag(opens: str, closes: str) -> None:
    check(f"{opens}perhaps [318,260,1,5,34]{closes}\n[5,3,1]", "5 3 1")
    check(f"{opens}perhaps [318,260,1,5,34]", "")
    if "musing" not in opens:  # a tag that nobody knows hides what it opens, not what it closes
        check(f"{opens}perhaps [318,260,1,5,34]{closes}", "")
        check(f"[5,3,1]\n{opens}or rather [318,260,1,5,34]{closes}", "5 3 1")
        check(f"[5,3,1]\n{opens}or rather [318,260,1,5,34]", "5 3 1")


CHANNELS = {
    "<|channel|>analysis<|message|>or "
    "[318,260,1,5]<|end|><|start|>assistant<|channel|>final<|message|>[5,3,1]<|return|>": "5 3 1",
    "<|start|>assistant<|channel|>analysis<|message|>or [318,260,1,5]": "",
    "<|channel|>commentary<|message|>[1,2]<|end|><|channel|>final <|constrain|>json<|message|>[5,3,1]": "5 3 "
    "1",
    "analysisWe think [318, 260, 1]assistantfinal[5,3,1]": "5 3 1",
    "analysisWe think [318, 260, 1]": "",
    "<|channel>thought\nor [318,260]<channel|>[5,3,1]": "5 3 1",
}


@pytest.mark.parametrize("text", CHANNELS)
def test_channels(text: str) -> None:
    check(text, CHANNELS[text])


@pytest.mark.parametrize(
    "text",
    [
        "<answer>[5,3,1]</answer>",
        "<ranking>\n5, 3, 1</ranking>",
        "<movies>[5,3,1]</movies>",
        "<ID5><ID3><ID1>",
        "<b>5</b>, <b>3</b>, <b>1</b>",
        "the channel is [5,3,1]",
        "analysis: [5,3,1]",
    ],
)
def test_what_is_no_thought(text: str) -> None:
    check(text, "5 3 1")


def test_the_lines_own_id_counts_and_not_those_in_its_title() -> None:
    check("<ID3> Movie <ID7> special\n<ID5> Father of the Bride", "3 5", titles=TITLES)
    check("1. <ID3> Movie <ID7> special\n2. <ID2> 2001 10 7\n3. <ID10> 1984 (1984)", "3 2 10", titles=TITLES)
    check("[<ID3> Movie <ID7> special, <ID2> 2001 10 7, <ID25> Seven]", "3 2 25", titles=TITLES)


# laws

rankings = st.lists(st.sampled_from(SHOWN), unique=True, min_size=4)
FORMS = [
    lambda r: "[" + ", ".join(f"<ID{t}>" for t in r) + "]",
    lambda r: "\n".join(f"{n}. <ID{t}> {TITLES[t]}" for n, t in enumerate(r, 1)),
    lambda r: json.dumps({"ranking": r}),
    lambda r: json.dumps([{"rank": n, "id": t} for n, t in enumerate(r, 1)]),
    lambda r: "\n".join(f"- {t}" for t in r),
]


@example(draft=["318", "260", "1", "5"], final=["318", "260", "1", "5"], forms=(FORMS[1], FORMS[4]))
@given(draft=rankings, final=rankings, forms=st.tuples(st.sampled_from(FORMS), st.sampled_from(FORMS)))
def test_a_draft_never_counts(draft: list, final: list, forms: tuple) -> None:
    assume(final != SHOWN and len(final) >= len(draft))
    text = f"A first draft:\n\n{forms[0](draft)}\n\nFinal ranking:\n\n{forms[1](final)}"
    assert parse_ranking(text, SHOWN, 25, TITLES).items == tuple(final)


@given(
    final=rankings,
    form=st.sampled_from(FORMS),
    tag=st.sampled_from(THOUGHTS),
    thought=st.text(max_size=40),
    draft=rankings,
)
def test_thoughts_never_count(final: list, form, tag: str, thought: str, draft: list) -> None:
    assume(final != SHOWN and "<" not in thought and ">" not in thought)
    text = f"<{tag}>{thought} {draft}</{tag}>\n{form(final)}"
    assert parse_ranking(text, SHOWN, 25, TITLES).items == tuple(final)


@given(order=st.permutations(SHOWN), form=st.sampled_from(FORMS))
def test_the_same_text_means_the_same_in_any_shown_order(order: list, form) -> None:
    """What is read does not depend on the order of the candidates, unless it is that order."""
    ranking = ["5", "3", "1", "34"]
    assert parse_ranking(form(ranking), order, 25, TITLES).items == tuple(ranking)
    assert parse_ranking(form(order), order, 25, TITLES).items == ()


@given(text=st.text(max_size=300))
def test_thoughts_are_a_part_of_the_text(text: str) -> None:
    kept = without_thoughts(text)
    assert isinstance(kept, str) and len(kept) <= len(text) + text.count("<") + 2


def test_a_reader_that_fails_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recbole_alkd.teacher.answers.parse.without_thoughts", lambda *_: 1 / 0)
    assert read_ranking("[1]", SHOWN, 3) == ParsedRanking((), {"unreadable": 1})


# recorded lists

DATA = Path(os.environ.get("RECBOLE_ALKD_DATA", ROOT.parent / "shared" / "data")) / "alkdrec-ml"
RECORDED = [
    *FORMS[:1],
    lambda r, t: "[" + ", ".join(f"<ID{i}> {t[i]}" for i in r) + "]",
    lambda r, t: "\n".join(f"{n}. <ID{i}> {t[i]}" for n, i in enumerate(r, 1)),
    lambda r, t: "\n".join(f"{n}. {i} - {t[i]}" for n, i in enumerate(r, 1)),
    lambda r, t: json.dumps({"ranking": [{"rank": n, "id": i, "title": t[i]} for n, i in enumerate(r, 1)]}),
    lambda r, t: ", ".join(r),
    lambda r, t: "\n".join(f"| {n} | {i} | {t[i]} |" for n, i in enumerate(r, 1)),
    lambda r, t: (
        "Ranking:\n\n"
        + "\n".join(f"- **<ID{i}>** {t[i]}\n  A fine choice after the others." for i in r)
        + "\n\nEnjoy!"
    ),
    lambda r, t: "\n".join(f"<ID{i}>: {t[i]}" for i in r),
]


@pytest.mark.skipif(not DATA.is_dir(), reason="alkdrec-ml is not there; set RECBOLE_ALKD_DATA")
def test_recorded_lists_of_gpt_4_are_read_as_they_are() -> None:
    head, *rows = (DATA / "alkdrec-ml.item").read_text(encoding="utf-8").splitlines()
    column = next(k for k, name in enumerate(head.split("\t")) if "title" in name)
    titles = {row.split("\t")[0]: clean_title(row.split("\t")[column]) for row in rows}
    rng, everything = random.Random(0), sorted(titles)
    records = [json.loads(line) for line in (DATA / "alkdrec-ml.llm.jsonl").read_text().splitlines()]
    read = 0
    for record in rng.sample(records, 60):
        ranking = list(dict.fromkeys(item for item in record["ranking"] if item in titles))
        shown = list({*ranking, *rng.sample(everything, 25)})
        rng.shuffle(shown)
        for form in RECORDED:
            text = form(ranking) if form in FORMS else form(ranking, titles)
            assert parse_ranking(text, shown, 25, titles).items == tuple(ranking), text
            read += bool(ranking)
    assert read > 400


ROWS = {
    "places": [
        "1,318\n2,260\n3,50", "rank,item\n1,318\n2,260\n3,50", "#1 318\n#2 260\n#3 50",
        "1st 318\n2nd 260\n3rd 50", "[[1, 318], [2, 260], [3, 50]]",
    ],
    "ranks behind": ["50,3\n318,1\n260,2", "item,rank\n50,3\n318,1\n260,2", "<ID50>: 3\n<ID318>: 1\n<ID260>: "
                                                                            "2"],
    "scores": [
        "50: 0.1\n318: 0.9\n260: 0.8",
        "<ID50>: 0.1\n<ID318>: 0.9\n<ID260>: 0.8",
        "| item | score |\n|---|---|\n| 50 | 10% |\n| 318 | 90% |\n| 260 | 80% |",
        "<ID50> (score: 1)\n<ID318> (score: 9)\n<ID260> (score: 8)",
        "<ID50> Heat: 0.1\n<ID318> Seven (1995): 0.9\n<ID260> 2001, a film: 0.8",
        '{"50": "10%", "318": "90%", "260": "80%"}',
        '{"<ID50>": 0.1, "<ID318>": 0.9, "<ID260>": 0.8}',
        '[["50", 0.1], ["318", 0.9], ["260", 0.8]]',
        '[{"50": 0.1}, {"318": 0.9}, {"260": 0.8}]',
        '[{"movie_id": 50, "score": 0.1}, {"movie_id": 318, "score": 0.9}, {"movie_id": 260, "score": 0.8}]',
        '[{"item": "<ID50>", "score": "1/10"}, {"item": "<ID318>", "score": "9/10"}, {"item": '
        '"<ID260>", "score": "8/10"}]',
    ],
}  # fmt: skip


@pytest.mark.parametrize("text", [text for texts in ROWS.values() for text in texts])
def test_numbers_beside_items_decide_their_order(text: str) -> None:
    candidates = ["50", "1", "260", "2", "318", "3", "110", "8", "9", "10"]
    assert parse_ranking(text, candidates, 5).items == ("318", "260", "50")


def test_a_dash_list_behind_a_numbered_one_keeps_its_last_item() -> None:
    check(
        "A first draft:\n1. <ID318>\n2. <ID260>\n3. <ID1>\n4. <ID5>\n\nFinal ranking:\n- 318\n- 260\n- 1\n- "
        "5",
        "318 260 1 5",
    )


def test_two_columns_of_ids_stay_as_they_are() -> None:
    assert parse_ranking("318,260\n50,110", ["50", "260", "318", "110", "3"], 5).items == (
        "318",
        "260",
        "50",
        "110",
    )
    assert parse_ranking("[[318, 260], [50, 110]]", ["50", "260", "318", "110", "3"], 5).items == (
        "318",
        "260",
        "50",
        "110",
    )


def test_thinking_between_unused_tokens() -> None:
    text = "<unused94>thought\nperhaps [<ID1>, <ID50>, <ID110>]<unused95>[<ID318>, <ID260>]"
    assert parse_ranking(text, ["1", "50", "110", "260", "318"], 5).items == ("318", "260")


NUMBERED = [str(item) for item in (318, 260, 1, 5, 3, 10, 50, 7, 12, 2)]


@pytest.mark.parametrize(
    "text",
    [
        "(1) I cannot rank these. (50) no",
        "(1) I cannot rank these items. (2) There is no data. (3) Ask again.",
        "I have 3 reasons: (1) no data (2) no history (3) no titles",
        "[1] See the documentation. [2] Sorry.",
        "- (1): I cannot\n- (2): no\n",
        "Sorry (1), I cannot (2).",
        "(50) no",
        "1\n\nI cannot",
        "There are 3, 5 or 7 ways",
        "Between 1 and 5, 10 are good",
    ],
)
@pytest.mark.parametrize("titles", [None, {"318": "Heat (1995)", "1": "Alien", "50": "Ran"}])
def test_numbers_that_count_remarks_are_no_items(text: str, titles: dict | None) -> None:
    assert parse_ranking(text, NUMBERED, 10, titles).items == ()


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("(1) 318 (2) 260 (3) 5", "318 260 5"),
        ("[1] 318 [2] 260 [3] 5", "318 260 5"),
        ("(318), (260), (5)", "318 260 5"),
        ("I'd say (318) then (260) then (5)", "318 260 5"),
        ("(318) Heat\n(260) Ran\n(5) Alien", "318 260 5"),
        ("Heat (318), Ran (260), Alien (5) are best", "318 260 5"),
        ("(1) Alien (2) Babe are best", "1 2"),  # by their titles
        ("Alien (1), Babe (2)", "1 2"),
        ("I choose 318, 260 and 5.", "318 260 5"),
        ("<item>318</item> <item>5</item>", "318 5"),
    ],
)
def test_items_in_brackets_and_in_a_sentence_are_read(text: str, items: str) -> None:
    assert parse_ranking(text, NUMBERED, 10, {"1": "Alien", "2": "Babe"}).items == tuple(items.split())


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("<muse>I think of [<ID5>, <ID3>]</muse>", ""),
        ("<muse>The user liked <ID5>.\nSo perhaps [<ID5>,<ID3>]</muse>", ""),
        ("<muse>1. <ID5> because he saw it last week and liked it\n2. <ID3></muse>", ""),
        ("<muse>[<ID5>,<ID3>]", ""),
        ("<muse>I think of [<ID5>, <ID3>]</muse>[<ID3>,<ID5>]", "3 5"),
        ("<muse>[<ID5>,<ID3>]</muse>", "5 3"),
        ("<muse>\n1. <ID5>\n2. <ID3>\n</muse>", "5 3"),
        ("<muse>1. <ID5>\n2. <ID3></muse>", "5 3"),
        ('<muse>{"ranking": [5, 3], "reason": "he saw it last week and liked it"}</muse>', "5 3"),
        ("<books>5, 3, 1</books>", "5 3 1"),
    ],
)
def test_a_tag_of_any_name_around_all_of_it_holds_an_answer_only_as_a_list(text: str, items: str) -> None:
    assert parse_ranking(text, NUMBERED, 10).items == tuple(items.split())


@pytest.mark.parametrize("tag", ["answer", "final_answer", "ranking", "result", "output"])
@pytest.mark.parametrize("around", ["{}", "Sure. {} I hope it helps."])
def test_the_first_and_last_item_of_an_answer_in_tags_count(tag: str, around: str) -> None:
    for text in ("1. <ID5>\n2. <ID3>\n3. <ID7>", "5\n3\n7", "- 5\n- 3\n- 7", "[<ID5>,<ID3>,<ID7>]"):
        assert parse_ranking(around.format(f"<{tag}>{text}</{tag}>"), NUMBERED, 10).items == (
            "5",
            "3",
            "7",
        ), text
