"""The console command ``recbole-alkd`` and the script ``run_recbole_alkd.py``.

``run``, ``select``, ``label`` and ``tune`` take RecBole's arguments
(``--dataset=ml-100k --config_files "a.yaml b.yaml" --any_key=value``).
The other commands have arguments of their own and hide them from RecBole, which reads ``sys.argv`` by itself.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NoReturn

from recbole_alkd.door import leave
from recbole_alkd.settings.error import AlkdError


def _find_plugins_here() -> None:
    """Put the working directory at the end of the path of modules, so that ``alkd_plugins`` finds a file in
    it.

    `python -m` and a script have it there; a console command has its own folder instead. At the end, no file
    of the user's can stand before an installed package.
    """
    if not getattr(sys.flags, "safe_path", False) and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def run_main(argv: Sequence[str] | None = None) -> None:
    """``run_recbole_alkd.py`` and ``recbole-alkd run``."""
    _find_plugins_here()
    if argv is not None:
        sys.argv = [sys.argv[0], *argv]
    leave(_run)


def _recbole_arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse ``sys.argv`` and leave the settings (``--key=value``) in it, where RecBole reads them."""
    parser.add_argument(
        "--dataset", "-d", default=None, help="data set name, e.g. ml-100k; NAME in data_path/NAME/NAME.inter"
    )
    parser.add_argument(
        "--config_files", default=None, help='YAML files, separated by spaces: "a.yaml b.yaml"'
    )
    args, rest = parser.parse_known_args([word for word in sys.argv[1:] if word != "--traceback"])
    for word in rest:
        if not (word.startswith("--") and "=" in word):
            raise AlkdError(f"argument {word!r} is not understood; settings are written as --key=value")
    sys.argv = [sys.argv[0], *rest]
    args.config_files = args.config_files.split() if args.config_files else None
    return args


def _run() -> None:
    from recbole_alkd.checks import own_command
    from recbole_alkd.quick_start import run_recbole_alkd
    from recbole_alkd.trainer.again import read_again

    parser = argparse.ArgumentParser(
        prog="recbole-alkd run",
        description="Train and evaluate ALKDRec or any RecBole model. Any setting may follow as --key=value.",
        allow_abbrev=False,
    )
    parser.add_argument("--model", "-m", default="ALKDRec", help="model name (default: ALKDRec)")
    parser.add_argument(
        "--again", metavar="RESULT", help="run the run behind a result.json (or its folder) again"
    )
    args = _recbole_arguments(parser)
    settings = None
    if args.again:
        if args.dataset or args.config_files:
            raise AlkdError(
                "--again: not allowed beside --dataset and --config_files, which it brings; "
                "other settings may follow"
            )
        again = read_again(args.again)
        args.model, args.dataset, settings = again.model, again.dataset, again.settings
        print(
            *(f"note: {note}" for note in again.notes),
            sep="\n",
            end="\n" if again.notes else "",
            file=sys.stderr,
        )
    with own_command():
        run_recbole_alkd(args.model, args.dataset, args.config_files, settings)


def _select() -> None:
    from recbole_alkd.checks import own_command
    from recbole_alkd.quick_start import select_instances

    parser = argparse.ArgumentParser(
        prog="recbole-alkd select",
        description="Select the sessions that an LLM should label, without any LLM. Any setting may follow "
        "as --key=value.",
        allow_abbrev=False,
    )
    parser.add_argument("--out", required=True, help="JSON file for the picks and the certificate")
    parser.add_argument(
        "--picture", default=None, help="image file (.png, .svg, .pdf) of difficulty, probabilities and picks"
    )
    args = _recbole_arguments(parser)
    with own_command():
        result = select_instances(args.out, args.dataset, args.config_files, picture=args.picture)
    picks, pool, unit = len(result["picks"]), result["pool"], result["alkd_unit"]
    print(f"{picks} of {pool} {unit}s written to {args.out}; use them with")
    print(f"--alkd_policy=listed --alkd_picks={args.out}#picks")


