"""The report of made-up ranks: studies, and the page in a real browser."""

from __future__ import annotations

import csv
import re
import sys
from dataclasses import replace

import matplotlib.figure
import numpy as np
import pytest
import yaml
from browser import CHROMIUM, Page
from matplotlib.text import Text

from recbole_alkd import AlkdError
from recbole_alkd.bench import report as report_module
from recbole_alkd.bench.columns import MINUS
from recbole_alkd.bench.drawing import draw_numbered, new_figure, place_numbers, size_ticks, size_words
from recbole_alkd.bench.names import spreadsheet_cell
from recbole_alkd.bench.plan import read_plan
from recbole_alkd.bench.report import failures, make_tables, write_report
from recbole_alkd.bench.results import Result
from recbole_alkd.bench.runs import Outcome
from recbole_alkd.learner.distillation import spoiled_lists

STUDY = {"setting": "budget_labels", "values": [50, 100, 250], "arms": ["alkdrec", "random"]}
PLAN = {
    "datasets": ["toy"],
    "seeds": [1, 2, 3],
    "arms": ["item_knn", "student", "alkdrec", "random"],
    "reference": "student",
}


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
        facts = {
            "parameters": 7,
            "bytes": 2048 * (1 + number // 3),
            "seconds": 1.0,
            "labels": None,
            "cost": cost,
        }
        groups = np.arange(sessions) % 4 // 2 * 2  # warm and cold
        results.append(
            Result(task, ranks, ranks, np.array([f"s{i}" for i in range(sessions)]), groups, facts)
        )
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
    assert [arm.name for arm in plan.arms][:3] == [
        "item_knn",
        "student",
        "alkdrec, budget_labels 50",
    ] and len(plan.arms) == 8
    assert plan.arms[-1].settings["budget_labels"] == 250 and {
        plan.reference_of(arm) for arm in plan.arms[2:]
    } == {"student"}
    both = plan_of(
        tmp_path, study={"setting": "student_embedding_size", "values": [4, 8], "arms": ["student", "random"]}
    )
    against = {arm.name: both.reference_of(arm) for arm in both.arms}
    assert against["random, student_embedding_size 8"] == "student, student_embedding_size 8"
    assert against["item_knn"] is None and against["student, student_embedding_size 4"] is None


def test_a_share_of_the_lists_is_spoiled():
    lists = {row: [f"{row}a", f"{row}b"] for row in range(20)}
    candidates = {row: [f"{row}{letter}" for letter in "cdefgh"] for row in range(20)}
    kept = []
    for share in (0, 0.25, 0.5, 1):
        spoiled = spoiled_lists(lists, candidates, share, np.random.default_rng(0))
        kept.append({row for row in lists if spoiled[row] == lists[row]})
        assert all(
            set(spoiled[row]) <= set(candidates[row]) and len(spoiled[row]) == 2
            for row in lists
            if row not in kept[-1]
        )
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
    assert (
        "225,000" in text and "(figures/toy-SessionFPMC-cost.png)" in text and "no measurable gain" in words
    )
    assert (
        text.index("no measurable gain")
        < text.index("| arm |")
        < text.index("![")
        < text.index("### What it takes")
    )
    for name in ("toy-SessionFPMC", "toy-SessionFPMC-cost", "toy-SessionFPMC-bytes"):
        assert (out / "figures" / f"{name}.png").stat().st_size > 5000 and (
            out / "figures" / f"{name}.pdf"
        ).is_file()


def test_every_table_is_split_by_what_training_knows_of_the_target(report):
    out, _ = report
    plan = read_plan(out / "toy.yaml")
    results = made_up(plan).results
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert (rows[0]["targets_warm"], rows[0]["targets_input_only"], rows[0]["targets_cold"]) == (
        "100",
        "0",
        "100",
    )
    assert {row["test_ndcg@10_input_only"] for row in rows} == {""}
    ndcg = {}
    for arm in ("student", "random, budget_labels 250"):
        ranks = np.array([r.test[r.groups == 2] for r in results if r.task.arm.name == arm])
        ndcg[arm] = np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0).mean(1)
        assert [float(row["test_ndcg@10_cold"]) for row in rows if row["arm"] == arm] == pytest.approx(
            ndcg[arm], abs=1e-6
        )
    text = (out / "results.md").read_text().split("### By what training knows of the target")[1]
    assert "warm 100, cold 100 targets" in text and "input-only |" not in text
    line = next(
        line
        for line in text.splitlines()
        if line.startswith("| random sessions, budget_labels 250 | ndcg@10")
    )
    _, _, _, _, _, mean, difference, interval = (
        cell.strip().replace(MINUS, "-") for cell in line.strip("|").split("|")
    )
    low, high = map(float, interval.strip("[]").split(","))
    change = (ndcg["random, budget_labels 250"] - ndcg["student"]).mean()
    assert float(mean) == pytest.approx(ndcg["random, budget_labels 250"].mean(), abs=1e-5)
    assert float(difference) == pytest.approx(change, abs=1e-5) and low < change < high
    page = (out / "report.html").read_text()
    assert page.count("<table>") == 3 and "warm 100, cold 100 targets" in page


