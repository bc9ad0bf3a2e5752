"""The search: trials one after another, kept in a file.

A killed search resumes, and several processes share one. Optuna chooses what is tried and decides which
trial is given up early; this module gives it trials and keeps the books.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.identity import stage_seed
from recbole_alkd.trainer.report_words import settings_in_words
from recbole_alkd.tune.space import Axis, Choice, combinations
from recbole_alkd.tune.trial import DivergedError, Search, run_trial

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

STUDY = "study.db"
SAMPLERS = ("tpe", "random", "grid")
_WORKER, _LEFT = "worker", "left"  # attributes of a trial: whose it is, why it was left


@dataclass(frozen=True)
class Plan:
    """How a search is made.

    Attributes:
        space: what is tried. trials: how many are finished in the end, those of earlier starts among them.
        sampler: one of ``SAMPLERS``. prune: whether a trial below the median of the others is given up.
        seconds: no trial begins later than that after the start; None: no limit.
        metric, bigger: what is compared, and whether more of it is better.
        seed: of the run and of the search.
    """

    space: Mapping[str, Axis]
    trials: int
    sampler: str
    prune: bool
    seconds: float | None
    metric: str
    bigger: bool
    seed: int

    def check(self) -> None:
        """AlkdError where the space has fewer trials than are asked for, or a grid has no end."""
        count = combinations(self.space)
        if self.sampler == "grid" and count is None:
            raise AlkdError(
                "--sampler grid: a range without step has no grid; allowed: lists, or ranges with a step"
            )
        if count is not None and self.trials > count:
            raise AlkdError(
                f"--trials: {self.trials} is more than the {count} in the space; allowed: 1 to {count}"
            )


def import_optuna() -> Any:
    """Optuna, quiet; AlkdError where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise AlkdError(
            "tune needs optuna, which is not installed: pip install 'recbole_alkd[tune]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def run_search(
    search: Search, plan: Plan, folder: Path, identity: str, say: Callable[[str], None] = print
) -> Study:
    """Make the trials of ``plan`` that ``folder`` does not have yet.

    Args:
        identity: the same for the same search; a folder of another one is refused.
        say: is told of each trial in a line.

    Returns:
        Optuna's study with every trial.

    Raises:
        AlkdError: the folder is of another search; a trial's settings cannot work.
    """
    optuna = import_optuna()
    folder.mkdir(parents=True, exist_ok=True)
    with _worker(folder) as number:
        with open(
            folder / ".open.lock", "w", encoding="utf-8"
        ) as handle:  # of two that begin at once, one makes the file
            fcntl.flock(handle, fcntl.LOCK_EX)
            study = _open(optuna, plan, folder, identity)
        _take_up(optuna, study, folder, number, say)
        finished = _count(study)
        study.sampler = _sampler(optuna, plan, stage_seed(plan.seed, "tune", finished, number))
        began = time.monotonic()
        while _count(study) < plan.trials and (
            plan.seconds is None or time.monotonic() - began < plan.seconds
        ):
            # one at a time: the count above also has the trials of other processes
            study.optimize(
                lambda trial: _try(optuna, study, trial, search, plan, number),
                n_trials=1,
                catch=(DivergedError,),
            )
            say(_line(study, plan, study.get_trials(deepcopy=False), number))
    return study


