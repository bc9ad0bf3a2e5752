"""Settings that plug-ins declare: RecBole's Config, YAML, the command line, hints,
the list and the hashes know them."""

from __future__ import annotations

import sys

import pytest
from recbole.config import Config

from recbole_alkd import AlkdError, registry
from recbole_alkd.checks import asking_nobody
from recbole_alkd.listing import find_settings
from recbole_alkd.registry import policies
from recbole_alkd.settings import declared as declared_settings
from recbole_alkd.settings.field import Field
from recbole_alkd.settings.identity import settings_hash
from recbole_alkd.settings.reading import settings_of
from recbole_alkd.trainer.identity import outcome_settings

PLUGIN = """
from recbole_alkd.active.policy.base import Policy, take_highest
from recbole_alkd.distill.base import DistillationLoss
from recbole_alkd.model.session_fpmc import SessionFPMC
from recbole_alkd.registry import backbones, losses, policies, teachers
from recbole_alkd.settings.field import Field, at_least, between
from recbole_alkd.teacher.base import LLMTeacher


@policies.register("by_shelf", settings={
    "shelf_height": Field(3, int, check=at_least(1), help="Rows of a shelf."),
    "shelf_label": Field("007", str, help="What stands on it."),
    "shelf_words": Field(True, bool, decides=False, help="Whether the log speaks of it."),
})
class ByShelf(Policy):
    needs = frozenset({"difficulty"})

    def select(self, pool, size, rng):
        return take_highest(pool.difficulty() * self.settings.own["shelf_height"], size)


@losses.register("shelved")
class Shelved(DistillationLoss):
    own_settings = {"shelf_depth": Field(0.5, float, check=between(0, 1), help="How deep.")}


by = Field("title", choices=("title", "author"), help="Order.")
@teachers.register("librarian", settings={"shelf_order": by})
class Librarian(LLMTeacher):
    instant = True


@backbones.register("ShelfFPMC")
class ShelfFPMC(SessionFPMC):
    own_settings = {"shelf_width": Field([1, 2], (list, int), help="How wide.")}
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A module of somebody else's; what it registers is gone afterwards."""
    (tmp_path / "shelf_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run"])
    for one in (registry.policies, registry.losses, registry.teachers, registry.backbones):
        monkeypatch.setattr(one, "_entries", dict(one._entries))
    known = declared_settings.declared
    monkeypatch.setattr(known, "_fields", dict(known._fields))
    monkeypatch.setattr(known, "_owners", {key: list(owners) for key, owners in known._owners.items()})
    yield "shelf_plugin"
    sys.modules.pop("shelf_plugin", None)


def make(files=None, **values):
    with asking_nobody():
        return Config(
            model="ALKDRec",
            dataset="ml-100k",
            config_file_list=files,
            config_dict={"alkd_plugins": ["shelf_plugin"], **values},
        )


def stage_hash(config, roles=("student", "teacher"), labels=True):
    return settings_hash(outcome_settings(config, settings_of(config), roles, labels))


def test_an_entry_that_is_used_has_its_settings(plugin):
    config = make(alkd_policy="by_shelf")
    assert config["shelf_height"] == 3 and config["shelf_label"] == "007"
    own = settings_of(config).selection.own
    assert own == {"shelf_height": 3, "shelf_label": "007", "shelf_words": True}
    assert policies.get("by_shelf")(settings_of(config).selection).settings.own["shelf_height"] == 3
    assert settings_of(config).flat()["shelf_height"] == 3
    assert "shelf_depth" not in config.final_config_dict  # of a loss that this run has not

    config = make(
        kd_loss={"pairwise": 1.0, "shelved": 0.5},
        llm_teacher="librarian",
        student_model="ShelfFPMC",
        shelf_order="author",
    )
    settings = settings_of(config)
    assert settings.distill.own == {"shelf_depth": 0.5} and settings.teacher.own == {"shelf_order": "author"}
    assert settings.backbone.own == {"shelf_width": [1, 2]} and config["shelf_width"] == [1, 2]