def test_quality_over_bytes(tmp_path):
    """One place an arm on a log axis, its interval at the same place;
    no figure where all arms are of one size."""
    plan = plan_of(tmp_path)
    outcome = made_up(plan)
    (table,) = make_tables(plan, outcome.results)
    axes = matplotlib.figure.Figure().subplots()
    draw_numbered(plan, table, axes, "bytes")
    marks = [line for line in axes.lines if line.get_marker() != "None"]
    means = [(row.bytes, row.values["ndcg@10"].mean()) for row in table.rows]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in marks] == means
    base = table.rows[1].values["ndcg@10"].mean()
    comparisons = [row.comparison["ndcg@10"] for row in table.rows if row.name != "student"]
    bars = [line for line in axes.lines if line.get_marker() == "None"]
    assert [tuple(line.get_ydata()) for line in bars] == [(base + c.low, base + c.high) for c in comparisons]
    assert [size_words(x) for x in (5, 2e3, 5e4, 1e6)] == ["5 B", "2 kB", "50 kB", "1 MB"]
    write_report(plan, outcome, tmp_path / "a")
    write_report(
        plan,
        Outcome([replace(r, facts={**r.facts, "bytes": 7}) for r in outcome.results], {}),
        tmp_path / "b",
    )
    assert [len(list((tmp_path / name / "figures").glob("*-bytes.png"))) for name in "ab"] == [1, 0]


def test_arms_that_count_are_compared_over_sessions(tmp_path):
    """Ranks that are the same for every seed: the p says that it is of sessions,
    and a few sessions are no gain."""
    plan = plan_of(tmp_path, arms=["popularity", "item_knn", "student"], reference="popularity")
    outcome = made_up(plan)
    base = np.where(np.arange(200) % 5, 50.0, 3.0)
    few, trained = base.copy(), base.copy()
    few[1:3] = 1
    same = {"popularity": base, "item_knn": few}
    results = [
        replace(r, test=same.get(r.task.arm.name, np.roll(trained, r.task.seed))) for r in outcome.results
    ]
    words = write_report(plan, Outcome(results, {}), tmp_path)
    rows = [line for line in (tmp_path / "results.md").read_text().splitlines() if "| ndcg@10 |" in line][:3]
    assert rows[0].split("|")[8].strip() == "" and rows[0].split("|")[2].strip() == "reference"
    assert re.fullmatch(r"[01]\.\d{3} \(sessions\)", rows[1].split("|")[8].strip()), rows[1]
    assert "no measurable difference" in rows[1] and "no measurable gain" in words
    many = base.copy()
    many[np.arange(200) % 5 == 1] = 1
    results = [replace(r, test=many if r.task.arm.name == "item_knn" else r.test) for r in results]
    assert "better: item-kNN" in write_report(plan, Outcome(results, {}), tmp_path)
    assert "(sessions) |" in (tmp_path / "results.md").read_text()


NASTY = [
    "<img src=x onerror=alert(1)>",
    "=HYPERLINK(1)",
    "a | *b* [c](javascript:d) `e` _f_",
    "$x_$ {y}",
    "@sum",
    "+1",
    "＝1+1",
    "# head",
]


