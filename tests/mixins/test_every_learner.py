"""The shipped tests of students, for both ways to learn."""

import inspect

import pytest

from recbole_alkd.model.backbone import view_and_model
from recbole_alkd.registry import learners
from recbole_alkd.testing import LearnerTests


class TestSteps(LearnerTests):
    student = "SessionFPMC"


@pytest.mark.slow
class TestStockModel(LearnerTests):
    student = "GRU4Rec"


class TestCounts(LearnerTests):
    student = "SessionKNN"
    settings = {"student_neighbors": 5, "student_config": {"knn_edge_weight": 1.0}}  # noqa: RUF012


class TestSessions(LearnerTests):
    student = "VSTAN"
    settings = {"student_config": {"vstan_edge_weight": 1.0, "vstan_neighbors": [2, 5]}}  # noqa: RUF012


class TestClosedForm(LearnerTests):
    student = "SLIST"
    settings = {"student_config": {"slist_edge_weight": 10, "slist_train_decay": 1}}  # noqa: RUF012


def test_every_learner_passes_its_tests():
    classes = [one for one in globals().values() if inspect.isclass(one) and issubclass(one, LearnerTests)]
    tested = {view_and_model(one.student)[0].learner for one in classes if one is not LearnerTests}
    assert tested == set(learners)
