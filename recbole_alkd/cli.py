"""The console command ``recbole-alkd`` and the script ``run_recbole_alkd.py``.

``run`` takes RecBole's arguments (``--model=ALKDRec --dataset=ml-100k --config_files "a.yaml b.yaml" --any_key=value``).
The other commands have arguments of their own and hide them from RecBole, which reads ``sys.argv`` by itself.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from recbole_alkd.config import AlkdError


def _main(command: Callable[[], int | None]) -> None:
    """Run a command; what a user can mend is one line on stderr and exit code 2, not a traceback."""
    try:
        code = command()
    except AlkdError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted: labels and finished stages are kept; the same command goes on from there", file=sys.stderr)
        code = 130
    sys.exit(code or 0)


def run_main(argv: Sequence[str] | None = None) -> None:
    """``run_recbole_alkd.py`` and ``recbole-alkd run``."""
    if argv is not None:
        sys.argv = [sys.argv[0], *argv]
    _main(_run)


def _run() -> None:
    from recbole_alkd.quick_start import run_recbole_alkd

    parser = argparse.ArgumentParser(
        prog="recbole-alkd run",
        description="Train and evaluate ALKDRec or any RecBole model. Any setting may follow as --key=value.",
        allow_abbrev=False,
    )
    parser.add_argument("--model", "-m", default="ALKDRec", help="model name (default: ALKDRec)")
    parser.add_argument("--dataset", "-d", default=None, help="data set name, e.g. ml-100k; NAME in data_path/NAME/NAME.inter")
    parser.add_argument("--config_files", default=None, help='YAML files, separated by spaces: "a.yaml b.yaml"')
    args, rest = parser.parse_known_args()
    for word in rest:
        if not (word.startswith("--") and "=" in word):
            raise AlkdError(f"argument {word!r} is not understood; settings are written as --key=value")
    # RecBole reads the settings from sys.argv; what argparse took must not reach it in another spelling
    sys.argv = [sys.argv[0], *rest]
    run_recbole_alkd(args.model, args.dataset, args.config_files.split() if args.config_files else None)


def main(argv: Sequence[str] | None = None) -> None:
    """``recbole-alkd COMMAND ...``."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] == "run":
        run_main(words[1:])
        return
    from recbole_alkd.data.cli import add_sessions_command

    parser = argparse.ArgumentParser(prog="recbole-alkd", description="ALKDRec for RecBole", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("run", help="train and evaluate (RecBole's arguments)", add_help=False)
    add_sessions_command(commands)
    args = parser.parse_args(words)
    sys.argv = sys.argv[:1]
    _main(lambda: args.run(args))


if __name__ == "__main__":
    main()
