"""The controls: the recommender's order, a shuffled one, and TF-IDF of titles."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.reading import read_settings
from recbole_alkd.teacher.base import Instance, TeacherContext
from recbole_alkd.teacher.text import DECAY, WEIGHT, TextTeacher
from recbole_alkd.testing.teachers import TITLES, TeacherTests, some_instances
from recbole_alkd.trainer.report_words import bill_lines


class TestRecommender(TeacherTests):
    teacher = "recommender"
    uses_order = True

    def test_is_the_recommenders_order(self, tmp_path: Path) -> None:
        instances = some_instances()
        answers = self.answers(self.make(tmp_path), instances)
        assert all(answers[i.row].ranking == i.candidates[:7] for i in instances)


class TestNull(TeacherTests):
    teacher = "null"

    def test_the_order_follows_seed_and_session(self, tmp_path: Path) -> None:
        one = some_instances(1)[0]
        other = replace(one, row=1, session="another")
        here = self.answers(self.make(tmp_path), [one, other])
        there = self.answers(self.make(tmp_path, llm_seed=1), [one])
        assert len({here[one.row].ranking, here[1].ranking, there[one.row].ranking}) == 3

    def test_every_candidate_comes_first_equally_often(self, tmp_path: Path) -> None:
        instances = [Instance(row, f"s{row}", ("0A",), ("1A", "2A", "3A", "4A")) for row in range(2000)]
        teacher = self.make(tmp_path)
        firsts = Counter(answer.ranking[0] for answer in self.answers(teacher, instances).values())
        assert max(abs(count - 500) for count in firsts.values()) < 5 * np.sqrt(2000 * 0.25 * 0.75)


class TestText(TeacherTests):
    teacher = "text"
    uses_order = True

    def test_like_titles_rise(self, tmp_path: Path) -> None:
        titles = {
            "1": "Toy Story",
            "2": "Heat",
            "3": "Casino",
            "4": "Toy Story 2",
            "5": "Sabrina",
            "6": "Brazil",
        }
        context = TeacherContext(read_settings({"llm_top_n": 3}), "tiny", tmp_path, titles, tmp_path)
        ((_, answer),) = TextTeacher(context).ask([Instance(0, "s", ("1",), ("2", "3", "4", "5", "6"))])
        # from the third place to the second; the first is the recommender's
        assert answer.ranking == ("2", "4", "3")

    def test_score_against_a_loop(self, tmp_path: Path) -> None:
        import math

        teacher = self.make(tmp_path)
        grams = {
            t: Counter(t.lower()[i : i + n] for n in (3, 4, 5) for i in range(len(t) - n + 1))
            for t in set(TITLES.values())
        }
        found_in = Counter(gram for counts in grams.values() for gram in counts)

        def vector(token: str) -> dict[str, float]:
            weights = {
                g: (1 + math.log(c)) * (1 + math.log((1 + len(grams)) / (1 + found_in[g])))
                for g, c in grams[TITLES[token]].items()
            }
            norm = math.sqrt(sum(w * w for w in weights.values()))
            return {g: w / norm for g, w in weights.items()}

        for instance in some_instances():
            expected = []
            weights = [DECAY**back for back in range(len(instance.history))]
            for token in instance.candidates:
                own = vector(token)
                total = 0.0
                for back, item in enumerate(reversed(instance.history)):
                    total += weights[back] * sum(w * own.get(g, 0.0) for g, w in vector(item).items())
                expected.append(total / sum(weights))
            similarity = teacher.similarity(instance)
            assert similarity == pytest.approx(expected, abs=1e-12)
            z = (np.array(expected) - np.mean(expected)) / np.std(expected)
            scores = [-math.log(rank) + WEIGHT * z[rank - 1] for rank in range(1, len(z) + 1)]
            best = [instance.candidates[i] for i in sorted(range(len(z)), key=lambda i: -scores[i])][:7]
            assert self.answers(teacher, [instance])[instance.row].ranking == tuple(best)

    def test_titles_that_say_nothing_leave_the_recommenders_order(self, tmp_path: Path) -> None:
        titles = {str(n): "Same title" for n in range(6)}
        context = TeacherContext(read_settings({}), "tiny", tmp_path, titles, tmp_path)
        ((_, answer),) = TextTeacher(context).ask([Instance(0, "s", ("0",), ("3", "1", "2"))])
        assert answer.ranking == ("3", "1", "2")

    def test_identity_knows_all_titles(self, tmp_path: Path) -> None:
        one, other = (
            TextTeacher(
                TeacherContext(read_settings({}), "tiny", tmp_path, {"1": "abc", "2": last}, tmp_path)
            )
            for last in ("x", "y")
        )
        assert one.identity != other.identity

    def test_errors_name_what_is_missing(self, tmp_path: Path) -> None:
        context = TeacherContext(read_settings({}), "tiny", tmp_path, {"1": "a", "2": "b"}, tmp_path)
        with pytest.raises(AlkdError, match="no title with three characters"):
            TextTeacher(context).prepare()
        with pytest.raises(AlkdError, match="item 'x' has no title"):
            list(self.make(tmp_path).ask([Instance(0, "s", ("0A",), ("x",))]))


def test_the_bill_says_where_labels_come_from_and_what_an_llm_took() -> None:
    whole = {"sessions": 40, "tokens": 0, "seconds": 3.0, "usd": None}
    counts = {"asked": 12, "reused": 1, "failed": 0, "repaired": 2}
    free = {**counts, "prompt_tokens": 0, "completion_tokens": 0, "usd": None, "seconds": 0.1}
    policy = {"value": None}
    made = {**free, "all_sessions": whole, "origin": "ordered at random"}
    assert bill_lines(made, None, policy, "max_min") == [
        "labels: 12 ordered at random, no LLM asked, 1 reused, 0 failed, 2 repaired"
    ]
    # whoever says that answers cost nothing and counts tokens has them on the bill
    (paid, *_) = bill_lines({**made, "prompt_tokens": 9}, None, policy, "max_min")
    (asked, *_) = bill_lines({**free, "all_sessions": whole}, None, policy, "max_min")
    assert paid.startswith("labels: 12 asked, ") and "; 9 prompt + 0 completion tokens" in paid
    assert asked.endswith("2 repaired; 0 prompt + 0 completion tokens, 0.1 s, no USD price")
