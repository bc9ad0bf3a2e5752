"""What must an answer about an item be worth? Simulated teachers of a known accuracy, and the LLM itself,
on the same questions.

The training sessions of a data set are divided at random. The table is counted on the first half; the
second half is what the simulated teacher knows, so the truth is of no validation or test session
(docs/research.md says it precisely).

    python -m recbole_alkd.bench.simulated_items --dataset NAME --data-path DATA --out FOLDER
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from recbole_alkd.bench.simulated_answers import answers_as_edges, share_true, simulated_list
from recbole_alkd.bench.simulated_rows import METRIC, read_rows
from recbole_alkd.bench.simulated_study import CHOICES, Study
from recbole_alkd.files import write_json, write_npz
from recbole_alkd.model.edges import EdgeMaker
from recbole_alkd.settings.identity import stage_seed
from recbole_alkd.settings.text import read_yaml_file

ACCURACIES = (0.25, 0.4, 0.55, 0.7, 0.85, 1.0)  # from chance (5 places of 20) to always right


def run(
    dataset: str,
    data_path: str | None,
    seed: int,
    out: Path,
    settings: dict[str, Any],
    llm: bool,
    choices: Sequence[str] = CHOICES,
    accuracies: Sequence[float] = ACCURACIES,
) -> None:
    """One data set and seed. ``out`` holds ``DATASET-SEED.json`` and ``.npz`` (gains of every test session),
    written as rows come; rows that are there are not made again."""
    study = Study(dataset, data_path, seed, settings)
    file = out / f"{dataset}-{seed}.json"
    rows, kept = read_rows(file)
    asked = {name: len(picked) for name, picked in study.questions().items()}

    def note(name: str, part: Any, answers: Callable[[float], EdgeMaker] | None = None, **more: Any) -> None:
        if name in kept:
            return
        gain, facts = study.table(part, answers)
        kept[name] = gain.astype(np.float32)
        chosen = {key: facts.get(f"items_{key}") for key in ("weight", "edges", "backward")}
        rows.append({"name": name, METRIC: float(gain.mean()), **chosen, **more})
        print(dataset, seed, rows[-1], flush=True)
        write_npz(file.with_suffix(".npz"), kept)
        content = {"dataset": dataset, "seed": seed, "bytes": study.bytes, "questions": asked, "rows": rows}
        write_json(file, content)

    out.mkdir(parents=True, exist_ok=True)
    note("half", study.half)
    note("all sessions", study.whole)
    candidates, counted = study.candidates(study.questions()["all"])
    for name in choices:
        picked = study.questions()[name]
        items, truth = study.rows.items[picked].tolist(), [study.truth[int(row)] for row in picked]

        def edges(lists: list[list[int]], items: list[int] = items) -> Callable[[float], EdgeMaker]:
            return partial(answers_as_edges, study.n_items, items, lists)

        lists = [counted[int(row)] for row in picked]
        note(f"{name}, counted order", study.half, edges(lists), true=share_true(lists, truth))
        if llm and name != "all" and f"{name}, LLM" not in kept:
            lists, tokens, seconds = study.ask(picked, candidates, out / "cache")
            more = {"true": share_true(lists, truth), "tokens": tokens, "seconds": round(seconds, 2)}
            note(f"{name}, LLM", study.half, edges(lists), **more)
        for accuracy in accuracies:
            rng = np.random.default_rng(stage_seed(seed, name, accuracy))
            pairs = zip(picked, truth, strict=True)
            lists = [simulated_list(right, candidates[int(row)], accuracy, rng) for row, right in pairs]
            more = {"accuracy": accuracy, "true": share_true(lists, truth)}
            note(f"{name}, {accuracy:g}", study.half, edges(lists), **more)


def ask_some(
    dataset: str, data_path: str | None, seed: int, out: Path, settings: dict[str, Any], count: int
) -> dict[str, Any]:
    """How often the LLM is right about ``count`` random items, and how often counting is; no table is made.
    Also written to ``DATASET-SEED-llm.json``."""
    study = Study(dataset, data_path, seed, settings)
    rng = np.random.default_rng(stage_seed(seed, "asked"))
    rows = rng.permutation(study.questions()["random"])[:count]
    candidates, counted = study.candidates(rows)
    out.mkdir(parents=True, exist_ok=True)
    lists, tokens, seconds = study.ask(rows, candidates, out / "cache")
    truth = [study.truth[int(row)] for row in rows]
    chance = sum(map(len, truth)) / sum(len(candidates[int(row)]) for row in rows)
    shares = {
        "llm": share_true(lists, truth),
        "counted": share_true([counted[int(row)] for row in rows], truth),
    }
    facts = {"dataset": dataset, "seed": seed, "asked": len(rows), "true": {**shares, "chance": chance}}
    facts |= {"tokens": tokens, "seconds": round(seconds, 2)}
    write_json(out / f"{dataset}-{seed}-llm.json", facts)
    return facts


def main(argv: Sequence[str] | None = None) -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", required=True)
    parser.add_argument(
        "--data-path", default=None, help="folder with the data set's folder; RecBole's own by default"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[2020, 2021, 2022])
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--item-text", default=None, help="encoder of the table's title edges")
    parser.add_argument(
        "--settings", default=None, type=Path, help="YAML file of settings laid over the study's"
    )
    parser.add_argument("--questions", nargs="+", default=CHOICES, choices=CHOICES, help="items asked about")
    parser.add_argument("--accuracies", nargs="+", default=ACCURACIES, type=float, help="of the simulated")
    parser.add_argument("--ask", type=int, default=0, metavar="N", help="only say how often the LLM is right")
    parser.add_argument("--no-llm", action="store_true", help="simulated teachers only")
    args = parser.parse_args(argv)
    given = read_yaml_file(args.settings, f"--settings {args.settings}") if args.settings else {}
    for seed in args.seeds:
        cache = args.out / "cache"
        own = {"item_text": args.item_text, "label_store": str(cache / "labels.sqlite"), "seed": seed}
        settings = {**own, "checkpoint_dir": str(cache), **given}
        if args.ask:
            print(ask_some(args.dataset, args.data_path, seed, args.out, settings, args.ask))
            continue
        asked = (args.questions, args.accuracies)
        run(args.dataset, args.data_path, seed, args.out, settings, not args.no_llm, *asked)


if __name__ == "__main__":
    main()