def _label() -> None:
    from recbole_alkd.checks import own_command
    from recbole_alkd.quick_start import label_instances

    parser = argparse.ArgumentParser(
        prog="recbole-alkd label",
        description="Label the sessions that a run with the same settings selects, and distil nothing; "
        "that run finds the labels "
        "in the store. Any setting may follow as --key=value.",
        allow_abbrev=False,
    )
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument(
        "--dry-run", action="store_true", help="say what it would take; send, store and spend nothing"
    )
    ways.add_argument(
        "--show", type=int, metavar="N", help="show the first N prompts with their titles; ask nothing"
    )
    ways.add_argument(
        "--batch-out", metavar="FILE", help="write what is missing for OpenAI's Batch API (llm_teacher api)"
    )
    ways.add_argument("--batch-in", metavar="FILE", help="read the output of that batch into the store")
    ways.add_argument(
        "--retry-failed", action="store_true", help="ask again where an earlier answer was unusable"
    )
    parser.add_argument(
        "--out", metavar="FILE", help="write the rankings as JSON lines, as llm_teacher replay reads them"
    )
    args = _recbole_arguments(parser)
    options = {
        key: getattr(args, key) for key in ("dry_run", "show", "batch_out", "batch_in", "retry_failed", "out")
    }
    if args.show is not None and args.show < 1:
        parser.error(f"--show: {args.show} is not allowed; allowed: a number of at least 1")
    if args.out and (args.dry_run or args.show or args.batch_out or args.batch_in):
        parser.error("--out needs labels: it does not go with --dry-run, --show, --batch-out and --batch-in")
    with own_command():
        lines = label_instances(args.dataset, args.config_files, **options)["lines"]
    print(*lines, sep="\n")


def _tune() -> int | None:
    from recbole_alkd.checks import own_command
    from recbole_alkd.tune.cli import add_arguments, tune

    parser = argparse.ArgumentParser(
        prog="recbole-alkd tune",
        description="Search settings of ALKDRec or any RecBole model on validation (Optuna). The same "
        "command resumes a search, and several at once share it. Any setting may follow as --key=value.",
        allow_abbrev=False,
    )
    add_arguments(parser)
    args = _recbole_arguments(parser)
    given = dict(word[2:].split("=", 1) for word in sys.argv[1:])
    with own_command():
        return tune(args, args.config_files, given)


def _lora_examples() -> None:
    from recbole_alkd.checks import own_command
    from recbole_alkd.quick_start import lora_study_examples

    parser = argparse.ArgumentParser(
        prog="recbole-alkd lora-examples",
        description="Write examples for `recbole-alkd lora-curve`, which tunes a local LLM on them. No LLM "
        "is needed. "
        "Any setting may follow as --key=value.",
        allow_abbrev=False,
    )
    parser.add_argument("--out", required=True, help="JSON file for the examples")
    parser.add_argument(
        "--examples", type=int, default=4000, metavar="N", help="of each pool, at most (default: 4000)"
    )
    parser.add_argument(
        "--held-out", type=int, default=400, metavar="N", help="to judge by, at most (default: 400)"
    )
    args = _recbole_arguments(parser)
    if args.examples < 1 or args.held_out < 1:
        parser.error("--examples and --held-out: allowed: numbers of at least 1")
    with own_command():
        made = lora_study_examples(
            args.out, args.dataset, args.config_files, examples=args.examples, held_out=args.held_out
        )
    share = made.found / max(1, made.drawn)
    print(
        f"{args.out}: {len(made.mixed):,} mixed and {len(made.natural):,} natural examples, "
        f"{len(made.held_out):,} held out;"
    )
    print(
        f"the recommender found the target of {share:.1%} of {made.drawn:,} prefixes; "
        f"next: recbole-alkd lora-curve {args.out}"
    )


