"""The report of made-up ranks: studies, and the page in a real browser."""

from __future__ import annotations

import csv
import re
from dataclasses import replace

import matplotlib.figure
import numpy as np
import pytest
import yaml
from browser import CHROMIUM, Page

from recbole_alkd import AlkdError
from recbole_alkd.bench.columns import MINUS
from recbole_alkd.bench.figures import _numbered, _size
from recbole_alkd.bench.plan import read_plan
from recbole_alkd.bench.report import make_tables, write_report
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
        facts = {"parameters": 7, "bytes": 2048 * (1 + number // 3), "seconds": 1.0, "labels": None, "cost": cost}
        groups = np.arange(sessions) % 4 // 2 * 2  # warm and cold
        results.append(Result(task, ranks, ranks, np.array([f"s{i}" for i in range(sessions)]), groups, facts))
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
    wanted = {"cost_labels": "250", "cost_tokens": "225000", "cost_usd": "2.5", "bytes": "16384"}
    assert wanted.items() <= rows[-1].items()
    text = (out / "results.md").read_text()
    assert "225,000" in text and "(figures/toy-SessionFPMC-cost.png)" in text and "no measurable gain" in words
    for name in ("toy-SessionFPMC", "toy-SessionFPMC-cost", "toy-SessionFPMC-bytes"):
        assert (out / "figures" / f"{name}.png").stat().st_size > 5000 and (out / "figures" / f"{name}.pdf").is_file()


def test_every_table_is_split_by_what_training_knows_of_the_target(report):
    out, _ = report
    plan = read_plan(out / "toy.yaml")
    results = made_up(plan).results
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert (rows[0]["targets_warm"], rows[0]["targets_input_only"], rows[0]["targets_cold"]) == ("100", "0", "100")
    assert {row["test_ndcg@10_input_only"] for row in rows} == {""}
    found = {}
    for arm in ("student", "random, budget_labels 250"):
        ranks = np.array([r.test[r.groups == 2] for r in results if r.task.arm.name == arm])
        found[arm] = np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0).mean(1)
        assert [float(row["test_ndcg@10_cold"]) for row in rows if row["arm"] == arm] == pytest.approx(found[arm], abs=1e-6)
    text = (out / "results.md").read_text().split("### By what training knows of the target")[1]
    assert "warm 100, cold 100 targets" in text and "input-only |" not in text
    line = next(line for line in text.splitlines() if line.startswith("| random sessions, budget_labels 250 | ndcg@10"))
    _, _, _, _, _, mean, difference, interval = (cell.strip().replace(MINUS, "-") for cell in line.strip("|").split("|"))
    low, high = map(float, interval.strip("[]").split(","))
    change = (found["random, budget_labels 250"] - found["student"]).mean()
    assert float(mean) == pytest.approx(found["random, budget_labels 250"].mean(), abs=1e-5)
    assert float(difference) == pytest.approx(change, abs=1e-5) and low < change < high
    page = (out / "report.html").read_text()
    assert page.count("<table>") == 2 and "warm 100, cold 100 targets" in page


def test_quality_over_bytes(tmp_path):
    """One place an arm on a log axis, its interval at the same place; no figure where all arms are of one size."""
    plan = plan_of(tmp_path)
    outcome = made_up(plan)
    (table,) = make_tables(plan, outcome.results)
    axes = matplotlib.figure.Figure().subplots()
    _numbered(plan, table, axes, "bytes")
    marks = [line for line in axes.lines if line.get_marker() != "None"]
    means = [(row.bytes, row.values["ndcg@10"].mean()) for row in table.rows]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in marks] == means
    base = table.rows[1].values["ndcg@10"].mean()
    found = [row.comparison["ndcg@10"] for row in table.rows if row.name != "student"]
    bars = [line for line in axes.lines if line.get_marker() == "None"]
    assert [tuple(line.get_ydata()) for line in bars] == [(base + c.low, base + c.high) for c in found]
    assert [_size(x) for x in (5, 2e3, 5e4, 1e6)] == ["5 B", "2 kB", "50 kB", "1 MB"]
    write_report(plan, outcome, tmp_path / "a")
    write_report(plan, Outcome([replace(r, facts={**r.facts, "bytes": 7}) for r in outcome.results], {}), tmp_path / "b")
    assert [len(list((tmp_path / name / "figures").glob("*-bytes.png"))) for name in "ab"] == [1, 0]


def test_arms_that_count_are_compared_over_sessions(tmp_path):
    """Ranks that are the same for every seed: the p says that it is of sessions, and a few sessions are no gain."""
    plan = plan_of(tmp_path, arms=["popularity", "item_knn", "student"], reference="popularity")
    outcome = made_up(plan)
    base = np.where(np.arange(200) % 5, 50.0, 3.0)
    few, trained = base.copy(), base.copy()
    few[1:3] = 1
    same = {"popularity": base, "item_knn": few}
    results = [replace(r, test=same.get(r.task.arm.name, np.roll(trained, r.task.seed))) for r in outcome.results]
    words = write_report(plan, Outcome(results, {}), tmp_path)
    rows = [line for line in (tmp_path / "results.md").read_text().splitlines() if "| ndcg@10 |" in line][:3]
    assert rows[0].split("|")[8].strip() == "" and rows[0].split("|")[5].strip() == "reference"
    assert re.fullmatch(r"[01]\.\d{3} \(sessions\)", rows[1].split("|")[7].strip()), rows[1]
    assert "no measurable difference" in rows[1] and "no measurable gain" in words
    many = base.copy()
    many[np.arange(200) % 5 == 1] = 1
    results = [replace(r, test=many if r.task.arm.name == "item_knn" else r.test) for r in results]
    assert "better: item-kNN" in write_report(plan, Outcome(results, {}), tmp_path)
    assert "(sessions) |" in (tmp_path / "results.md").read_text()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium (Debian package) on this machine")
def test_the_page_in_a_browser(report, tmp_path):
    out, _ = report
    with Page((out / "report.html").as_uri(), tmp_path) as page:
        page.look(1200)
        sizes = ".map(s => s.getBoundingClientRect()).map(b => [b.width, b.height])"
        boxes = page.value("[...document.querySelectorAll('svg')]" + sizes)
        assert len(boxes) == 3 and min(map(min, boxes)) > 100
        texts = page.value("[...document.querySelectorAll('svg')].map(s => s.textContent)")
        assert all("200 sessions" in text and "3 seeds" in text and "95 % interval" in text for text in texts)
        column = "[...document.querySelector('tbody').rows].map(r => parseFloat(r.cells[2].dataset.value))"
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
