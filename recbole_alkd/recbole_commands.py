"""The commands that take RecBole's arguments: ``run``, ``select``, ``label``, ``tune`` and ``lora-examples``.

RecBole reads settings (``--key=value``) from ``sys.argv`` by itself, so they are left there.
"""

from __future__ import annotations

import argparse
import sys

from recbole_alkd.settings.error import AlkdError


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


def run() -> None:
    from recbole_alkd.processes.launch import launch_run
    from recbole_alkd.processes.places import add_places, places_of
    from recbole_alkd.processes.started import together

    parser = argparse.ArgumentParser(
        prog="recbole-alkd run",
        description="Train and evaluate ALKDRec or any RecBole model. Any setting may follow as --key=value.",
        allow_abbrev=False,
    )
    parser.add_argument("--model", "-m", default="ALKDRec", help="model name (default: ALKDRec)")
    parser.add_argument(
        "--again", metavar="RESULT", help="run the run behind a result.json (or its folder) again"
    )
    add_places(parser)
    args = _recbole_arguments(parser)
    places, settings = places_of(args), None
    if args.again:
        from recbole_alkd.trainer.again import read_again

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
    if together(places) > 1:
        launch_run((args.model, args.dataset, args.config_files, settings, True), places, strict=True)
        return
    from recbole_alkd.checks import own_command
    from recbole_alkd.quick_start import run_recbole_alkd

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
        f"next: recbole-alkd lora-curve {args.out} --out FILE"
    )


# Commands whose settings RecBole reads from sys.argv by itself.
RECBOLE_COMMANDS = {
    "run": run,
    "select": _select,
    "label": _label,
    "tune": _tune,
    "lora-examples": _lora_examples,
}
