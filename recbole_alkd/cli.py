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
from recbole_alkd.recbole_commands import RECBOLE_COMMANDS, run


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
    leave(run)


ALWAYS = "With --traceback (any command) or RECBOLE_ALKD_TRACEBACK=1 an error shows where it came up."
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
