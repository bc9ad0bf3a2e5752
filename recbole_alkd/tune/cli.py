"""``recbole-alkd tune``."""

from __future__ import annotations

import argparse
import glob
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbole_alkd.data.content import data_fingerprint
from recbole_alkd.registry import teachers
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.identity import settings_hash, volatile
from recbole_alkd.settings.reading import settings_of
from recbole_alkd.tune.results import BEST, PICTURE, TABLE, write_results
from recbole_alkd.tune.space import check_space, combinations, read_space
from recbole_alkd.tune.study import SAMPLERS, Plan, best_trial, import_optuna, run_search
from recbole_alkd.tune.trial import STAGES, Search


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``tune`` beside RecBole's own."""
    parser.add_argument("--model", "-m", default="ALKDRec", help="model name (default: ALKDRec)")
    parser.add_argument(
        "--space", required=True, metavar="FILE", help="what to try: YAML, or RecBole's search file"
    )
    parser.add_argument(
        "--trials",
        type=int,
        default=20,
        metavar="N",
        help="trials in all, earlier starts' among them (%(default)s)",
    )
    parser.add_argument(
        "--stage", choices=STAGES, default="distilled", help="of ALKDRec: whose score counts (%(default)s)"
    )
    parser.add_argument(
        "--sampler", choices=SAMPLERS, default="tpe", help="how settings are chosen (%(default)s)"
    )
    parser.add_argument("--no-prune", action="store_true", help="train every trial to its end")
    parser.add_argument(
        "--hours", type=float, default=None, metavar="H", help="begin no trial later than this"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=None,
        metavar="FOLDER",
        help="of the search (default: below checkpoint_dir)",
    )
    parser.add_argument(
        "--may-pay",
        action="store_true",
        help="allow a teacher that costs: every trial may ask for its own labels",
    )


def tune(args: argparse.Namespace, files: Sequence[str] | None, settings: dict[str, Any]) -> int | None:
    """Search, and say what was best.

    Args:
        args: parsed by ``add_arguments``, with RecBole's ``dataset``. files: RecBole's config files.
        settings: those of the command line, which is the key to them.

    Returns:
        1 where no trial was finished.
    """
    import_optuna()
    if args.trials < 1:
        raise AlkdError(f"--trials: {args.trials} is not allowed; allowed: an integer of at least 1")
    if args.hours is not None and not args.hours > 0:
        raise AlkdError(f"--hours: {args.hours:g} is not allowed; allowed: a number above 0")
    space = read_space(args.space)
    search = Search(args.model, args.dataset, files, args.stage, {})
    config = search.config({})
    check_space(space, config.final_config_dict, settings)
    if config["model"] == "ALKDRec":
        _check_cost(config, args)
    plan = Plan(
        space, args.trials, args.sampler, not args.no_prune, args.hours and 3600 * args.hours,
        str(config["valid_metric"]), bool(config["valid_metric_bigger"]), int(config["seed"]),
    )  # fmt: skip
    plan.check()
    given = {
        key: value
        for key, value in config.external_config_dict.items()
        if key not in ("model", "dataset", "config_files", *volatile())
    }
    identity = search.identity(space, plan.metric, given, _content(config))
    name = f"{config['model']}-{config['dataset']}-{settings_hash({'search': identity})}"
    folder = args.out or Path(config["checkpoint_dir"]) / "tune" / name
    count = combinations(space)
    many = f", {count:,} combinations" if count else ""
    print(f"searching {len(space)} settings by {plan.metric} on validation{many}; kept in {folder}")
    for key, axis in space.items():
        print(f"  {key}: {axis}")
    study = run_search(search, plan, folder, identity)
    values = write_results(study, plan, folder)
    best = best_trial(study)
    if values is None or best is None:
        print(f"no trial was finished; {folder / TABLE} says why")
        return 1
    print(f"best on validation: trial {best.number + 1}, {plan.metric} {best.value:.4f}")
    print(f"every trial: {folder / TABLE}")
    if (folder / f"{PICTURE}.png").exists():
        print(f"picture: {folder / PICTURE}.png")
    print("It was chosen by this score, so it looks better there than it is.")
    print("No trial has looked at the test part; a run does:")
    print(f"  {_command(args, files, settings, folder / BEST)}")
    return None


def _content(config: Any) -> str:
    """The fingerprint of the data set's files; where there are none, RecBole downloads them first."""
    from recbole.data import create_dataset

    folder, name = Path(config["data_path"]), config["dataset"]
    if not any(folder.glob(f"{glob.escape(name)}.*")):
        create_dataset(config)
    return data_fingerprint(folder, name)


def _check_cost(config: Any, args: argparse.Namespace) -> None:
    """A teacher that is paid is asked anew by every trial that selects or shows something else."""
    labelling = settings_of(config)
    name = labelling.teacher.llm_teacher
    if args.stage != "distilled" or args.may_pay or teachers.get(name).instant or name == "local":
        return
    raise AlkdError(
        f"llm_teacher: {name!r} may cost, and each of {args.trials} trials may ask for labels of its own "
        "(those in the store are never asked for again); allowed: --may-pay, or --stage student"
    )


def _command(
    args: argparse.Namespace, files: Sequence[str] | None, settings: dict[str, Any], best: Path
) -> str:
    words = ["recbole-alkd", "run", f"--model={args.model}", f"--dataset={args.dataset}"]
    words += ["--config_files", " ".join([*(files or ()), os.fspath(best)])]
    return shlex.join([*words, *(f"--{key}={value}" for key, value in settings.items())])
