"""The parser: answers as LLMs give them, generated ones, and the laws that hold for any text."""

import json

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from recbole_alkd.teacher.answers.parse import ParsedRanking, parse_ranking

FIFTY = [str(number) for number in range(1, 51)]
RETAIL = [
    "85123A",
    "22423",
    "POST",
    "85123a",
    "gift_0001_20",
    "BANK CHARGES",
    "D",
    "47566B",
    "tt-12",
    "tt-12-b",
]
MOVIES = {
    "1": "Matrix, The (1999)",
    "2": "Heat (1995)",
    "3": "Toy Story 2 (1999)",
    "4": "Se7en (1995)",
    "12": "Twelve Monkeys (1995)",
    "13": "Apollo 13 (1995)",
    "7": "Heat (1986)",
}

CLEAN = [
    "[<ID30>,<ID10>,<ID7>]",
    "[<ID30>, <ID10>, <ID7>]\n",
    "<ID30>,<ID10>,<ID7>",
    "[ID30, ID10, ID7]",
    "[30, 10, 7]",
    "30, 10, 7",
    "30,10,7.",
    "30 10 7",
    "30\n10\n7",
    "30 > 10 > 7",
    "- 30\n- 10\n- 7",
    "#30, #10, #7",
    "ID 30, ID 10, ID 7",
    "ID: 30\nID: 10\nID: 7",
    "1. <ID30>\n2. <ID10>\n3. <ID7>",
    "1. 30\n2. 10\n3. 7",
    "1) 30\n2) 10\n3) 7",
    "1: 30\n2: 10\n3: 7",
    "1. 30 2. 10 3. 7",
    "1. **<ID30>** Toy Story 2 (1999)\n2. **<ID10>** 12 Monkeys\n3. **<ID7>** Apollo 13",
    "[<ID30> Toy Story 2, <ID10> 3 Idiots, <ID7> Apollo 13]",
    "[<ID30: Apollo, 13>, <ID10: 4, 5, 6>, <ID7: Heat>]",
    "| 1 | 30 | Toy Story 2 |\n| 2 | 10 | Heat |\n| 3 | 7 | Se7en |",
    "Rank 1: 30\nRank 2: 10\nRank 3: 7",
    "1\t30\n2\t10\n3\t7",
    "1.30\n2.10\n3.7",
    "<ranking>30, 10, 7</ranking>",
    "{'ranking': ['30', '10', '7']}",
    '{"ranking": "30, 10, 7"}',
    "Item 30, Item 10, Item 7",
    "<ID30><ID10><ID7>",
    "30;10;7",
    "30 → 10 → 7",
    "[[30], [10], [7]]",
    "1st: 30\n2nd: 10\n3rd: 7",
    "[<ID30>, <ID10>, <ID7>, ...]",
    "- ID30: great fit (score 8)\n- ID10: good (score 5)\n- ID7: fair (score 2)",
    "[<ID30>,<ID10>,<ID7>] (I excluded 4 and 5)",
    "| Rank | ID | Title |\n|---|---|---|\n| 1 | 30 | Heat 2 |\n| 2 | 10 | Se7en |\n| 3 | 7 | 12 Monkeys |",
    '{"results": {"1": {"id": 30}, "2": {"id": 10}, "3": {"id": 7}}}',
    "Sure! I looked at all 50 candidates. My top 25:\n[<ID30>,<ID10>,<ID7>]\nI hope 5 of them help.",
    "I looked at 50 candidates; my top 3 are: 30, 10, 7.",
    "I'd recommend 30, 10 and 7",
    "<think>perhaps [<ID9>,<ID8>,<ID1>]</think>[<ID30>,<ID10>,<ID7>]",
    "perhaps [<ID9>,<ID8>,<ID1>]</think>\n[<ID30>,<ID10>,<ID7>]",
    "[<ID30>,<ID10>,<ID7>]<think>or <ID1>",
    "<THINK>a</THINK>[<ID30>,<think>b</think><ID10>,<ID7>]",
    '["30","10","7"]',
    '["ID30", "<ID10>", "<ID7> Heat"]',
    '{"ranking": [30, 10, 7]}',
    '{"reason": "ID1 is like ID2", "ranking": ["ID30", "ID10", "ID7"]}',
    '{"answer": "[<ID30>,<ID10>,<ID7>]"}',
    '{"1": "30", "2": "10", "3": "7"}',
    '{"30": 1, "10": 2, "7": 3}',
    '{"30": 0.9, "10": 0.5, "7": 0.1}',
    '[{"rank": 1, "id": "30"}, {"rank": 2, "id": "10"}, {"rank": 3, "id": 7}]',
    '```json\n{"items": [{"rank": 1, "item_id": 30}, {"rank": 2, "item_id": 10}, {"rank": 3, "item_id": '
    "7}]}\n```",
    "```\n[<ID30>,<ID10>,<ID7>]\n```",
    "ranking = [30, 10, 7]",
    "［＜ＩＤ３０＞，＜ＩＤ１０＞，＜ＩＤ７＞］",  # full-width forms
    "[<ID٣٠>,<ID١٠>,<ID٧>]",  # Arabic-Indic
    "[<ID३०>,<ID१०>,<ID७>]",  # Devanagari
    "٣٠، ١٠، ٧",
    "我推荐30号、10号和7号",
    "\u200f30\u200b, 1\u200b0, \u2066ID7\u2069",
    "Offered were [<ID7>,<ID10>,<ID30>]. Answer: [<ID30>,<ID10>,<ID7>]",
    "Draft: [30, 7, 10]\nFinal: [30, 10, 7]",
    "[30]\n[10]\n[7]",
    "First [30, 10], then [7]",
]