def test_files_callers_and_the_command_line_give_them(plugin, tmp_path, monkeypatch):
    (tmp_path / "run.yaml").write_text("alkd_policy: by_shelf\nshelf_height: 5\n")
    assert make([str(tmp_path / "run.yaml")])["shelf_height"] == 5
    assert make([str(tmp_path / "run.yaml")], shelf_height="6")["shelf_height"] == 6
    words = [
        "run",
        "--alkd_plugins=shelf_plugin",
        "--alkd_policy=by_shelf",
        "--shelf_height=7",
        "--shelf_label=1e3",
    ]
    monkeypatch.setattr(sys, "argv", words)
    with asking_nobody():
        config = Config(model="ALKDRec", dataset="ml-100k", config_dict={"shelf_words": "false"})
    assert config["shelf_height"] == 7 and config["shelf_words"] is False
    assert config["shelf_label"] == "1e3"  # a setting that takes text takes any


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"alkd_policy": "by_shelf", "shelf_height": 0},
            ["'by_shelf'", "shelf_height: 0", "an integer of at least 1"],
        ),
        (
            {"alkd_policy": "by_shelf", "shelf_height": "x"},
            ["'by_shelf'", "shelf_height: 'x'", "an integer of at least 1"],
        ),
        (
            {"kd_loss": "shelved", "shelf_depth": 2},
            ["distillation loss 'shelved'", "shelf_depth: 2", "a number from 0 to 1"],
        ),
        (
            {"llm_teacher": "librarian", "shelf_order": "autor"},
            ["'librarian'", "title | author", "did you mean 'author'"],
        ),
        (
            {"teacher_model": "ShelfFPMC", "shelf_width": "wide"},
            ["'ShelfFPMC'", "shelf_width", "a list or an integer"],
        ),
        (
            {"student_model": "ShelfFPMC", "student_config": {"shelf_width": 0.5}},
            ["student_config: shelf_width: 0.5"],
        ),
        (
            {"alkd_policy": "by_shelf", "shelf_hight": 3},
            ["shelf_hight: no such setting", "did you mean 'shelf_height'"],
        ),
        ({"alkd_policy": "by_shelv"}, ["by_shelv", "did you mean 'by_shelf'"]),
    ],
)
def test_a_wrong_value_names_the_plugin_the_setting_and_what_is_allowed(plugin, values, words):
    with pytest.raises(AlkdError) as error:
        make(**values)
    for word in words:
        assert word in str(error.value), error.value


def test_the_hash_of_a_run_has_what_decides(plugin):
    plain = make(alkd_policy="by_shelf")
    assert stage_hash(make(alkd_policy="by_shelf", shelf_height=3)) == stage_hash(plain)
    assert stage_hash(make(alkd_policy="by_shelf", shelf_height=4)) != stage_hash(plain)
    assert stage_hash(make(alkd_policy="by_shelf", shelf_words=False)) == stage_hash(plain)
    # a student before there are labels is the same whatever the policy has
    before = {"roles": ("student",), "labels": False}
    assert stage_hash(make(alkd_policy="by_shelf", shelf_height=4), **before) == stage_hash(plain, **before)
    assert stage_hash(make(student_model="ShelfFPMC", shelf_width=9), **before) != stage_hash(
        make(student_model="ShelfFPMC"), **before
    )


def test_a_run_without_the_plugin_is_what_it_was(plugin):
    with asking_nobody():
        before = stage_hash(Config(model="ALKDRec", dataset="ml-100k"))
        make(alkd_policy="by_shelf")
        assert stage_hash(Config(model="ALKDRec", dataset="ml-100k")) == before


def test_they_are_listed(plugin):
    make()
    (setting,) = find_settings("shelf_height")
    assert (
        str(setting)
        == "shelf_height: 3  (an integer of at least 1)  [selection policy 'by_shelf']\n    Rows of a shelf."
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": Field(1, int)}, ["'mine'", "'epochs'", "exists already"]),
        ({"alkd_mu": Field(1, int)}, ["'mine'", "'alkd_mu'", "exists already"]),
        ({"shelf_height": Field(1, float)}, ["'mine'", "'by_shelf' has a setting 'shelf_height' too"]),
        ({"two words": Field(1, int)}, ["'two words'", "no name"]),
        ({"board": 3}, ["board", "allowed: a Field"]),
        ({"board": Field(0, int, choices=(1, 2))}, ["'mine': board: 0 is not allowed; allowed: 1 | 2"]),
    ],
)
def test_a_setting_that_cannot_be_declared(plugin, settings, words):
    make()
    with pytest.raises(AlkdError) as error:
        policies.register("mine", settings=settings)(type("Mine", (), {}))
    assert "mine" not in policies
    for word in words:
        assert word in str(error.value), error.value