def test_names_are_text_and_nothing_more(tmp_path):
    """Names of arms and of the plan in CSV, Markdown, HTML and figures."""
    arms = [
        "student",
        *(
            {"name": name, "arm": "random", "settings": {"budget_labels": 5 + k}}
            for k, name in enumerate(NASTY)
        ),
    ]
    plan = plan_of(tmp_path, arms=arms, name="=1+1 & _x_")
    outcome = made_up(plan)
    failed = next(task for task in plan.tasks() if task.arm.name == NASTY[0])
    write_report(plan, Outcome(outcome.results, {failed: "<script>alert(1)</script> | x"}), tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "results.csv").open(encoding="utf-8")))
    names = list(dict.fromkeys(row["arm"] for row in rows))
    assert names == [
        "student",
        NASTY[0],
        "'=HYPERLINK(1)",
        NASTY[2],
        NASTY[3],
        "'@sum",
        "+1",
        "'＝1+1",
        "# head",
    ]
    assert {row["seed"] for row in rows} == {"1", "2", "3"}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<img" not in page and "<script>alert" not in page and page.count("<script>") == 1
    assert "&lt;img src=x onerror=alert(1)&gt;" in page and "default-src 'none'" in page
    text = (tmp_path / "out" / "results.md").read_text(encoding="utf-8")
    assert "<img" not in text and "<script" not in text and text.startswith("# \\=1+1 &amp; \\_x\\_")
    line = next(line for line in text.splitlines() if "javascript" in line and line.startswith("| a"))
    assert line.startswith("| a \\| \\*b\\* \\[c\\](javascript:d) \\`e\\` \\_f\\_ |")
    header = next(line for line in text.splitlines() if line.startswith("| arm |"))
    assert len(re.findall(r"(?<!\\)\|", line)) == header.count("|")
    assert len(list((tmp_path / "out" / "figures").glob("*.png"))) == 3  # a name with two $ is no formula


def test_names_that_a_spreadsheet_leaves_alone():
    for value in ("a=b", "-0.5", "+1e-3", "", None, 3, -2.5, "x"):
        assert spreadsheet_cell(value) == value
    for value in ("=1", "-x", "+x", "@x", " =1", "\t=1", "-1+1", "＝1"):
        assert spreadsheet_cell(value) == f"'{value}"


def test_one_test_an_arm_for_all_metrics(tmp_path):
    """Seeds change the deciding metric and not the other one: both are judged by the same test,
    which is named."""
    plan = plan_of(tmp_path, arms=["student", "random"], metrics=["mrr@10", "recall@10"])
    place = np.arange(200)
    base = np.where(place % 2, 50.0, 3.0)
    results = []
    for result in made_up(plan).results:
        ranks = base.copy()
        if result.task.arm.name == "random":
            ranks[1:40:2] = result.task.seed  # the same hits for every seed, at another rank
        results.append(replace(result, test=ranks, valid=ranks))
    (table,) = make_tables(plan, results)
    comparison = table.rows[1].comparison
    assert {metric: comparison[metric].test for metric in comparison} == {
        "mrr@10": "seeds",
        "recall@10": "seeds",
    }
    assert comparison["recall@10"].verdict == "no verdict"  # the t-test has no deviation to work with
    write_report(plan, Outcome(results, {}), tmp_path / "out")
    lines = [
        line.split("|")
        for line in (tmp_path / "out" / "results.md").read_text().splitlines()
        if line.startswith("| random")
    ]
    assert "(seeds)" in lines[0][8] and lines[1][2].strip() == "no verdict" and lines[1][8].strip() == "n/a"


@pytest.mark.parametrize("seeds", [[1], [1, 2, 3]])
def test_words_of_the_summary_are_true(tmp_path, seeds):
    """One seed: no verdict anywhere. A reference without a run: nothing is compared."""
    plan = plan_of(tmp_path, seeds=seeds)
    outcome = made_up(plan)
    better = [
        replace(r, test=np.maximum(1, r.test - 30)) if r.task.arm.name == "random" else r
        for r in outcome.results
    ]
    words = write_report(plan, Outcome(better, {}), tmp_path / "out")
    text = (tmp_path / "out" / "results.md").read_text()
    if len(seeds) == 1:
        assert (
            "no verdict: one seed" in words
            and "higher by the interval over sessions alone: random sessions (+" in words
        )
        assert "measurable" not in words + text and "| no verdict |" in text
    else:
        assert (
            "better: random sessions (+" in words
            or "better by the interval; too few seeds for the test: random" in words
        )
    alone = [r for r in better if r.task.arm.name != "student"]
    words = write_report(plan, Outcome(alone, {}), tmp_path / "out")
    assert "no verdict: no seed has a finished run" in words and "measurable" not in words


def test_a_report_without_matplotlib_has_everything_else(tmp_path, monkeypatch):
    plan = plan_of(tmp_path)
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    words = write_report(plan, made_up(plan), tmp_path / "out")
    assert words.splitlines()[-1].startswith(
        "No figures: matplotlib is not installed (pip install 'recbole_alkd[bench]'"
    )
    for name in ("results.md", "report.html"):
        assert "matplotlib is not installed" in (tmp_path / "out" / name).read_text()
    assert len((tmp_path / "out" / "results.csv").read_text().splitlines()) == 13
    assert not (tmp_path / "out" / "figures").exists()