def values_of(space: Mapping[str, Axis], params: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a trial: what the search calls a value, turned into the value."""
    values = {}
    for key, axis in space.items():
        value = params[key]
        values[key] = axis.values[axis.labels.index(value)] if isinstance(axis, Choice) else value
    return values


def best_trial(study: Study) -> FrozenTrial | None:
    """The best finished trial; None where none is finished."""
    done = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    sign = 1 if study.direction.name == "MAXIMIZE" else -1
    return max(done, key=lambda trial: (sign * float(trial.value or 0.0), -trial.number), default=None)


def _try(optuna: Any, study: Study, trial: Trial, search: Search, plan: Plan, worker: int) -> float:
    trial.set_user_attr(_WORKER, worker)
    values = values_of(plan.space, {key: _suggest(trial, key, axis) for key, axis in plan.space.items()})

    def report(epoch: int, score: float) -> None:
        trial.report(score, epoch)
        if plan.prune and trial.should_prune():
            raise optuna.TrialPruned

    try:
        score, metrics = run_trial(search, values, report, f"trial {trial.number + 1}")
    except optuna.TrialPruned:
        raise
    except DivergedError as error:
        trial.set_user_attr(_LEFT, f"diverged: {error}")
        raise
    except (KeyboardInterrupt, SystemExit):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params)
        raise
    trial.set_user_attr("valid", {key: float(value) for key, value in metrics.items()})
    return score


def _line(study: Study, plan: Plan, trials: list[FrozenTrial], worker: int) -> str:
    """What came of the trial that this process made last."""
    trial = max((one for one in trials if one.user_attrs.get(_WORKER) == worker), key=lambda one: one.number)
    ends = {"PRUNED": "given up early, below the median of the trials before it", "FAIL": "diverged"}
    end = ends.get(trial.state.name) or f"{plan.metric} {trial.value:.4f}"
    seconds = trial.duration.total_seconds() if trial.duration else 0.0
    words = settings_in_words(values_of(plan.space, trial.params))
    line = (
        f"trial {trial.number + 1} ({_count(study)} of {plan.trials} done): {words}: {end}, {seconds:.1f} s"
    )
    best = best_trial(study)
    return line + (f"; best so far {best.value:.4f} (trial {best.number + 1})" if best else "")


def _suggest(trial: Trial, key: str, axis: Axis) -> Any:
    if isinstance(axis, Choice):
        return trial.suggest_categorical(key, axis.labels)
    if axis.whole:
        return trial.suggest_int(key, int(axis.low), int(axis.high), step=int(axis.step or 1), log=axis.log)
    return trial.suggest_float(key, axis.low, axis.high, step=axis.step, log=axis.log)


def _count(study: Study) -> int:
    """Trials that count: finished, given up, diverged; not those that were interrupted and are made again."""
    return sum(
        trial.state.is_finished()
        and (trial.state.name != "FAIL" or str(trial.user_attrs.get(_LEFT, "")).startswith("diverged"))
        for trial in study.get_trials(deepcopy=False)
    )


def _open(optuna: Any, plan: Plan, folder: Path, identity: str) -> Study:
    import sqlalchemy

    file = folder / STUDY
    is_new = not file.exists()
    address = sqlalchemy.URL.create("sqlite", database=os.fspath(file))
    try:
        storage = optuna.storages.RDBStorage(
            address.render_as_string(hide_password=False), engine_kwargs={"connect_args": {"timeout": 60}}
        )
        study = optuna.create_study(
            storage=storage,
            study_name="search",
            direction="maximize" if plan.bigger else "minimize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=4)
            if plan.prune
            else optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
    except (sqlalchemy.exc.DatabaseError, RuntimeError) as error:
        how, what = "read as a search", "give another folder"
        if is_new:  # half of one could never be read
            file.unlink(missing_ok=True)
            how, what = "written", f"make room, or {what}"
        reason = str(error).splitlines()[0]
        raise AlkdError(f"--out: {os.fspath(file)!r} cannot be {how} ({reason}); {what}") from None
    known = study.user_attrs.get("search")
    if known is None:
        study.set_user_attr("search", identity)
    elif known != identity:
        raise AlkdError(
            f"--out: {os.fspath(folder)!r} has the trials of another search (other settings, space or data); "
            "give another folder"
        )
    return study


def _sampler(optuna: Any, plan: Plan, seed: int) -> Any:
    if plan.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if plan.sampler == "grid":
        return optuna.samplers.GridSampler(
            {key: list(_points(axis)) for key, axis in plan.space.items()}, seed=plan.seed
        )
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=min(10, max(3, plan.trials // 3)))


def _points(axis: Axis) -> Iterator[Any]:
    if isinstance(axis, Choice):
        yield from axis.labels
        return
    step = axis.step or 1
    for number in range(int((axis.high - axis.low) / step + 1e-9) + 1):
        yield int(axis.low + number * step) if axis.whole else axis.low + number * step


@contextmanager
def _worker(folder: Path) -> Iterator[int]:
    """The number of this process among those that share ``folder``, its own as long as the block lasts."""
    for number in range(1000):
        handle = open(  # noqa: SIM115 (it is open as long as the place is held)
            folder / f".worker-{number}.lock", "w", encoding="utf-8"
        )
        if _lock(handle):
            try:
                yield number
            finally:
                handle.close()
            return
        handle.close()
    raise AlkdError(f"--out: {os.fspath(folder)!r} is shared by 1,000 processes; allowed: fewer")


def _lock(handle: TextIO) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _lives(folder: Path, number: int) -> bool:
    """Whether a process holds the place ``number``."""
    try:
        with open(folder / f".worker-{number}.lock", encoding="utf-8") as handle:
            return not _lock(handle)
    except FileNotFoundError:
        return False


def _take_up(optuna: Any, study: Study, folder: Path, mine: int, say: Callable[[str], None]) -> None:
    """Trials whose process is gone are made again."""
    state = optuna.trial.TrialState
    for trial in study.get_trials(deepcopy=False, states=(state.RUNNING,)):
        number = trial.user_attrs.get(_WORKER)
        if number is None or (number != mine and _lives(folder, number)):
            continue
        study.tell(trial.number, state=state.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params, user_attrs={"again": trial.number})
            say(f"trial {trial.number + 1} was cut off by an earlier start's end; it is made again")
