"""ALKDRec from Python and from the command line: RecBole's own entry points,
with the report beside their result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.quick_start import quick_start
from recbole.utils import get_model, get_trainer, init_seed

from recbole_alkd.active.certificate import certificate
from recbole_alkd.active.picture import check_picture, check_target, draw_selection
from recbole_alkd.bench.lora_file import StudyExamples, draw_study, write_study
from recbole_alkd.checks import asking_nobody, own_command
from recbole_alkd.compat import trusted_loads
from recbole_alkd.file_checks import check_new_file
from recbole_alkd.files import write_json
from recbole_alkd.labelling.rounds import CERTIFICATE, LabelRounds
from recbole_alkd.processes.group import Group, place
from recbole_alkd.processes.launch import launch_run
from recbole_alkd.processes.places import PORT, Places
from recbole_alkd.processes.started import together
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.trainer import label_command


def run_recbole_alkd(
    model: str = "ALKDRec",
    dataset: str | None = None,
    config_file_list: list[str] | None = None,
    config_dict: dict[str, Any] | None = None,
    saved: bool = True,
    nproc: int = 1,
    world_size: int = -1,
    ip: str = "localhost",
    port: str | int = PORT,
    group_offset: int = 0,
) -> dict[str, Any]:
    """RecBole's ``run_recbole``; for ALKDRec the result holds the whole report too.

    Args:
        model, dataset, config_file_list, config_dict, saved: as in ``recbole.quick_start.run_recbole``.
        nproc, world_size, ip, port, group_offset: as in ``recbole.quick_start.run``, for ALKDRec: how many
            processes train together, on this machine and in all, and where the first machine is found. A
            program that starts them is guarded by ``if __name__ == "__main__"``. Not given where torchrun
            has started the processes, which join each other.

    Returns:
        RecBole's ``best_valid_score``, ``valid_score_bigger``, ``best_valid_result``, ``test_result``, and
        for ALKDRec ``stages`` (teacher, student, student_longer, distilled; each with valid and test
        metrics), ``baselines`` (popularity, item_knn), ``targets`` (test targets that are warm,
        input_only and cold), ``comparison`` (distilled against student_longer: metric, difference, low, high
        of its 95 % interval, verdict), ``labels``, ``lora``, ``policy``, ``run_folder``, ``settings``:
        what ``result.json`` in the run folder holds.

    Raises:
        AlkdError: a setting or a data set that cannot work, in one line that says what to do.
        ToldError: a process ended otherwise, such as by a signal; all have ended then.
    """
    number: Any = int(port) if str(port).isdigit() else port  # what is none is refused by name
    places = Places(nproc, world_size, ip, number, group_offset)
    arguments = (model, dataset, config_file_list, config_dict, saved)
    if together(places) > 1:
        return launch_run(arguments, places, strict=False)
    return _run_here(*arguments)


def run_as_member(arguments: tuple[Any, ...], strict: bool) -> dict[str, Any]:
    """What each of the processes of ``launch_run`` does; the leader has the result."""
    with own_command() if strict else nullcontext():
        result = _run_here(*arguments)
    return result if place()[0] == 0 else {}


def _run_here(
    model: Any, dataset: str | None, config_file_list: Any, config_dict: Any, saved: bool
) -> dict[str, Any]:
    result = quick_start.run_recbole(
        model=model, dataset=dataset, config_file_list=config_file_list, config_dict=config_dict, saved=saved
    )
    return {**result, **getattr(result["test_result"], "report", {})}


def select_instances(
    out: str,
    dataset: str | None = None,
    config_file_list: list[str] | None = None,
    config_dict: dict[str, Any] | None = None,
    picture: str | None = None,
) -> dict[str, Any]:
    """Select ``budget_labels`` training sessions without any LLM.

    Args:
        out: JSON file for the selection; ``alkd_policy: listed`` with ``alkd_picks: OUT#picks`` takes it up.
        dataset, config_file_list, config_dict: as in ``run_recbole_alkd``.
        picture: image file (.png, .svg, .pdf) of difficulty, probabilities and picks;
            needs the extra ``bench``.

    Returns:
        The content of the file, which is dataset, seed, policy, picks (session tokens in the order
        drawn), value, upper, gap, support.
    """
    check_target(out)
    if picture:
        check_picture(picture)
    with (
        asking_nobody(),
        _selected(dataset, config_file_list, config_dict, titles=False) as (config, rounds, _),
    ):
        report = rounds.policy_report()
        shown = ("dataset", "seed", "alkd_unit", "alkd_policy", "alkd_difficulty", "alkd_mu", "alkd_ratio")
        names = {key: config[key] for key in shown}
        result = {**names, **{key: report[key] for key in ("picks", *CERTIFICATE)}, "pool": rounds.pool_size}
        write_json(Path(out), result)  # before the picture: the selection is what was trained for
        if picture:
            pool, chosen = rounds.last_selection
            words = f"{config['alkd_policy']}: {len(chosen.picks)} of {len(pool)}"
            words += f", {certificate(vars(chosen))}" if chosen.value is not None else ""
            draw_selection(picture, pool.difficulty(), chosen.log_p, chosen.picks, words)
        return result


def label_instances(
    dataset: str | None = None,
    config_file_list: list[str] | None = None,
    config_dict: dict[str, Any] | None = None,
    *,
    dry_run: bool = False,
    batch_out: str | None = None,
    batch_in: str | None = None,
    retry_failed: bool = False,
    out: str | None = None,
    show: int | None = None,
) -> dict[str, Any]:
    """Label the selected training sessions and distil nothing. A run with the same settings finds the labels
    in the store.

    Args:
        dataset, config_file_list, config_dict: as in ``run_recbole_alkd``.
        dry_run: only say what it would take; nothing is sent or stored.
            A local LLM is tried on three sessions.
        batch_out: write the requests that are missing from the store to this file,
            for OpenAI's Batch API (`api` only).
        batch_in: put the answers of this file, a batch's output, into the store (`api` only).
        retry_failed: ask again where an earlier answer was unusable.
        show: how many prompts to show, with their titles; nothing is asked then.
        out: also write the rankings to this file, one JSON object a line, as ``llm_teacher: replay`` reads
            them.

    Returns:
        ``lines``, what the command prints, and the same as data: the estimate, the bill,
        or the counts of the file.

    Raises:
        AlkdError: as a run; several rounds, between which a run distils, so that nobody knows the later
            selections.
    """
    for name, file in (("out", out), ("batch_out", batch_out)):
        if file:
            check_new_file(name, Path(file))
    asks = nullcontext() if not (dry_run or batch_out or batch_in or show) else asking_nobody()
    with (
        asks,
        _selected(dataset, config_file_list, config_dict, before_labels=True, shows=bool(show)) as (
            _,
            rounds,
            picked,
        ),
    ):
        if show:
            report, lines = label_command.show(rounds, picked, show)
        elif dry_run:
            report, lines = label_command.estimate(rounds, picked)
        elif batch_out:
            report, lines = label_command.write_requests(rounds, picked, Path(batch_out))
        elif batch_in:
            report, lines = label_command.read_answers(rounds, picked, Path(batch_in))
        else:
            report, lines = label_command.label(rounds, picked, retry_failed, Path(out) if out else None)
        return {**report, "lines": lines}


def lora_study_examples(
    out: str,
    dataset: str | None = None,
    config_file_list: list[str] | None = None,
    config_dict: dict[str, Any] | None = None,
    *,
    examples: int = 4000,
    held_out: int = 400,
) -> StudyExamples:
    """Write examples for a study of LoRA (``recbole-alkd lora-curve``), without any LLM;
    trains the cross-fitted recommenders.

    Args:
        out: the JSON file.
        dataset, config_file_list, config_dict: as in ``run_recbole_alkd``.
        examples: of each pool, at most. held_out: to judge by, at most.
    """
    check_new_file("out", Path(out))
    with asking_nobody(), _selected(dataset, config_file_list, config_dict) as (_, rounds, _):
        study = draw_study(rounds, rounds.llm.context.titles, examples, held_out)
        if not study.held_out:
            raise AlkdError(
                "the recommender found no true next item among its candidates: nothing to judge LoRA by"
            )
        write_study(Path(out), study)
        return study


@contextmanager
def _selected(
    dataset: str | None,
    files: list[str] | None,
    values: dict[str, Any] | None,
    before_labels: bool = False,
    titles: bool = True,
    shows: bool = False,
) -> Iterator[tuple[Any, LabelRounds, np.ndarray]]:
    """The config, and the rounds and row ids that ``ALKDRecTrainer.select`` gives."""
    config = Config(model="ALKDRec", dataset=dataset, config_file_list=files, config_dict=values)
    if before_labels and config["alkd_rounds"] > 1:
        raise AlkdError(
            f"alkd_rounds: {config['alkd_rounds']} rounds select anew after each distillation, "
            "and nothing is distilled here; "
            "allowed here: 1"
        )
    if shows:
        label_command.check_prompts(config["llm_teacher"])
    init_seed(config["seed"], config["reproducibility"])
    quick_start.init_logger(config)
    train_data, valid_data, _ = data_preparation(config, create_dataset(config))
    Group.of(config).seed_model(config)
    model = get_model(config["model"])(config, train_data._dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    rounds, picked = trainer.select(
        train_data, valid_data, show_progress=config["show_progress"], titles=titles
    )
    try:
        yield config, rounds, picked
    finally:
        rounds.llm.close()
        trainer.run.folder.close()


def objective_function(
    config_dict: dict[str, Any] | None = None, config_file_list: list[str] | None = None, saved: bool = True
) -> dict[str, Any]:
    """RecBole's objective for hyper-parameter search. A worker process that imports it by name
    knows ALKDRec.

    Args:
        config_dict, config_file_list, saved: as in ``run_recbole_alkd``; ``model`` and ``dataset`` stand
            among the settings.

    Returns:
        ``model``, ``best_valid_score``, ``valid_score_bigger``, ``best_valid_result``, ``test_result``.

    Raises:
        AlkdError: as ``run_recbole_alkd``.
    """
    return quick_start.objective_function(
        config_dict=config_dict, config_file_list=config_file_list, saved=saved
    )


def load_data_and_model(
    model_file: str, trust_checkpoint: bool = False
) -> tuple[Any, Any, Any, Any, Any, Any]:
    """RecBole's ``load_data_and_model``: config, model, dataset, train_data, valid_data,
    test_data of a checkpoint.

    Args:
        model_file: the checkpoint.
        trust_checkpoint: also read a file that was written without this package. Such a file can run code:
            only for files of your own.

    Raises:
        ValueError: the file needs that trust and was not given it.
    """
    if trust_checkpoint:
        with trusted_loads():
            return quick_start.load_data_and_model(model_file)
    return quick_start.load_data_and_model(model_file)