@pytest.mark.parametrize("text", CLEAN)
def test_the_same_ranking_in_many_forms_needs_no_repair(text: str) -> None:
    assert parse_ranking(text, FIFTY, 25) == ParsedRanking(("30", "10", "7"), {})


@pytest.mark.parametrize(
    ("text", "items", "repairs"),
    [
        ("[<ID3>,<ID1>,<ID3>,<ID999>]", "3 1", {"duplicate": 1, "unknown": 1}),
        ("[3, 1, 999, 3]", "3 1", {"duplicate": 1, "unknown": 1}),
        ('["3", "1", "Z9", "3"]', "3 1", {"duplicate": 1, "unknown": 1}),
        ("[<ID3>,<ID1>,<ID", "3 1", {"truncated": 1}),
        ("[<ID3>,<ID1>,<ID2", "3 1", {"truncated": 1}),  # may be the half of <ID20>
        ("[<ID3>,<ID1>,<ID50", "3 1 50", {"truncated": 1}),  # cannot be the half of another
        ("[<ID3>,<ID1>,<ID2>", "3 1 2", {"truncated": 1}),
        ("[ID3, ID1, ID2", "3 1", {"truncated": 1}),
        ("[3, 1, 2", "3 1", {"truncated": 1}),
        ("[3, 1, 50", "3 1 50", {"truncated": 1}),
        ('["3", "1", "2', "3 1", {"truncated": 1}),
        ("1. 30\n2. 10\n3", "30 10", {}),  # cut off behind a number
        ("<ID3,ID1,ID4", "3 1 4", {}),
        (
            '{"ranking": [{"rank": 1, "id": "30"}, {"rank": 2, "id": "10"}, {"rank": 3, "i',
            "30 10",
            {"truncated": 1},
        ),
        ('{"1": "30", "2": "10", "3"', "30 10", {}),
        ("[<ID12>, 13, <ID14>]", "12 13 14", {}),
        ("ID12, 13, 14, 15", "12 13 14 15", {}),
        ("1. <ID30>\n2. <ID10>\n25.", "30 10", {}),
        ("1.\n2.\n3.", "", {}),
        ("The best is 12.5 or 7", "", {}),  # numbers in prose
        ("", "", {}),
        ("I cannot rank these items.", "", {}),
        ("<think>[<ID3>,<ID1>]", "", {}),
    ],
)
def test_repairs_are_counted(text: str, items: str, repairs: dict) -> None:
    assert parse_ranking(text, FIFTY, 25) == ParsedRanking(tuple(items.split()), repairs)


def test_at_most_top_n() -> None:
    assert parse_ranking("[3, 1, 2, 4]", FIFTY, 3) == ParsedRanking(("3", "1", "2"), {"surplus": 1})
    assert parse_ranking("[3, 1, 2, 4]", FIFTY, 0).items == ()


