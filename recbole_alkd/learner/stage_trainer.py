"""RecBole's fit loop, run once for each model or loss that ALKDRec trains by gradients.

A stage has a model, a loss, batches, its own seed and its own early stopping. Its best state is kept in
memory; while it runs, a killed stage's progress is kept in its folder.
"""

from __future__ import annotations

import copy
from dataclasses import asdict
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from recbole.utils import calculate_valid_score, set_color
from torch import nn

from recbole_alkd.bars import progress_bar
from recbole_alkd.compat import save_checkpoint
from recbole_alkd.learner.descent import Descent, RunningStage, diverged
from recbole_alkd.learner.outcome import StageOutcome, peak_memory_mb, saved_state
from recbole_alkd.learner.progress import (
    ProgressClock,
    find_places,
    keeps_all_state,
    loader_places,
    on_cpu,
    random_state,
    set_random_state,
)
from recbole_alkd.learner.row_adam import RowAdam
from recbole_alkd.learner.shared_evaluation import SharedEvaluation
from recbole_alkd.learner.stage_logs import StageTensorBoard, StageWandb
from recbole_alkd.learner.stage_task import StageTask
from recbole_alkd.model.backbone import updates_rows
from recbole_alkd.processes.group import Group
from recbole_alkd.settings.error import AlkdError, during
from recbole_alkd.shared_steps import SharedSteps


