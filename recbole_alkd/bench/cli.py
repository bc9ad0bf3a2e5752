"""The console command ``recbole-alkd bench PLAN.yaml``."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from recbole_alkd.bench.before import check_runs
from recbole_alkd.bench.plan import read_plan
from recbole_alkd.bench.plan_settings import absolute
from recbole_alkd.files import properties
from recbole_alkd.help_words import DefaultsShown
from recbole_alkd.settings.error import AlkdError


def add_bench_command(subparsers: Any) -> argparse.ArgumentParser:
    """Mount ``bench`` on what ``ArgumentParser.add_subparsers()`` returned; ``args.run(args)`` runs it."""
    parser = subparsers.add_parser(
        "bench",
        help="run a plan of arms and seeds, and write its report",
        description="Run datasets x backbones x arms x seeds and write results.csv, "
        "results.md and report.html. "
        "The same command resumes what is not finished.",
        formatter_class=DefaultsShown,
    )
    parser.add_argument("plan", help=f"a plan: a YAML file, or a shipped one: {', '.join(shipped_plans())}")
    parser.add_argument(
        "--out", default=None, metavar="FOLDER", help="results and report (default: alkd_bench/NAME)"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="runs side by side; OMP_NUM_THREADS each, or the cores divided by N",
    )
    parser.add_argument(
        "--data-path", default=None, metavar="FOLDER", help="RecBole's data_path, instead of the plan's"
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=None, metavar="N", help="instead of the plan's"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--arms",
        nargs="+",
        default=None,
        metavar="ARM",
        help="run these arms of the plan alone, in this order; the report has all that is finished in the "
        "folder",
    )
    which.add_argument(
        "--report-only", action="store_true", help="run nothing: the report of what is finished in the folder"
    )
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Check the plan, run it, write the report. 0 when every run asked for finished,
    1 when one failed or none is there."""
    from recbole_alkd.bench.cores import threads_of_a_run
    from recbole_alkd.bench.figures import missing_matplotlib
    from recbole_alkd.bench.report import failures, write_report
    from recbole_alkd.bench.runs import alone_in, run_plan

    if args.jobs < 1:
        raise AlkdError(f"--jobs: {args.jobs} is not allowed; allowed: an integer >= 1")
    plan = read_plan(plan_file(args.plan), args.data_path, args.seeds)
    logging.getLogger().setLevel(logging.ERROR)  # RecBole's remarks about Configs that are only looked at
    arms = () if args.report_only else args.arms and plan.chosen_arms(args.arms)
    threads_of_a_run(args.jobs)
    check_runs(plan)
    out = Path(args.out or f"alkd_bench/{plan.name}")
    if args.report_only and not (out / "results").is_dir():
        raise AlkdError(
            f"--report-only: {str(out)!r} has no results of a benchmark; give its folder with --out"
        )
    with alone_in(out):
        if missing := missing_matplotlib():
            print(missing, file=sys.stderr)
        outcome = run_plan(plan, out, args.jobs, arms)
        summary = write_report(plan, outcome, out) if outcome.results else "no run finished"
    print(summary)
    for line in failures(outcome.failed):
        print(f"failed: {line}")
    print(f"report: {out / 'report.html'}" if outcome.results else f"logs: {out / 'logs'}")
    return 1 if outcome.failed or not outcome.results else 0


def plan_file(name: str) -> Path:
    """The file of a plan: as it stands, or a shipped one by its name."""
    if Path(name).is_file():
        return Path(absolute(name))
    shipped = shipped_plans()
    if name not in shipped:
        raise AlkdError(f"plan {name!r}: no such file; shipped plans: {', '.join(shipped)}")
    return shipped[name]


def shipped_plans() -> dict[str, Path]:
    """Name -> file."""
    return {file.stem: file for file in sorted((properties() / "bench").glob("*.yaml"))}
