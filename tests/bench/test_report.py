"""The report of made-up ranks: studies, and the page in a real browser."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import yaml
from browser import CHROMIUM, Page

from recbole_alkd import AlkdError
from recbole_alkd.bench.plan import read_plan
from recbole_alkd.bench.report import write_report
from recbole_alkd.bench.runs import Outcome, Result
from recbole_alkd.trainer.distillation import spoiled_lists

STUDY = {"setting": "budget_labels", "values": [50, 100, 250], "arms": ["alkdrec", "random"]}
PLAN = {"datasets": ["toy"], "seeds": [1, 2, 3], "arms": ["item_knn", "student", "alkdrec", "random"], "reference": "student"}


def plan_of(folder, **changes):
    (folder / "toy.yaml").write_text(yaml.safe_dump({**PLAN, **changes}))
    return read_plan(folder / "toy.yaml")


def made_up(plan, sessions=200):
    """Every arm ranks a little worse than the one before it."""
    results = []
    for number, task in enumerate(plan.tasks()):
        rng = np.random.default_rng(number)
        ranks = rng.integers(1, 60, size=sessions) + number // 3
        count = task.settings.get("budget_labels", 500) if task.arm.stage == "distilled" else 0
        cost = {"labels": count, "tokens": 900 * count, "usd": 0.01 * count, "seconds": 3.0 + number}
        facts = {"parameters": 7, "bytes": 2048, "seconds": 1.0, "labels": None, "cost": cost}
        results.append(Result(task, ranks, ranks, np.array([f"s{i}" for i in range(sessions)]), facts))
    return Outcome(results, {})


@pytest.mark.parametrize(
    ("study", "expected"),
    [
        ({"setting": "budget_lables", "values": [1, 2]}, "budget_labels"),
        ({"setting": "budget_labels", "values": [1]}, "two different"),
        ({"setting": "budget_labels", "values": [1, 1]}, "two different"),
        ({"setting": "seed", "values": [1, 2]}, "the same for all arms"),
        ({"setting": "alkd_policy", "values": ["random", "hardest"]}, "a value of its own"),
        ({"setting": "budget_labels", "values": [1, 2], "arms": ["item_knn"]}, "with settings"),
        ({"values": [1, 2]}, "setting"),
    ],
)
def test_a_bad_study_is_refused(tmp_path, study, expected):
    with pytest.raises(AlkdError, match=expected):
        plan_of(tmp_path, study=study)


def test_a_study_runs_arms_at_every_value_against_the_reference_at_that_value(tmp_path):
    plan = plan_of(tmp_path, study=STUDY)
    assert [arm.name for arm in plan.arms][:3] == ["item_knn", "student", "alkdrec, budget_labels 50"] and len(plan.arms) == 8
    assert plan.arms[-1].settings["budget_labels"] == 250 and {plan.reference_of(arm) for arm in plan.arms[2:]} == {"student"}
    both = plan_of(tmp_path, study={"setting": "student_embedding_size", "values": [4, 8], "arms": ["student", "random"]})
    against = {arm.name: both.reference_of(arm) for arm in both.arms}
    assert against["random, student_embedding_size 8"] == "student, student_embedding_size 8"
    assert against["item_knn"] is None and against["student, student_embedding_size 4"] is None


def test_a_share_of_the_lists_is_spoiled():
    lists = {row: [f"{row}a", f"{row}b"] for row in range(20)}
    candidates = {row: [f"{row}{letter}" for letter in "cdefgh"] for row in range(20)}
    kept = []
    for share in (0, 0.25, 0.5, 1):
        found = spoiled_lists(lists, candidates, share, np.random.default_rng(0))
        kept.append({row for row in lists if found[row] == lists[row]})
        assert all(set(found[row]) <= set(candidates[row]) and len(found[row]) == 2 for row in lists if row not in kept[-1])
    assert [len(rows) for rows in kept] == [0, 5, 10, 20] and kept[1] < kept[2]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    plan = plan_of(out, study=STUDY)
    return out, write_report(plan, made_up(plan), out)


def test_csv_and_markdown_are_whole(report):
    out, words = report
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert len(rows) == 24 and rows[-1]["study_arm"] == "random" and rows[-1]["study_value"] == "250"
    wanted = {"cost_labels": "250", "cost_tokens": "225000", "cost_usd": "2.5", "bytes": "2048"}
    assert wanted.items() <= rows[-1].items()
    text = (out / "results.md").read_text()
    assert "225,000" in text and "(figures/toy-SessionFPMC-cost.png)" in text and "no measurable gain" in words
    for name in ("toy-SessionFPMC", "toy-SessionFPMC-cost"):
        assert (out / "figures" / f"{name}.png").stat().st_size > 5000 and (out / "figures" / f"{name}.pdf").is_file()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium (Debian package) on this machine")
def test_the_page_in_a_browser(report, tmp_path):
    out, _ = report
    with Page((out / "report.html").as_uri(), tmp_path) as page:
        page.look(1200)
        sizes = ".map(s => s.getBoundingClientRect()).map(b => [b.width, b.height])"
        boxes = page.value("[...document.querySelectorAll('svg')]" + sizes)
        assert len(boxes) == 2 and min(map(min, boxes)) > 100
        texts = page.value("[...document.querySelectorAll('svg')].map(s => s.textContent)")
        assert all("200 sessions" in text and "3 seeds" in text and "95 % interval" in text for text in texts)
        column = "[...document.querySelectorAll('tbody tr')].map(r => parseFloat(r.cells[2].dataset.value))"
        for order in (1, -1):
            page.value("document.querySelectorAll('th button')[2].click()")
            values = page.value(column)
            assert len(set(values)) > 8 and values == sorted(values, reverse=order < 0)
        backgrounds = set()
        for dark in (False, True):
            page.look(360, dark)
            assert page.value("document.scrollingElement.scrollWidth") <= 360
            # a colour in words becomes numbers on a canvas
            light = """(name => { const c = document.createElement('canvas').getContext('2d');
                c.fillStyle = getComputedStyle(document.body)[name]; c.fillRect(0, 0, 1, 1);
                const [r, g, b] = c.getImageData(0, 0, 1, 1).data; return (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255; })"""
            text, ground = (page.value(f"{light}('{name}')") for name in ("color", "backgroundColor"))
            assert abs(text - ground) > 0.6
            backgrounds.add(ground > 0.5)
        assert backgrounds == {True, False}
        assert page.requests == [(out / "report.html").as_uri()] and page.errors == []