def test_a_figure_that_cannot_be_drawn_costs_only_itself(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("no fonts")

    monkeypatch.setattr("recbole_alkd.bench.figures._draw_sizes", broken)
    plan = plan_of(tmp_path)
    words = write_report(plan, made_up(plan), tmp_path / "out")
    assert "No figure toy-SessionFPMC-bytes: RuntimeError: no fonts" in words
    assert {file.stem for file in (tmp_path / "out" / "figures").iterdir()} == {
        "toy-SessionFPMC",
        "toy-SessionFPMC-cost",
    }


def test_a_report_that_breaks_off_leaves_the_one_before(tmp_path, monkeypatch):
    plan = plan_of(tmp_path)
    write_report(plan, made_up(plan), tmp_path / "out")
    before = (tmp_path / "out" / "report.html").read_bytes()
    # cannot be encoded: the write breaks off
    monkeypatch.setattr(report_module, "page", lambda *_: "half \ud800 a page")
    with pytest.raises(UnicodeEncodeError):
        write_report(plan, made_up(plan), tmp_path / "out")
    assert (tmp_path / "out" / "report.html").read_bytes() == before
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "results.csv",
        "results.md",
        "report.html",
        "figures",
    }


def test_numbers_of_the_bytes_axis_have_room():
    for low, high in ((5, 2e6), (9e4, 9.1e4), (1, 1e15), (4e4, 1e6), (1e3, 1e4), (1.5, 1.6)):
        ticks = size_ticks(low, high)
        assert 2 <= len(ticks) <= 9 and ticks == sorted(ticks), (low, high)
        assert all(0.99 * low <= tick <= 1.01 * high for tick in ticks)


def test_failed_runs_of_one_cause_are_one_line(tmp_path):
    tasks = list(plan_of(tmp_path).tasks())
    failed = {task: f"no such file (exit code 2, logs/{k}.log)" for k, task in enumerate(tasks)}
    failed[tasks[0]] = "another (exit code 2, logs/0.log)"
    first, second = failures(failed)
    assert first == "toy, SessionFPMC, item_knn, seed 1: another (exit code 2, logs/0.log)"
    assert second.startswith("11 runs (toy, SessionFPMC, item_knn, seed 2; ")
    assert second.endswith("; ...): no such file (exit code 2, logs/1.log)")


def test_nothing_covers_anything_in_a_figure_of_many_alike_arms(tmp_path):
    """Twenty arms of nearly the same size and worth: numbers and the names of the axis keep apart."""
    arms = [
        "student",
        *({"name": f"arm {k}", "arm": "random", "settings": {"budget_labels": 5 + k}} for k in range(19)),
    ]
    plan = plan_of(tmp_path, arms=arms)
    rng = np.random.default_rng(0)
    results = [
        replace(
            r,
            test=r.valid[rng.permutation(200)],
            facts={**r.facts, "bytes": 8 if r.task.arm.name == "arm 7" else 90_000 + k},
        )
        for k, r in enumerate(made_up(plan).results)
    ]
    (table,) = make_tables(plan, results)
    drawn = []
    with new_figure(plan, tmp_path / "x", "x", (7.5, 6)) as (figure, _):
        axes = figure.subplots()
        marks = draw_numbered(plan, table, axes, "bytes")
        axes.set_xscale("log")
        place_numbers(figure, [(axes, marks)])
        figure.draw_without_rendering()
        boxes = [Text.get_window_extent(text) for text in axes.texts]  # without the line to its dot
        drawn = [text.get_text() for text in axes.texts]
    assert drawn == [str(k) for k in range(1, 21)]
    inner = [box.shrunk(0.75, 0.75) for box in boxes]  # the empty margin of a line of text
    assert not [(a, b) for a in range(20) for b in range(a) if inner[a].overlaps(inner[b])]