@pytest.mark.parametrize(
    ("text", "items", "repairs"),
    [
        ("[<ID85123A>,<IDPOST>,<IDD>,<ID22423>]", ["85123A", "POST", "D", "22423"], {}),
        (
            "1. 85123A - WHITE HEART\n2. 22423: CAKESTAND\n3. gift_0001_20",
            ["85123A", "22423", "gift_0001_20"],
            {},
        ),
        ("85123a, 85123A", ["85123a", "85123A"], {}),
        ("<ID47566b>, <id22423>", ["47566B", "22423"], {"case": 1}),
        ("[<IDBANK CHARGES>,<ID22423>]", ["BANK CHARGES", "22423"], {}),
        ('["BANK CHARGES","IDPOST"]', ["BANK CHARGES", "POST"], {}),
        ("<IDtt-12-b>, <IDtt-12>, <IDtt-13>", ["tt-12-b", "tt-12"], {"unknown": 1}),
        ("85123B", [], {}),
    ],
)
def test_ids_need_not_be_numbers(text: str, items: list, repairs: dict) -> None:
    parsed = parse_ranking(text, RETAIL, 25)
    assert list(parsed.items) == items
    assert not items or parsed.repairs == repairs


@pytest.mark.parametrize(
    ("text", "items", "repairs"),
    [
        ("1. The Matrix\n2. Twelve Monkeys\n3. Toy Story 2", "1 12 3", {"title": 3}),
        ('["The Matrix (1999)", "matrix, the", "Apollo 13"]', "1 13", {"title": 2, "duplicate": 1}),
        ("The Matrix, Apollo 13 and Toy Story 2.", "1 13 3", {"title": 3}),
        ("1. Apollo 13\n2. Toy Story 2", "13 3", {"title": 2}),  # 13 and 2 are ids as well
        ("1. 13 - Apollo 13\n2. 3 - Toy Story 2 (1999)", "13 3", {}),  # ids decide
        ("[<ID4> Heat, <ID3> The Matrix]", "4 3", {}),
        ("Heat, Heat, Heat", "2 7", {"title": 2, "duplicate": 1}),  # two items have this title
        ("Heat (1986), Heat (1995)", "7 2", {"title": 2}),
        ('{"ranking": [{"title": "Se7en"}, {"title": "Heat (1986)"}]}', "4 7", {"title": 2}),
        ("Ｓｅ７ｅｎ", "4", {"title": 1}),
    ],
)
def test_titles_instead_of_ids(text: str, items: str, repairs: dict) -> None:
    assert parse_ranking(text, list(MOVIES), 25, MOVIES) == ParsedRanking(tuple(items.split()), repairs)


def test_candidates_that_normalise_alike_are_both_found() -> None:
    assert parse_ranking("[Ａ1, A1]", ["A1", "Ａ1"], 9).items == ("A1", "Ａ1")


# generated answers

tokens = st.one_of(
    st.integers(0, 10**6).map(str),
    st.from_regex(r"[0-9]{3,6}[A-Z]?", fullmatch=True),
    st.from_regex(r"[A-Z][A-Z0-9]{2,9}", fullmatch=True).filter(lambda t: not t.startswith("ID")),
)
candidate_lists = st.lists(tokens, min_size=1, max_size=50, unique_by=str.casefold)

WRAPPINGS = [
    "{}",
    "Here is my ranking:\n{}\nI hope it helps!",
    "<think>\nFirst <ID{wrong}>, no.\n</think>\n\n{}",
    "Of the {n} items I chose:\n\n{}\n\n<think>unsure about",
    "```\n{}\n```",
]


def _lines(number: int, token: str) -> str:
    return f"{number}. <ID{token}> Part {number} ({1900 + number})"


RENDERINGS = [
    lambda ranking: "[" + ",".join(f"<ID{t}>" for t in ranking) + "]",
    lambda ranking: "[" + ", ".join(f"ID{t}" for t in ranking) + "]",
    lambda ranking: json.dumps([f"<ID{t}>" for t in ranking]),
    lambda ranking: json.dumps(
        {"ranking": [{"rank": i, "id": t} for i, t in enumerate(ranking, 1)]}, indent=1
    ),
    lambda ranking: "\n".join(_lines(i, t) for i, t in enumerate(ranking, 1)),
    lambda ranking: "\n".join(f"{i}. {t}" for i, t in enumerate(ranking, 1)),
    lambda ranking: "\n".join(f"| {i} | {t} | Part {i} |" for i, t in enumerate(ranking, 1)),
    lambda ranking: "\n".join(f"- **{t}**" for t in ranking),
]


def _is_echo(ranking: list, candidates: list) -> bool:
    """Whether a ranking cannot be told from the candidates as they were shown."""
    size = len(ranking)
    return ranking == candidates[:size] and (size >= 10 or size == len(candidates) >= 3)


