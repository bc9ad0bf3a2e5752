"""The console command ``recbole-alkd lora-curve``; what it reads is made by ``recbole-alkd
lora-examples``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from recbole_alkd.help_words import DefaultsShown
from recbole_alkd.settings.error import AlkdError


def add_lora_command(subparsers: Any) -> argparse.ArgumentParser:
    """Mount ``lora-curve`` on what ``ArgumentParser.add_subparsers()`` returned;
    ``args.run(args)`` runs it."""
    parser = subparsers.add_parser(
        "lora-curve",
        help="what LoRA of a local LLM learns from how many examples",
        description="Tune a local LLM on the examples that `recbole-alkd lora-examples` wrote, "
        "and judge it on held-out ones "
        "beside the LLM without tuning, the recommender's order and TF-IDF. The same command resumes what is "
        "not finished.",
        formatter_class=DefaultsShown,
    )
    parser.add_argument(
        "file",
        help="what `recbole-alkd lora-examples` wrote; or `control`: made-up products with a rule that can "
        "be learned",
    )
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="results, one line of JSON each; appended to"
    )
    parser.add_argument(
        "--examples", type=int, nargs="+", default=[0, 250, 1000], metavar="N", help="0: no tuning"
    )
    parser.add_argument(
        "--pool", nargs="+", choices=("mixed", "natural"), default=["natural"],
        help="mixed: targets inserted where the recommender had not found them",
    )  # fmt: skip
    parser.add_argument(
        "--set", nargs="*", action="append", metavar="KEY=VALUE", dest="variants",
        help="lora_ and llm_ settings, as in YAML; once more for another variant, alone for the defaults",
    )  # fmt: skip
    parser.add_argument("--device", default="cpu", help="of the LLM: cpu, cuda, cuda:1")
    parser.add_argument("--threads", type=int, default=None, metavar="N", help="CPU threads of the LLM")
    parser.add_argument(
        "--nproc", default=1, metavar="N", help="processes that train together, each on a part of every batch"
    )
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Train and judge; print the table of all results in ``--out``."""
    from recbole_alkd.processes.launch import launch
    from recbole_alkd.processes.places import Places
    from recbole_alkd.processes.started import together

    places = Places(args.nproc)
    if together(places) == 1:
        return run_here(args)
    given = {key: value for key, value in vars(args).items() if key != "run"}
    launch("recbole_alkd.bench.lora_cli:run_as_member", (given,), places, "recbole_alkd.door:told")
    return 0


def run_as_member(given: dict[str, Any]) -> int:
    """What each process of ``--nproc`` does."""
    return run_here(argparse.Namespace(**given))


def run_here(args: argparse.Namespace) -> int:
    """``run``, in this process, alone or as one of a group."""
    from recbole_alkd.bench.lora_control import control_study
    from recbole_alkd.bench.lora_curves import run_curve, table
    from recbole_alkd.bench.lora_file import read_study
    from recbole_alkd.bench.lora_lines import read_lines
    from recbole_alkd.bench.lora_settings import settings_of_study
    from recbole_alkd.llm.models import check_device
    from recbole_alkd.processes.group import Group, place
    from recbole_alkd.settings.groups import FIELDS

    variants = [_settings(words) for words in args.variants or [[]]]
    for count in args.examples:
        if count < 0:
            raise AlkdError(f"--examples: {count} is not allowed; allowed: numbers from 0 on")
    if args.threads is not None:
        FIELDS["llm_threads"].checked("--threads", args.threads)
    study = control_study() if args.file == "control" else read_study(Path(args.file))
    for given in variants:
        settings_of_study(study, given, 1)
    check_device(args.device, None)
    for pool in args.pool:
        if max(args.examples) > len(study.pool(pool)):
            raise AlkdError(
                f"--examples: {max(args.examples)} is more than the {len(study.pool(pool))} {pool} ones of "
                f"{args.file}"
            )
    out, group = Path(args.out), Group(*place())
    for result in run_curve(study, out, args.examples, args.pool, variants, args.device, args.threads, group):
        if not group.leads:
            continue
        own = "tuned" if result["count"] else "zero-shot"
        print(
            f"{result['dataset']}: {result['count']} {result['pool']} examples, MRR {result['mrr'][own]:.3f}",
            flush=True,
        )
    if group.leads:
        print(table(read_lines(out)))
    return 0


def _settings(words: list[str]) -> dict[str, Any]:
    """The settings of one variant."""
    from recbole_alkd.settings.text import read_yaml

    given = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.startswith(("lora_", "llm_")):
            raise AlkdError(
                f"--set: {word!r} is not allowed; allowed: KEY=VALUE of settings that begin with lora_ or "
                "llm_"
            )
        given[key] = read_yaml(value, f"--set {key}")
    return given