class StageTrainer(SharedEvaluation):
    """RecBole's Trainer, able to run one stage after another."""

    tensorboard: Any
    wandblogger: Any
    train_loss_dict: dict[int, float]
    best_valid_result: Any

    def __init__(self, config: Any, model: nn.Module, group: Group | None = None) -> None:
        self._stage_config: Any = config  # of the stage that is running or ran last
        super().__init__(config, model, group or Group())
        self.loggers: tuple[Any, Any] = (self.tensorboard, self.wandblogger)  # of the run
        self.short: bool = config["short_log"]
        self._stage: RunningStage | None = None

    def move_into(self, folder: Path, tensorboard: Any) -> None:
        """A run's checkpoint is written into its folder, and its curves go to ``tensorboard``."""
        self.tensorboard, self.loggers = tensorboard, (tensorboard, self.loggers[1])
        self.saved_model_file = str(folder / f"{self.config['model']}.pth")

    @property
    def running(self) -> bool:
        """Whether a stage is being trained."""
        return self._stage is not None

    def take(self, model: Any, config: Any = None) -> None:
        """From now on this is the model; ``config``: RecBole's Config that it is trained under, the run's
        when None.
        """
        self.model, self._stage_config = model, config or self.config

    def descend(self, task: StageTask, model: Any, config: Any, how: Descent) -> StageOutcome:
        """Train ``model``; its best state is in it then, and in the outcome.

        Raises:
            AlkdError: the loss, or what is scored on validation, is no number.
        """
        self.take(model, config)
        rate = how.learning_rate or config["learning_rate"]
        self.optimizer = self._build_optimizer(params=model.parameters(), learning_rate=rate)
        self.epochs = self.config["epochs"] if how.epochs is None else how.epochs
        self.eval_step = min(self.config["eval_step"], self.epochs)
        self.stopping_step = self.config["stopping_step"] if how.stopping_step is None else how.stopping_step
        self.start_epoch = self.cur_step = 0
        self.best_valid_score = -np.inf if self.valid_metric_bigger else np.inf
        self.best_valid_result = None
        self.train_loss_dict = {}
        self.tensorboard = StageTensorBoard(self.loggers[0], task.shown, hparams=task.checkpoint is not None)
        self.wandblogger = StageWandb(self.loggers[1], task.shown)
        keep = partial(task.folder.save_progress, task.name) if keeps_all_state(model) else None
        loss = how.loss or model.calculate_loss
        if self.group.size > 1:
            loss = SharedSteps(self.group, loss, list(model.parameters()))
        self._stage = stage = RunningStage(
            task.name, task.words, loss, how.batches or how.train_data, how,
            StageOutcome(), ProgressClock(), keep, self.short and how.show_progress,
        )  # fmt: skip
        resumed = keep is not None and self._resume(task.folder.progress(task.name), stage, rate)
        words = (
            f"resumes after epoch {self.start_epoch}, where an earlier start left it"
            if resumed
            else "training begins"
        )
        self.logger.info(set_color("stage", "blue") + f" {task.words}: {words}")
        loud = {
            "verbose": how.verbose and not self.short,
            "show_progress": how.show_progress and not self.short,
        }
        try:
            with during(f"stage {task.words}"):
                # `saved=True` makes RecBole call _save_checkpoint at every improvement, which is where the
                # best state is kept
                super().fit(how.train_data, how.valid_data, saved=True, callback_fn=task.callback, **loud)
        except ValueError as error:
            if "loss is nan" not in str(error):
                raise
            raise AlkdError(diverged(task.words, len(self.train_loss_dict) + 1, rate)) from error
        finally:
            self._stage = None
        outcome, best = stage.outcome, self.best_valid_result
        outcome.valid = {key: float(value) for key, value in best.items()} if best else None
        # parameters are the same everywhere, other state need not be
        outcome.state = self.group.from_leader(lambda: outcome.state)
        # what only training needs (the slots) is not in the state
        model.load_state_dict(outcome.state, strict=False)
        outcome.seconds = round(stage.clock.seconds, 3)
        outcome.peak_mb = peak_memory_mb()
        return outcome

    def check_scores(self, scores: torch.Tensor) -> bool:
        # weights can grow beyond all bounds while the loss, which is taken before the step, is still a number
        # -inf is an item that is never recommended
        return self._stage is None or bool(scores.amax() < torch.inf)  # nan is not below anything

    def scores_diverged(self) -> AlkdError:
        words = self._stage.words if self._stage else ""
        rate = self.optimizer.param_groups[0]["lr"]
        return AlkdError(
            diverged(words, len(self.train_loss_dict), rate, "scores on validation are infinite or")
        )

    def _valid_epoch(self, valid_data: Any, show_progress: bool = False) -> Any:
        score, result = super()._valid_epoch(valid_data, show_progress)
        if self._stage and self.short:
            sign = 1 if self.valid_metric_bigger else -1
            best = ", the best so far" if sign * score > sign * self.best_valid_score else ""
            words = f"{self._stage.line}, {self.valid_metric} {score:.4f} on validation{best}"
            self.logger.info(set_color("epoch", "green") + words)
        return score, result

    def _keep_progress(self, stage: RunningStage, epoch: int) -> None:
        """Write what the stage resumes from when it is killed in epoch ``epoch`` or later."""
        assert stage.keep is not None
        begin, generators = perf_counter(), self.group.gather(random_state())
        stage.keep(
            {
                "epoch": epoch,
                "model": on_cpu(dict(self.model.state_dict())),
                "optimizer": on_cpu(self.optimizer.state_dict()),
                "outcome": asdict(stage.outcome),
                "best_valid_score": float(self.best_valid_score),
                "best_valid_result": {
                    key: float(value) for key, value in (self.best_valid_result or {}).items()
                },
                "cur_step": self.cur_step,
                "losses": {key: float(value) for key, value in self.train_loss_dict.items()},
                "seconds": stage.clock.seconds,
                "places": loader_places(stage.loaders),
                "random": generators[0],
                "others": generators[1:],
            }
        )
        stage.clock.wrote(perf_counter() - begin)

    def _resume(self, kept: dict[str, Any] | None, stage: RunningStage, rate: float) -> bool:
        """Lay in what ``_keep_progress`` kept; False when there is nothing, or nothing that fits."""
        if kept is None:
            return False
        before = copy.deepcopy(self.model.state_dict())
        try:
            outcome = StageOutcome(**kept["outcome"])
            self.model.load_state_dict(kept["model"])
            self.optimizer.load_state_dict(kept["optimizer"])
            numbers = (
                kept["epoch"],
                kept["cur_step"],
                kept["best_valid_score"],
                kept["best_valid_result"],
                kept["losses"],
            )
            generators = [kept["random"], *kept.get("others", [])]
            resume = {"places": kept["places"], "random": generators[self.group.rank]}
            clock = ProgressClock(kept["seconds"])
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            self.model.load_state_dict(before)
            self.optimizer = self._build_optimizer(params=self.model.parameters(), learning_rate=rate)
            reason = str(error).splitlines()[-1].strip()
            self.logger.warning(
                f"the kept progress of stage {stage.words} does not fit this model ({reason}); it begins anew"
            )
            return False
        self.start_epoch, self.cur_step, self.best_valid_score, valid, self.train_loss_dict = numbers
        self.best_valid_result = valid or None
        stage.outcome, stage.resume, stage.clock = outcome, resume, clock
        return True

    def _build_optimizer(self, **kwargs: Any) -> torch.optim.Optimizer:
        # a model that counts may have none, and torch wants some
        if not any(True for _ in self.model.parameters()):
            return torch.optim.Adam([nn.Parameter(torch.zeros(0))])
        if not updates_rows(self._stage_config):
            return super()._build_optimizer(**kwargs)
        kwargs = {"params": self.model.parameters(), "learning_rate": self.learning_rate, **kwargs}
        return RowAdam(kwargs["params"], lr=kwargs["learning_rate"])

    def _train_epoch(
        self, train_data: Any, epoch_idx: int, loss_func: Any = None, show_progress: bool = False
    ) -> Any:
        stage = self._stage
        if stage is None:
            return super()._train_epoch(train_data, epoch_idx, loss_func, show_progress)
        if stage.resume:
            find_places(stage.loaders, stage.resume["places"])
            set_random_state(stage.resume["random"])
            stage.resume = None
        elif stage.keep and epoch_idx and self.group.from_leader(stage.clock.due):
            self._keep_progress(stage, epoch_idx)
        if stage.how.epoch_start:
            stage.how.epoch_start(epoch_idx)
        hook = None
        if stage.how.after_step:
            call = stage.how.after_step
            hook = self.optimizer.register_step_post_hook(lambda optimizer, args, kwargs: call(optimizer))
        begin, batches = perf_counter(), stage.batches
        if stage.show:  # for epochs that take a while; it leaves nothing behind
            name = f"{stage.words}, epoch {epoch_idx + 1}"
            batches = progress_bar(batches, desc=name, total=len(batches), leave=False, delay=3)
        try:
            losses = super()._train_epoch(batches, epoch_idx, stage.loss, show_progress)
        finally:
            if hook:
                hook.remove()
        if self.short:
            total = sum(losses) if isinstance(losses, tuple) else losses
            stage.line = (
                f" {epoch_idx + 1} of {stage.words}: loss {total:.4f}, {perf_counter() - begin:.2f} s"
            )
            if not (stage.how.valid_data and self.eval_step > 0 and (epoch_idx + 1) % self.eval_step == 0):
                self.logger.info(set_color("epoch", "green") + stage.line)
        stage.outcome.epochs = epoch_idx + 1
        stage.outcome.steps += len(stage.batches)
        return losses

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        stage = self._stage
        if stage is None:
            super()._save_checkpoint(epoch, verbose, **kwargs)
            return
        stage.outcome.state = saved_state(self.model)
        stage.outcome.best_epoch, stage.outcome.best_step = stage.outcome.epochs, stage.outcome.steps

    def write_checkpoint(self, outcome: StageOutcome) -> None:
        """RecBole's checkpoint of the distilled student, which ``load_data_and_model`` reads."""
        score = (
            calculate_valid_score(outcome.valid, self.valid_metric)
            if outcome.valid
            else self.best_valid_score
        )
        state = {
            "config": self._stage_config,
            "epoch": outcome.best_epoch - 1,
            "cur_step": 0,
            "best_valid_score": float(score),
            "state_dict": outcome.state,
            "other_parameter": self.model.other_parameter(),
            "optimizer": self.optimizer.state_dict(),
        }
        save_checkpoint(state, self.saved_model_file)
        self.logger.info(set_color("checkpoint", "blue") + f": {self.saved_model_file}")