@given(
    data=st.data(),
    candidates=candidate_lists,
    wrapping=st.sampled_from(WRAPPINGS),
    rendering=st.sampled_from(RENDERINGS),
)
def test_a_rendered_ranking_is_read_back(
    data: st.DataObject, candidates: list, wrapping: str, rendering
) -> None:
    ranking = data.draw(st.lists(st.sampled_from(candidates), unique=True, min_size=1))
    assume(not _is_echo(ranking, candidates))
    text = wrapping.format(rendering(ranking), wrong=candidates[0], n=len(candidates))
    assert parse_ranking(text, candidates, 50) == ParsedRanking(tuple(ranking), {})


FRAGMENTS = [
    "[",
    "]",
    "<ID",
    ">",
    "<",
    "ID",
    ", ",
    "\n",
    ". ",
    ": ",
    "1. ",
    '"',
    "{",
    "}",
    '"id": ',
    "```json\n",
    "```",
    "<think>",
]
FRAGMENTS += [
    "</think>",
    "Heat",
    "The Matrix",
    "12",
    "3",
    " ",
    "\u0301",
    "\ufdfa",
    "\ud800",
    "\x00",
    "٣",
    "Ａ",
    "null",
    "\\u00e9",
]
PIECES = st.one_of(
    tokens,
    st.sampled_from(
        [
            "[",
            "]",
            "<ID",
            ">",
            "<",
            "ID",
            ", ",
            "\\n",
            ". ",
            ": ",
            "1. ",
            '"',
            "{",
            "}",
            '"id": ',
            "```json\\n",
            "```",
            "<think>",
            "</think>",
            "Heat",
            "The Matrix",
            "12",
            "3",
            " ",
            "\u0301",
            "\ufdfa",
            "\ud800",
            "\x00",
            "٣",
            "Ａ",
            "null",
            "-",
            "\\u00e9",
            "e" * 50,
        ]
    ),
    st.text(max_size=8),
)


def _check_laws(text: str, candidates: list, top_n: int, titles: dict | None) -> None:
    parsed = parse_ranking(text, candidates, top_n, titles)
    assert len(parsed.items) <= top_n
    assert len(set(parsed.items)) == len(parsed.items)
    assert set(parsed.items) <= set(candidates)
    assert all(isinstance(count, int) and count > 0 for count in parsed.repairs.values())
    assert parsed == parse_ranking(text, list(candidates), top_n, titles)


ANY_ANSWER = {
    "pieces": st.lists(PIECES, max_size=60),
    "candidates": st.lists(
        st.one_of(tokens, st.sampled_from(list(MOVIES)), st.text(max_size=6)), max_size=30, unique=True
    ),
    "top_n": st.integers(0, 30),
    "with_titles": st.booleans(),
}


@settings(max_examples=200, deadline=None)
@given(**ANY_ANSWER)
@example(pieces=["[", "[" * 50_000], candidates=["1"], top_n=1, with_titles=False)
@example(pieces=['{"a":' * 50_000], candidates=["1"], top_n=1, with_titles=False)
@example(pieces=["[" + "9" * 5000 + "]"], candidates=["1"], top_n=1, with_titles=False)
def test_any_answer_gives_distinct_candidates(
    pieces: list, candidates: list, top_n: int, with_titles: bool
) -> None:
    _check_laws("".join(pieces), candidates, top_n, MOVIES if with_titles else None)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(**ANY_ANSWER)
def test_ten_thousand_answers_give_distinct_candidates(
    pieces: list, candidates: list, top_n: int, with_titles: bool
) -> None:
    _check_laws("".join(pieces), candidates, top_n, MOVIES if with_titles else None)


BIG = [
    "<ID1>,",
    "[",
    "]",
    '{"a":',
    "lorem ipsum ",
    "12 ",
    "Part 2 ",
    "<ID1:",
    "<think>",
    "</think>",
    "```\n[1]\n```\n",
    "1\n\n",
    "[<ID1>]\n",
    "\n",
    "a\u0301",
    "\u0301\u0327",
    "1",
    "[1,2],",
    '"1",',
    "1. ",
    "9" * 9 + " ",
]


@pytest.mark.slow
@pytest.mark.parametrize("unit", BIG)
def test_ten_megabytes(unit: str) -> None:
    # quadratic time would take days here
    text = unit * (10_000_000 // len(unit)) + "\n[<ID7>,<ID3>]"
    titles = {token: f"Part {token} (1999)" for token in FIFTY}
    parsed = parse_ranking(text, FIFTY, 25, titles)
    assert set(parsed.items) <= set(FIFTY)
    if not any(c.isdigit() for c in unit) and not set(unit) & set("[]{}<>`"):
        assert parsed.items == ("7", "3")
