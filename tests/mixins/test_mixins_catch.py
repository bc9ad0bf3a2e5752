"""The shipped test classes fail for plug-ins that do what plug-ins got wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recbole_alkd import AlkdError
from recbole_alkd.active.policy.base import Policy, Pool, Selection
from recbole_alkd.distill.base import DistillationLoss, DistillBatch
from recbole_alkd.teacher.base import Answer, Instance, LLMTeacher
from recbole_alkd.testing import LossTests, PolicyTests, TeacherTests


class Ranker(LLMTeacher):
    """An LLM teacher of an outsider: it scores titles, and orders candidates by score."""

    identity = property(lambda self: f"ranker|{self.context.settings.teacher.llm_top_n}")  # type: ignore[assignment]

    def prompt(self, instance: Instance) -> str:
        return ", ".join(self.context.titles[item] for item in instance.history)

    def score(self, title: str) -> float:
        return sum(map(ord, title))

    def ask(self, instances: Sequence[Instance]) -> Iterator[tuple[Instance, Answer]]:
        for instance in instances:
            ranked = sorted(instance.candidates, key=self.order)
            yield instance, Answer(tuple(ranked[: self.context.settings.teacher.llm_top_n]), "", {}, 20, 3)

    def order(self, token: str) -> Any:
        return self.score(self.context.titles[token]), token


class Good(Ranker):
    def estimate(self, instance: Instance) -> tuple[int, float | None]:
        return 23, None


class Optimist(Ranker):
    def estimate(self, instance: Instance) -> tuple[int, float | None]:
        return 5, None


class Giveaway(Good):
    """Equal scores keep the order in which the candidates came, and the inserted target came last."""

    takes_recommender_order = True

    def order(self, token: str) -> Any:
        return self.score(self.context.titles[token])


def laws_of(teacher: type[LLMTeacher]) -> TeacherTests:
    return type("Tests", (TeacherTests,), {"teacher": teacher})()


class TestGoodTeacher(TeacherTests):
    teacher = Good


def test_a_teacher_whose_requests_are_free_by_default(tmp_path: Path) -> None:
    tests = laws_of(Ranker)
    made = tests.make(tmp_path)
    with pytest.raises(AlkdError, match=r"Ranker does not say what a request may take"):
        tests.test_it_says_what_a_request_may_take(made)
    with pytest.raises(AlkdError, match=r"Ranker does not say what a request may take"):
        tests.test_a_budget_of_tokens_is_kept(tmp_path, made)


def test_a_teacher_that_takes_more_than_it_says(tmp_path: Path) -> None:
    tests = laws_of(Optimist)
    with pytest.raises(AssertionError, match="23 tokens, and the bound says 5"):
        tests.test_the_bound_is_an_upper_bound(tests.make(tmp_path))
    with pytest.raises(AlkdError, match=r"ranker\|7"):
        tests.test_a_budget_of_tokens_is_kept(tmp_path, tests.make(tmp_path))


def test_a_teacher_whose_ties_give_the_target_away(tmp_path: Path) -> None:
    tests = laws_of(Giveaway)
    with pytest.raises(AssertionError, match="order of the candidates"):
        tests.test_ties_give_nothing_away(tmp_path)
    laws_of(Good).test_ties_give_nothing_away(tmp_path)
    shuffled = type("Shuffled", (Giveaway,), {"takes_recommender_order": False})
    laws_of(shuffled).test_ties_give_nothing_away(tmp_path)


class Careless(Policy):
    """Needs: nothing. Guarantee: none, and its draws are those of the whole process."""

    def select(self, pool: Pool, size: int, rng: np.random.Generator) -> Selection:
        return Selection(np.random.permutation(len(pool))[:size], support=len(pool))


def test_a_policy_that_draws_from_the_global_generator() -> None:
    tests = type("Tests", (PolicyTests,), {"policy": Careless})()
    with pytest.raises(AssertionError):
        tests.test_nothing_global_is_drawn_from(lambda **_: Careless(None))
    with pytest.raises(AssertionError):
        tests.test_the_seed_decides(lambda **_: Careless(None))


class Leaky(DistillationLoss):
    """Teaches the teacher too."""

    needs = frozenset({"teacher_vectors"})

    def forward(self, batch: DistillBatch) -> torch.Tensor:
        teacher = batch.context.teacher
        session = teacher.encode(batch.item_seq, batch.item_seq_len)
        return (session.mean() - batch.student_session.mean()) ** 2


def test_a_loss_that_trains_the_teacher_recommender() -> None:
    tests = type("Tests", (LossTests,), {"loss": Leaky})()
    with pytest.raises(AssertionError):
        tests.test_no_gradient_reaches_the_teacher()