ALWAYS = "With --traceback (any command) or RECBOLE_ALKD_TRACEBACK=1 an error shows where it came up."
# Commands whose settings RecBole reads from sys.argv by itself.
RECBOLE_COMMANDS = {
    "run": _run,
    "select": _select,
    "label": _label,
    "tune": _tune,
    "lora-examples": _lora_examples,
}
# Commands that work where RecBole is not installed.
SERVING_COMMANDS = ("export", "recommend", "explain", "update", "serve", "mcp")


def main(argv: Sequence[str] | None = None) -> None:
    """``recbole-alkd COMMAND ...``."""
    words = list(sys.argv[1:] if argv is None else argv)
    _find_plugins_here()
    if words[:1] == ["--traceback"]:
        words.append(words.pop(0))
    _check_installed(words)
    if words and words[0] in RECBOLE_COMMANDS:
        sys.argv = [sys.argv[0], *words[1:]]
        leave(RECBOLE_COMMANDS[words[0]])
    if words and words[0] in SERVING_COMMANDS:
        _serve(words)
    from recbole_alkd.bench.cli import add_bench_command
    from recbole_alkd.bench.lora_cli import add_lora_command
    from recbole_alkd.data.cli import add_import_command, add_sessions_command
    from recbole_alkd.doctor import add_doctor_command
    from recbole_alkd.labels.cli import add_store_command
    from recbole_alkd.listing import add_settings_command, versions
    from recbole_alkd.serving.cli import add_serving_commands
    from recbole_alkd.serving.make_commands import add_count_commands
    from recbole_alkd.trainer.runs import add_runs_command

    parser = argparse.ArgumentParser(
        prog="recbole-alkd",
        description="ALKDRec for RecBole",
        epilog=ALWAYS,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,  # the version stays one line
    )
    parser.add_argument("--version", action="version", version=versions())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("run", help="train and evaluate (RecBole's arguments)", add_help=False)
    commands.add_parser("select", help="select sessions for labelling, without any LLM", add_help=False)
    commands.add_parser("tune", help="search settings on validation", add_help=False)
    commands.add_parser(
        "label",
        help="label the selected sessions without distilling, or say what it would cost",
        add_help=False,
    )
    add_sessions_command(commands)
    add_import_command(commands)
    add_bench_command(commands)
    commands.add_parser(
        "lora-examples", help="write examples for lora-curve, without any LLM", add_help=False
    )
    add_lora_command(commands)
    add_store_command(commands)
    add_settings_command(commands)
    add_runs_command(commands)
    add_doctor_command(commands)
    add_serving_commands(commands)
    add_count_commands(commands)
    sys.argv = [sys.argv[0], *(word for word in words if word == "--traceback")]
    args = parser.parse_args([word for word in words if word != "--traceback"])
    leave(lambda: args.run(args))


def _serve(words: list[str]) -> NoReturn:
    """A command on a bundle, without what only training needs."""
    from recbole_alkd.serving.cli import add_serving_commands

    parser = argparse.ArgumentParser(prog="recbole-alkd", allow_abbrev=False)
    add_serving_commands(parser.add_subparsers(required=True, metavar="COMMAND"))
    sys.argv = [sys.argv[0], *(word for word in words if word == "--traceback")]
    args = parser.parse_args([word for word in words if word != "--traceback"])
    leave(lambda: args.run(args))


def _check_installed(words: list[str]) -> None:
    """Where RecBole is missing, say so for commands that need it."""
    missing = [name for name in ("recbole", "torch") if find_spec(name) is None]
    if missing and words[:1] and words[0] not in SERVING_COMMANDS:
        needs = (
            f"{words[0]} needs {' and '.join(missing)}, which this environment has not: "
            "pip install recbole-alkd"
        )
        print(f"error: {needs}; allowed without: {', '.join(SERVING_COMMANDS)}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
