"""The shipped tests of students, for both ways to learn and all backbones."""

import inspect
import sys

import pytest
from test_extending import FILES

from recbole_alkd.model.backbone import view_and_model
from recbole_alkd.registry import backbones, learners
from recbole_alkd.testing import LearnerTests

# a vector of the session is compared with those of items: run quickly, as the others share their view
VECTORS = ("SessionFPMC", "GRU4Rec", "SASRec")
SLOW = (
    "AttMix", "BERT4Rec", "CORE", "FEARec", "GCSAN", "LightSANs", "NARM", "NextItNet", "SINE", "SRGNN",
    "STAMP", "SessionSTAMP",
)  # fmt: skip


class TestCounts(LearnerTests):
    student = "SessionKNN"
    settings = {"student_neighbors": 5, "student_config": {"knn_edge_weight": 1.0}}  # noqa: RUF012


class TestSessions(LearnerTests):
    student = "VSTAN"
    settings = {"student_config": {"vstan_edge_weight": 1.0, "vstan_neighbors": [2, 5]}}  # noqa: RUF012


class TestClosedForm(LearnerTests):
    student = "SLIST"
    settings = {"student_config": {"slist_edge_weight": 10, "slist_train_decay": 1}}  # noqa: RUF012


class TestPlugIn(LearnerTests):
    """The counting student of docs/extending.md."""

    student, plugins = "EASE", ["ease"]

    @pytest.fixture(scope="class", autouse=True)
    def written(self, tmp_path_factory):
        """Its files, in a folder on the path, as an outsider has them."""
        folder = tmp_path_factory.mktemp("plug-in")
        for name in ("ease.py", "EASE.yaml"):
            (folder / name).write_text(FILES[name], encoding="utf-8")
        sys.path.insert(0, str(folder))
        yield
        sys.path.remove(str(folder))


def of_backbone(name):
    """The tests of a built-in backbone under its own defaults."""
    own = {"MAX_ITEM_LIST_LENGTH": 10} if name == "AttMix" else {}  # its `last_k` of 10 needs so many
    tests = type(f"Test{name}", (LearnerTests,), {"student": name, "settings": own, "__module__": __name__})
    return pytest.mark.slow(tests) if name in SLOW else tests


globals().update({f"Test{name}": of_backbone(name) for name in (*VECTORS, *SLOW)})


def names_tested():
    """The names of the backbones that have their tests in this file."""
    classes = [one for one in globals().values() if inspect.isclass(one) and issubclass(one, LearnerTests)]
    return {one.student for one in classes if one is not LearnerTests}


def test_every_learner_passes_its_tests():
    assert {view_and_model(name)[0].learner for name in names_tested() & set(backbones)} == set(learners)


def test_every_backbone_has_its_tests():
    # plug-ins of other tests stay registered in this process
    shipped = {
        name for name in backbones if backbones.get(name).__module__.startswith(("recbole.", "recbole_alkd."))
    }
    assert names_tested() - {"EASE"} == shipped - {"EASE"}
