"""The commands that use a bundle: ``export``, ``recommend``, ``explain``, ``update``, ``serve`` and ``mcp``.

They work where RecBole is not installed, but for ``export --run`` of a run without a bundle.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recbole_alkd.serving.labelled import hints, labelled_session
from recbole_alkd.serving.manifest import MANIFEST
from recbole_alkd.serving.named_item import HISTORY, read_history, read_item
from recbole_alkd.serving.printed import named, print_json, print_rows, print_side_by_side, title_of
from recbole_alkd.serving.recommender import Recommender, find_teacher, run_of
from recbole_alkd.serving.service.limits import Limits
from recbole_alkd.settings.error import AlkdError


def add_serving_commands(commands: Any) -> None:
    """Mount the commands on what ``ArgumentParser.add_subparsers()`` returned; ``args.run(args)``
    runs one."""
    export = _add(
        commands,
        "export",
        _export,
        "write the student of a finished run as a folder of its own, or for another program",
    )
    source = export.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--run", type=Path, dest="folder", metavar="RUN_FOLDER", help="the folder of a finished run"
    )
    source.add_argument("--bundle", type=Path, metavar="BUNDLE", help="a bundle")
    export.add_argument(
        "--out", required=True, type=Path, metavar="OUT", help="a folder (redis: a file) that is not there"
    )
    formats = (
        "bundle (default): all of it; onnx: the graph and its numbers; "
        "vectors: .npy and ids, for FAISS and usearch; "
    )
    formats += "redis: item -> packed neighbours, for redis-cli --pipe; triton: a model repository"
    export.add_argument(
        "--format", choices=("bundle", "onnx", "vectors", "redis", "triton"), default="bundle", help=formats
    )

    recommend = _add(commands, "recommend", _recommend, "recommend items for a session")
    _add_bundle(recommend)
    what = recommend.add_mutually_exclusive_group(required=True)
    what.add_argument("--history", metavar="ITEMS", help=HISTORY)
    what.add_argument(
        "--file", type=Path, metavar="FILE", help='JSON lines: [ids] or {"session": any, "history": [ids]}'
    )
    recommend.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="with --file: where to; started again after a kill, it resumes",
    )
    recommend.add_argument(
        "--titles", action="store_true", help="with --file: what is no id may be a whole title"
    )
    recommend.add_argument("-k", type=int, default=10, help="how many (default: %(default)s)")
    recommend.add_argument("--repeats", action="store_true", help="items of the session may come again")
    recommend.add_argument("--json", action="store_true", help="one JSON object a line")

    explain = _add(commands, "explain", _explain, "show what the score of an item is made of")
    _add_bundle(explain)
    asked = explain.add_mutually_exclusive_group(required=True)
    asked.add_argument("--history", metavar="ITEMS", help=HISTORY)
    labelled = (
        "id of a labelled session: what the LLM and the recommenders of the run list for it (needs a run's "
        "folder)"
    )
    asked.add_argument("--session", metavar="ID", help=labelled)
    explain.add_argument("--item", metavar="ITEM", help="its id or title; the best recommendation without it")
    explain.add_argument("--json", action="store_true", help="one JSON object a line")

    update = _add(
        commands, "update", _update, "add new sessions and items to the table of a bundle, without training"
    )
    update.add_argument(
        "--bundle", required=True, type=Path, metavar="FOLDER", help="a bundle of a table, or a run's folder"
    )
    update.add_argument(
        "--inter",
        required=True,
        type=Path,
        metavar="FILE",
        help="whole sessions that the table does not hold",
    )
    update.add_argument(
        "--titles",
        type=Path,
        metavar="FILE",
        help="titles of new items (default: the .item file beside them)",
    )
    update.add_argument(
        "--out", required=True, type=Path, metavar="BUNDLE", help="a folder that is not there"
    )

    serve = _add(
        commands, "serve", _serve, "answer over HTTP: JSON, metrics and a page to try it (extra serve)"
    )
    _add_bundle(serve)
    serve.add_argument(
        "--teacher",
        type=Path,
        metavar="FOLDER",
        help="a teacher recommender's bundle, shown beside the student (default: that of the run)",
    )
    serve.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s; 0.0.0.0 for all)"
    )
    serve.add_argument("--port", type=int, default=8000, help="0 for any that is free (default: %(default)s)")
    serve.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes, which share the mapped bundle (default: 1)",
    )
    limits = Limits()
    for name, kind, text in (
        ("body", int, "bytes of a request"), ("history", int, "items of a session"),
        ("k", int, "recommendations"),
        ("connections", int, "connections of a worker at a time"),
        ("seconds", float, "seconds for a request to arrive and for an answer to be taken"),
    ):  # fmt: skip
        usual = getattr(limits, name)
        serve.add_argument(
            f"--max-{name}", type=kind, default=usual, metavar="N", help=f"most {text} (default: {usual:,})"
        )

    _add_bundle(
        _add(
            commands,
            "mcp",
            _mcp,
            "answer an assistant over the Model Context Protocol on stdin and stdout (extra mcp)",
        )
    )


def _add(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int | None], text: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False
    )
    parser.set_defaults(run=run)
    return parser


def _add_bundle(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bundle",
        "--run",
        dest="bundle",
        required=True,
        type=Path,
        metavar="FOLDER",
        help="a bundle, or the folder of a finished run",
    )
    parser.add_argument("--verify", action="store_true", help="hash every file of the bundle first")


def _export(args: argparse.Namespace) -> None:
    from recbole_alkd.serving import write_bundle
    from recbole_alkd.serving.export import FORMATS
    from recbole_alkd.serving.manifest import copy_bundle

    if args.format != "bundle":
        written = FORMATS[args.format](Recommender.load(args.folder or args.bundle, verify=True), args.out)
    elif args.folder:
        written = write_bundle(args.folder, args.out)
    else:
        written = copy_bundle(args.bundle, args.out)
    print(f"written: {written}")


def _recommend(args: argparse.Namespace) -> None:
    if (args.file is None) != (args.out is None):
        raise AlkdError("--out: it goes with --file, and --file needs it")
    if args.file and args.json:
        raise AlkdError("--json: not allowed beside --file, which writes JSON lines anyway")
    if args.titles and not args.file:
        raise AlkdError("--titles: it goes with --file; --history takes titles as it is")
    recommender = Recommender.load(args.bundle, verify=args.verify)
    if args.file:
        _recommend_file(recommender, args)
        return
    history = read_history(recommender, args.history)
    recommendations = recommender.recommend(history, args.k, exclude_history=not args.repeats)
    if args.json:
        print_json(recommendations)
        return
    print(f"after {named(recommender, history)}:")
    print_rows(
        ["", "item", "title", "score"],
        [(k, one.item, one.title, f"{one.score:.6g}") for k, one in enumerate(recommendations, 1)],
    )


def _recommend_file(recommender: Recommender, args: argparse.Namespace) -> None:
    from recbole_alkd.serving.file_job import Progress, recommend_file

    every = 2.0 if sys.stderr.isatty() else 30.0  # seconds between two lines of progress
    begin = told = time.monotonic()

    def tell(at: Progress) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= every:
            told = now
            speed = (at.done - at.resumed) / (now - begin)
            print(f"{at.done:,} sessions, {at.bytes / at.size:.0%}, {speed:,.0f} a second", file=sys.stderr)

    progress = recommend_file(recommender, args.file, args.out, args.k, not args.repeats, tell, args.titles)
    resumed = f" ({progress.resumed:,} of them by an earlier start)" if progress.resumed else ""
    unknown = (
        f"; {progress.unknown:,} ids are not in the catalogue and were ignored" if progress.unknown else ""
    )
    print(f"written: {args.out}, {progress.done:,} sessions{resumed}{unknown}")


def _explain(args: argparse.Namespace) -> None:
    recommender = Recommender.load(args.bundle, verify=args.verify)
    if args.session is not None:
        run = run_of(args.bundle)
        labelled, rules = labelled_session(run, args.session), hints(run)
        print_side_by_side(recommender, {**labelled, "hints": rules} if rules else labelled, args.json)
        return
    history = read_history(recommender, args.history)
    if args.item is None:
        best = recommender.recommend(history, 1)
        if not best:
            raise AlkdError("--item: none is given, and nothing is left to recommend")
        item = best[0].item
    else:
        item = read_item(recommender, args.item, "--item")
    reasons = recommender.explain(history, item)
    if args.json:
        print_json(reasons)
        return
    print(f"{named(recommender, [item])} after {named(recommender, history)}:")
    rows = [
        (one.source or "-", title_of(recommender, one.source), one.kind, f"{one.weight:.6g}")
        for one in reasons
    ]
    print_rows(
        ["from", "title", "kind", "weight"],
        [*rows, ("", "", "sum", f"{sum(one.weight for one in reasons):.6g}")],
    )


def _update(args: argparse.Namespace) -> None:
    from recbole_alkd.serving import update

    out = update(args.bundle, args.inter, args.out, args.titles)
    last = json.loads((out / MANIFEST).read_text(encoding="utf-8"))["updates"][-1]
    print(f"written: {out}, with {last['sessions']:,} more sessions and {last['new_items']:,} new items")
    print(*(f"note: {note}" for note in last["notes"]), sep="\n", end="\n" if last["notes"] else "")


def _serve(args: argparse.Namespace) -> int:
    from recbole_alkd.serving.service.workers import Job, serve

    given = {
        name: getattr(args, f"max_{name}") for name in ("body", "history", "k", "connections", "seconds")
    }
    numbers = {"--workers": args.workers, **{f"--max-{name}": value for name, value in given.items()}}
    for name, value in numbers.items():
        if not value > 0:
            raise AlkdError(f"{name}: {value} is not allowed; allowed: a number above 0")
    limits = Limits(**given)
    teacher = args.teacher or find_teacher(args.bundle)
    return serve(Job(args.bundle, teacher, args.host, args.port, args.workers, args.verify, limits))


def _mcp(args: argparse.Namespace) -> None:
    from recbole_alkd.serving.mcp_server import serve_mcp

    serve_mcp(args.bundle, args.verify)
