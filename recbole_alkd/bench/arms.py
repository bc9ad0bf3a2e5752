"""The arms of a benchmark by name: every row that a table of this method should have beside the method
itself.

An arm is a group of settings laid over those of the plan, and the stage whose result is read. Families have a
name with a colon: ``loss:rd``, ``policy:random``, ``llm:text``, ``model:GRU4Rec``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from recbole_alkd.files import properties
from recbole_alkd.model.backbone import view_and_model
from recbole_alkd.registry import losses, policies, teachers
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import FIELDS
from recbole_alkd.settings.nearest import hint
from recbole_alkd.settings.text import read_yaml

PREFIX = {"session_augmentation": "prefix"}
CLOSED_FORM = ("popularity", "item_knn")


@dataclass(frozen=True)
class Arm:
    """One row of the table.

    Attributes:
        name: in plans and results. words: what the report calls it.
        stage: teacher, student, student_half, student_longer, distilled, or a name in ``CLOSED_FORM``.
        settings: laid over the plan's.
        base, point: in a study, the arm that this is, and the value it is at; otherwise "" and None.
    """

    name: str
    words: str
    stage: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    base: str = ""
    point: Any = None


# Students that look at titles; the plan may name another encoder (`item_text`).
TITLE_ARMS = (
    Arm(
        "text_pairs",
        "student, pairs of titles",
        "student",
        {"item_text": "tfidf", "item_text_loss": "text_pairs"},
    ),
    Arm(
        "text_project",
        "student, projected titles",
        "student",
        {"item_text": "tfidf", "item_text_loss": "text_project"},
    ),
    Arm(
        "late_fusion",
        "student, titles in late fusion",
        "student",
        {"item_text": "tfidf", "serve_text_dim": 128},
    ),
    Arm(
        "text_edges",
        "item neighbours, edges of titles",
        "student",
        {"item_text": "tfidf", "student_model": "SessionKNN"},
    ),
)


# A table of any size that a plan's student asks for is left out: a chain has none.
CHAIN = {
    "student_model": "SessionKNN", "student_neighbors": None, "student_bytes": None,
    "knn_backward": 0, "knn_gap_decay": 0, "knn_decay": 0, "knn_source_exponent": 0,
}  # fmt: skip
# LINK as its authors have it: the teacher's scores as they are, nearly all of its softmax
LINK = {"top": 1000, "scaled": False, "temperature": [0.1, 0.3, 1.0], "weighed": False}
# Rivals that need no LLM and no titles; validation chooses their settings from the lists in properties/model.
RIVALS = (
    Arm("markov", "Markov chain of the first order", "student", CHAIN),
    Arm("vstan", "VSTAN", "student", {"student_model": "VSTAN"}),
    Arm("slist", "SLIST", "student", {"student_model": "SLIST"}),
    Arm(
        "link",
        "LINK",
        "distilled",
        {"student_model": "SLIST", "kd_loss": "link", "kd_config": {"link": LINK}},
    ),
)


def permuted(arm: Arm) -> Arm:
    """The control of an arm that looks at titles: every item has the title of another one."""
    settings = {**arm.settings, "item_text_permuted": True}
    return replace(
        arm, name=f"{arm.name}_permuted", words=f"control: {arm.words} of other items", settings=settings
    )


ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("popularity", "popularity", "popularity"),
        Arm("item_knn", "item-kNN", "item_knn"),
        Arm("student", "student", "student"),
        Arm("student_longer", "student, trained longer", "student_longer"),
        Arm("student_half", "student in half precision", "student_half"),
        Arm("strong_student", "student on prefixes", "student", PREFIX),
        Arm("teacher", "teacher recommender", "teacher"),
        Arm("strong_teacher", "teacher recommender on prefixes", "teacher", PREFIX),
        Arm("tr", "TR: teacher recommender distilled", "distilled", {"kd_loss": "tr"}),
        Arm("alkdrec", "ALKDRec, exact max_min", "distilled", {"alkd_policy": "max_min"}),
        Arm("alkdrec_paper", "ALKDRec, policy of the paper", "distilled", {"alkd_policy": "paper"}),
        Arm("strong_alkdrec", "ALKDRec on prefixes", "distilled", {"alkd_policy": "max_min", **PREFIX}),
        Arm("random", "random sessions", "distilled", {"alkd_policy": "random"}),
        Arm("easiest", "easiest sessions", "distilled", {"alkd_policy": "easiest"}),
        Arm("hardest", "hardest sessions", "distilled", {"alkd_policy": "hardest"}),
        Arm("rad_bc", "RAD-BC", "distilled", {"alkd_policy": "rad_bc"}),
        Arm(
            "label_only", "control: true next items of the same sessions", "distilled", {"kd_lists": "target"}
        ),
        Arm("shuffled", "control: the same lists, shuffled", "distilled", {"kd_lists": "shuffled"}),
        Arm("permuted", "control: lists of other sessions", "distilled", {"kd_lists": "permuted"}),
        Arm("candidates", "control: candidates in random order", "distilled", {"llm_teacher": "null"}),
        Arm(
            "recommender",
            "control: the teacher recommender's lists",
            "distilled",
            {"llm_teacher": "recommender"},
        ),
        Arm("text", "control: TF-IDF of titles", "distilled", {"llm_teacher": "text"}),
        Arm(
            "table_teacher",
            "item neighbours, taught by the teacher recommender",
            "distilled",
            {"student_model": "SessionKNN", "kd_loss": {"link": 1, "tr": 1}},
        ),
        *RIVALS,
        *(one for arm in TITLE_ARMS for one in (arm, permuted(arm))),
    )
}
FAMILIES = ("loss", "policy", "llm", "model")


def find_arm(name: str) -> Arm:
    """The arm of a name.

    Raises:
        AlkdError: no such arm, or no such loss, policy, LLM teacher or backbone; known names are listed.
    """
    family, colon, entry = name.partition(":")
    if not colon:
        if name in ARMS:
            return ARMS[name]
        known = f"known: {', '.join(ARMS)}, and {', '.join(FAMILIES)} with :NAME"
        raise AlkdError(f"arms: {name!r} is not a known arm{hint(name, ARMS, 0.5)}; {known}")
    if family == "loss":
        losses.get(entry)
        return Arm(name, f"loss {entry}", "distilled", _loss_settings(entry))
    if family == "policy":
        policies.get(entry)
        return Arm(name, f"policy {entry}", "distilled", {"alkd_policy": entry})
    if family == "llm":
        teachers.get(entry)
        return Arm(name, f"LLM teacher {entry}", "distilled", {"llm_teacher": entry})
    if family == "model":
        view_and_model(entry)
        return Arm(name, entry, "student", {"student_model": entry})
    raise AlkdError(f"arms: {name!r} is of no known family; known: {', '.join(FAMILIES)}, as in loss:rd")


def llm_free(stage: str, settings: Mapping[str, Any]) -> bool:
    """Whether an arm knows neither titles nor answers of an LLM: it is trained on sessions,
    or taught by what is.

    Args:
        stage: of the arm. settings: of its run, as the plan has them.
    """
    if settings.get("item_text") or settings.get("llm_teacher") == "text":
        return stage in CLOSED_FORM or stage == "teacher"
    if stage != "distilled" or settings.get("kd_lists") == "target":
        return True
    names = settings.get("kd_loss", FIELDS["kd_loss"].default)
    needs = frozenset().union(
        *(losses.get(name).needs for name in ([names] if isinstance(names, str) else names))
    )
    return (
        "lists" not in needs
        or not teachers.get(settings.get("llm_teacher", FIELDS["llm_teacher"].default)).asks_llm
    )


def _loss_settings(name: str) -> dict[str, Any]:
    """The regime a loss was published with (``properties/loss_search.yaml``);
    the plan's regime for a user's own loss."""
    known = read_yaml((properties() / "loss_search.yaml").read_text(encoding="utf-8"))
    return known.get(name, {}).get("settings", {"kd_loss": name})
