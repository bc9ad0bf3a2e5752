"""ALKDRec from Python and from the command line: RecBole's own entry points, with the report beside their result."""

from __future__ import annotations

from typing import Any

from recbole.quick_start import quick_start

from recbole_alkd.compat import trusted_loads


def run_recbole_alkd(
    model: str = "ALKDRec",
    dataset: str | None = None,
    config_file_list: list[str] | None = None,
    config_dict: dict[str, Any] | None = None,
    saved: bool = True,
) -> dict[str, Any]:
    """RecBole's ``run_recbole``; for ALKDRec the result holds the whole report too.

    Args:
        model, dataset, config_file_list, config_dict, saved: as in ``recbole.quick_start.run_recbole``.

    Returns:
        RecBole's ``best_valid_score``, ``valid_score_bigger``, ``best_valid_result``, ``test_result``, and for ALKDRec
        ``stages`` (teacher, student, student_longer, distilled; each with valid and test metrics), ``labels``, ``lora``,
        ``policy``, ``run_folder``, ``settings``: what ``result.json`` in the run folder holds.

    Raises:
        AlkdError: a setting or a data set that cannot work, in one line that says what to do.
    """
    result = quick_start.run_recbole(
        model=model, dataset=dataset, config_file_list=config_file_list, config_dict=config_dict, saved=saved
    )
    return {**result, **getattr(result["test_result"], "report", {})}


def objective_function(
    config_dict: dict[str, Any] | None = None, config_file_list: list[str] | None = None, saved: bool = True
) -> dict[str, Any]:
    """RecBole's objective for hyper-parameter search. A worker process that imports it by name knows ALKDRec."""
    return quick_start.objective_function(config_dict=config_dict, config_file_list=config_file_list, saved=saved)


def load_data_and_model(model_file: str, trust_checkpoint: bool = False) -> tuple[Any, Any, Any, Any, Any, Any]:
    """RecBole's ``load_data_and_model``: config, model, dataset, train_data, valid_data, test_data of a checkpoint.

    Args:
        model_file: the checkpoint.
        trust_checkpoint: also read a file that was written without this package. Such a file can run code: only for
            files of your own.

    Raises:
        ValueError: the file needs that trust and was not given it.
    """
    if trust_checkpoint:
        with trusted_loads():
            return quick_start.load_data_and_model(model_file)
    return quick_start.load_data_and_model(model_file)