@pytest.mark.parametrize("cost", ["bytes", "labels"])
def test_no_number_stands_on_a_bar_or_a_line(tmp_path, cost):
    """Arms of a study, joined by lines, with the bars of their intervals."""
    plan = plan_of(tmp_path, study=STUDY)
    (table,) = make_tables(plan, made_up(plan).results)
    with new_figure(plan, tmp_path / "x", "x", (7.5, 4.6)) as (figure, _):
        axes = figure.subplots()
        marks = draw_numbered(plan, table, axes, cost)
        place_numbers(figure, [(axes, marks)])
        figure.draw_without_rendering()
        boxes = [Text.get_window_extent(text).shrunk(0.8, 0.7) for text in axes.texts]
        paths = [line.get_transform().transform_path(line.get_path()) for line in axes.lines]
    lengths = [len(line.get_xdata()) for line in axes.lines]
    assert len(boxes) == len(marks) > 6 and lengths.count(2) > 4 and max(lengths) > 2  # bars, and joins
    assert not [text for text, box in zip(axes.texts, boxes, strict=True) for path in paths
                if path.intersects_bbox(box, filled=False)]  # fmt: skip


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
        column = "[...document.querySelector('tbody').rows].map(r => parseFloat(r.cells[3].dataset.value))"
        for order in (1, -1):
            page.value("document.querySelectorAll('th button')[3].click()")
            values = page.value(column)
            assert len(set(values)) > 8 and values == sorted(values, reverse=order < 0)
        overlaps = """[...document.querySelectorAll('svg')].flatMap(s => {
            const texts = [...s.querySelectorAll('text')];
            const boxes = texts.map(t => [t.textContent, t.getBoundingClientRect()]);
            const overlapping = [];
            boxes.forEach(([a, p], i) => boxes.slice(i + 1).forEach(([b, q]) => {
                const beside = p.left + 1 < q.right && q.left + 1 < p.right;
                if (beside && p.top + 3 < q.bottom && q.top + 3 < p.bottom) overlapping.push([a, b]);
            }));
            return overlapping; })"""
        assert page.value(overlaps) == []
        wide = "[...document.querySelectorAll('table')].map(t => t.scrollWidth - t.parentElement.clientWidth)"
        backgrounds = set()
        for width, dark in (
            (390, False),
            (390, True),
            (360, False),
            (800, False),
            (1030, False),
            (1400, False),
            (1400, True),
        ):
            page.look(width, dark)
            assert page.value("document.scrollingElement.scrollWidth") <= width
            assert page.value(wide)[0] <= 0, "the table of verdicts is wider than the page"
            top = "document.querySelector('{}').getBoundingClientRect().top"
            summary, figure, table = (page.value(top.format(one)) for one in (".summary", "svg", "table"))
            assert summary < 200 and summary < figure < table
            assert "95 % interval [" in page.value("document.querySelector('.lead').textContent")
            verdict = page.value("document.querySelector('tbody tr .verdict').getBoundingClientRect().left")
            assert 0 <= verdict < width * 0.75
            # a colour in words becomes numbers on a canvas
            light = """(name => { const c = document.createElement('canvas').getContext('2d');
                c.fillStyle = getComputedStyle(document.body)[name]; c.fillRect(0, 0, 1, 1);
                const [r, g, b] = c.getImageData(0, 0, 1, 1).data;
                return (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255; })"""
            text, ground = (page.value(f"{light}('{name}')") for name in ("color", "backgroundColor"))
            assert abs(text - ground) > 0.6
            backgrounds.add(ground > 0.5)
        assert backgrounds == {True, False}
        assert page.requests == [(out / "report.html").as_uri()] and page.errors == []


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium (Debian package) on this machine")
def test_on_a_phone_every_arm_is_a_bar_that_fits(tmp_path):
    plan = plan_of(tmp_path)
    write_report(plan, made_up(plan), tmp_path)
    height = "document.querySelector('{}').getBoundingClientRect().height"
    with Page((tmp_path / "report.html").as_uri(), tmp_path / "profile") as page:
        for width in (360, 1200):
            page.look(width)
            bars, figure = (page.value(height.format(one)) for one in (".arms", ".drawn-above"))
            assert (bars > 100, figure > 100) == ((True, False) if width == 360 else (False, True))
            assert page.value("document.scrollingElement.scrollWidth") <= width
            edges = "[...document.querySelectorAll('.arm *')].map(e => e.getBoundingClientRect())"
            assert page.value(f"Math.max(...{edges}.map(b => b.right))") <= width
            assert page.value(f"Math.min(...{edges}.map(b => b.left))") >= 0
        page.look(360)
        names = page.value("[...document.querySelectorAll('.arm span:first-child')].map(e => e.textContent)")
        assert names == [row.words for row in make_tables(plan, made_up(plan).results)[0].rows]
        boxes = "[...document.querySelectorAll('{}')].map(e => e.getBoundingClientRect())"
        middle = boxes + ".map(b => b.x + b.width / 2)"
        dots, zero = page.value(middle.format(".dot")), page.value(middle.format(".zero"))
        assert abs(dots[1] - zero[1]) < 2 and names[1] == "student", "the reference stands on its line"
        assert dots[0] > dots[1] > dots[2], "a higher mean is further to the right"
