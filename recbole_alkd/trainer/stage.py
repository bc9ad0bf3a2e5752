"""One trainer, several stages: RecBole's fit loop run once for each model or loss that ALKDRec trains.

A stage has a model, a loss, batches, its own seed and its own early stopping. Its best state is kept in memory, and in
the run folder once it has finished, so that a killed run does not train it again.
"""

from __future__ import annotations

import copy
import resource
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from recbole.data.dataloader import TrainDataLoader
from recbole.data.interaction import cat_interactions
from recbole.trainer import Trainer
from recbole.utils import calculate_valid_score, init_seed, set_color
from torch import nn
from tqdm import tqdm

from recbole_alkd.compat import save_checkpoint
from recbole_alkd.model.alkdrec import SLOTS
from recbole_alkd.model.backbone import updates_rows
from recbole_alkd.model.edges import EdgeMaker
from recbole_alkd.settings.error import AlkdError, during
from recbole_alkd.settings.identity import stage_seed
from recbole_alkd.settings.reading import laid_over
from recbole_alkd.trainer.collector import SingleTargetCollector
from recbole_alkd.trainer.item_text import ItemText
from recbole_alkd.trainer.late_fusion import LateFusion
from recbole_alkd.trainer.logs import StageTensorBoard, StageWandb
from recbole_alkd.trainer.progress import (
    ProgressClock,
    find_places,
    keeps_all_state,
    loader_places,
    on_cpu,
    random_state,
    set_random_state,
)
from recbole_alkd.trainer.row_adam import RowAdam
from recbole_alkd.trainer.run_folder import StageFolder
from recbole_alkd.trainer.session_knn import fit_table


@dataclass
class StageOutcome:
    """What a stage leaves behind.

    Attributes:
        state: state dict of the best validation step (of the last step without validation data).
        valid: RecBole's validation metrics there, or None.
        best_epoch, best_step: where that was, in epochs and in optimizer steps (both from 1).
        steps, epochs: how far the stage went.
        seconds: wall time. peak_mb: largest memory of the process until then, MiB.
        fitted: what was chosen on validation apart from the epoch: by a table that counts (``trainer/session_knn.py``), or by
            late fusion (``trainer/late_fusion.py``); empty for others.
    """

    state: dict[str, torch.Tensor] = field(default_factory=dict)
    valid: dict[str, float] | None = None
    best_epoch: int = 0
    best_step: int = 0
    steps: int = 0
    epochs: int = 0
    seconds: float = 0.0
    peak_mb: float = 0.0
    fitted: dict[str, float] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """What reports hold of it besides its state and its metrics."""
        return {key: value for key, value in vars(self).items() if key not in ("state", "valid")}


@dataclass
class _Stage:
    """The stage that is running."""

    name: str
    loss: Callable[[Any], torch.Tensor]
    batches: Any
    epoch_start: Callable[[int], None] | None
    after_step: Callable[[Any], None] | None
    outcome: StageOutcome
    loaders: list[Any]  # whose places decide the next epochs
    clock: ProgressClock
    keep: Callable[[dict[str, Any]], None] | None  # writes what a killed stage resumes from
    resume: dict[str, Any] | None = None  # what the next epoch has to begin with
    shown: str = ""  # what logs call it
    validated: bool = False
    show: bool = False  # a bar of batches, where RecBole does not draw one
    line: str = ""  # of the epoch under way


def state_bytes(state: Mapping[str, torch.Tensor]) -> int:
    """What the numbers of a state dict take, in memory and (but for headers) on disk."""
    return sum(value.numel() * value.element_size() for value in state.values())


def saved_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the state dict on the CPU, without what stands in slots for training."""
    slots = tuple(f"{slot}." for slot in SLOTS)
    return {key: value.detach().cpu().clone() for key, value in model.state_dict().items() if not key.startswith(slots)}


def diverged(stage: str, epoch: int, rate: float, what: str = "the training loss is") -> str:
    """What is said when the loss of a stage, or what it scores, is not a number."""
    return (
        f"stage {stage}: {what} nan (not a number) in epoch {epoch}, with learning_rate {rate:g}; "
        "try a smaller learning rate, and look for extreme values in the stage's own settings"
    )


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)  # macOS counts bytes, Linux KiB


class StageTrainer(Trainer):
    """RecBole's Trainer, able to run one stage after another. ``item_text``: the title vectors of a run that uses some."""

    tensorboard: Any
    wandblogger: Any
    train_loss_dict: dict[int, float]
    best_valid_result: Any

    def __init__(self, config: Any, model: nn.Module) -> None:
        self._stage_config: Any = config  # of the stage that is running or ran last
        super().__init__(config, model)
        self.eval_collector = SingleTargetCollector(config)
        self._loggers: tuple[Any, Any] = (self.tensorboard, self.wandblogger)
        self._stage: _Stage | None = None
        self._short: bool = config["short_log"]
        self.item_text: ItemText | None = None

    def fit_stage(
        self,
        folder: StageFolder,
        name: str,
        model: Any,
        *,
        train_data: Any,
        valid_data: Any,
        loss: Callable[[Any], torch.Tensor] | None = None,
        batches: Any = None,
        epochs: int | None = None,
        stopping_step: int | None = None,
        learning_rate: float | None = None,
        epoch_start: Callable[[int], None] | None = None,
        after_step: Callable[[Any], None] | None = None,
        beside: Any = None,
        edges: Mapping[str, EdgeMaker] | None = None,
        fusion: LateFusion | None = None,
        checkpoint: bool | Callable[[StageOutcome], bool] = False,
        config: Any = None,
        shown: str | None = None,
        **fit: Any,
    ) -> StageOutcome:
        """Train ``model`` as stage ``name``, or load the finished stage from ``folder``; its best state is in the model.

        Args:
            loss: loss of a batch; the model's own when None.
            batches: what an epoch goes over; ``train_data`` when None.
            epochs, stopping_step, learning_rate: those of ``config`` when None.
            beside: the ``Cycle`` that the loss takes more batches from, if it does.
            epoch_start: called with the epoch's number (from 0); after_step: with the optimizer, after each step.
            edges: what a table that counts is given besides the data; it has no use for loss, epochs and the like.
            fusion: titles that are laid over the trained model, before it counts as finished.
            checkpoint: whether RecBole's own checkpoint is written too (by the last stage, when the user wants one).
            config: RecBole's Config that the stage is trained under; the run's when None.
            shown: what logs call the stage; its name when None.
            fit: verbose, show_progress, callback_fn of RecBole's fit.
        """
        self.model, self._stage_config = model, config or self.config
        shown = shown or name
        finished = self._finished(folder, name, model, shown)
        if finished:
            if fusion and folder.shared:
                self.eval_collector.data_collect(train_data)
                self._serve_titles(fusion, model, finished, valid_data, fit)
            return finished
        self.seed_stage(name, train_data, batches)
        if not model.view.has_vectors:
            counted = train_data if batches is None else batches
            return self._fit_table_stage(folder, name, model, counted, valid_data, edges, checkpoint, fit)
        if fusion:
            model.titles.set(None)  # those of the stage before
        rate = learning_rate or self._stage_config["learning_rate"]
        self.optimizer = self._build_optimizer(params=model.parameters(), learning_rate=rate)
        self.epochs = self.config["epochs"] if epochs is None else epochs
        self.eval_step = min(self.config["eval_step"], self.epochs)
        self.stopping_step = self.config["stopping_step"] if stopping_step is None else stopping_step
        self.start_epoch = self.cur_step = 0
        self.best_valid_score = -np.inf if self.valid_metric_bigger else np.inf
        self.best_valid_result = None
        self.train_loss_dict = {}
        self.tensorboard = StageTensorBoard(self._loggers[0], shown, hparams=bool(checkpoint))
        self.wandblogger = StageWandb(self._loggers[1], shown)
        self._stage = stage = _Stage(
            name, loss or model.calculate_loss, batches or train_data, epoch_start, after_step, StageOutcome(),
            [batches or train_data, *([beside] if beside else [])], ProgressClock(),
            partial(folder.save_progress, name) if keeps_all_state(model) else None,
        )  # fmt: skip
        stage.shown, stage.validated = shown, bool(valid_data)
        resumed = stage.keep is not None and self._resume(folder.progress(name), stage, rate)
        how = f"resumes after epoch {self.start_epoch}, where an earlier start left it" if resumed else "training begins"
        self.logger.info(set_color("stage", "blue") + f" {shown}: {how}")
        # `saved=True` makes RecBole call _save_checkpoint at every improvement, which is where the best state is kept
        if self._short:
            stage.show, fit = fit.get("show_progress", False), {**fit, "verbose": False, "show_progress": False}
        try:
            with during(f"stage {shown}"):
                super().fit(train_data, valid_data, saved=True, **fit)
        except ValueError as error:
            if "loss is nan" not in str(error):
                raise
            epoch = len(self.train_loss_dict) + 1
            raise AlkdError(diverged(shown, epoch, rate)) from error
        finally:
            self._stage = None
        outcome = stage.outcome
        outcome.valid = {key: float(value) for key, value in self.best_valid_result.items()} if self.best_valid_result else None
        model.load_state_dict(outcome.state, strict=False)  # what only training needs (the slots) is not in the state
        outcome.seconds = round(stage.clock.seconds, 3)
        outcome.peak_mb = peak_memory_mb()
        if folder.shared:
            folder.save_stage(name, asdict(outcome))
        if fusion:
            self._serve_titles(fusion, model, outcome, valid_data, fit)
        # before the stage counts as finished, so that a resumed run finds the checkpoint too
        if checkpoint(outcome) if callable(checkpoint) else checkpoint:
            self._write_checkpoint(outcome)
        if not folder.shared:
            folder.save_stage(name, asdict(outcome))
        return outcome

    def _serve_titles(self, fusion: LateFusion, model: Any, outcome: StageOutcome, valid_data: Any, fit: dict[str, Any]) -> None:
        """Lay titles over a trained student; ``outcome`` is then that of what is served.

        A shared stage is the student by itself, so that arms with other titles, and without any, share it.
        """
        begin = perf_counter()
        outcome.valid, outcome.fitted = fusion.choose(self, valid_data, outcome.valid, fit.get("show_progress", False))
        outcome.state = saved_state(model)
        outcome.seconds = round(outcome.seconds + perf_counter() - begin, 3)
        outcome.peak_mb = peak_memory_mb()

    def _finished(self, folder: StageFolder, name: str, model: Any, shown: str) -> StageOutcome | None:
        """The stage as an earlier run left it, laid into the model; None when it has to be trained."""
        stored = folder.stage(name)
        if stored is None:
            return None
        before = copy.deepcopy(model.state_dict())
        try:
            outcome = StageOutcome(**stored)
            model.load_state_dict(outcome.state, strict=False)  # what only training needs (the slots) is not in the state
        except (TypeError, AttributeError, RuntimeError) as error:
            model.load_state_dict(before, strict=False)  # torch lays in what fits before it says what does not
            reason = str(error).splitlines()[-1].strip()
            self.logger.warning(f"{folder.path}: the stage {shown} does not fit this model ({reason}); it is trained again")
            return None
        self.logger.info(set_color("stage", "blue") + f" {shown}: finished by an earlier run, loaded from {folder.path}")
        return outcome

    def _full_sort_batch_eval(self, batched_data: Any) -> Any:
        found = super()._full_sort_batch_eval(batched_data)
        # weights can grow beyond all bounds while the loss, which is taken before the step, is still a number
        if self._stage and (found[1].isnan() | found[1].isposinf()).any():  # -inf is an item that is never recommended
            rate = self.optimizer.param_groups[0]["lr"]
            raise AlkdError(diverged(self._stage.shown, len(self.train_loss_dict), rate, "scores on validation are infinite or"))
        return found

    def _valid_epoch(self, valid_data: Any, show_progress: bool = False) -> Any:
        score, result = super()._valid_epoch(valid_data, show_progress)
        if self._stage and self._short:
            sign = 1 if self.valid_metric_bigger else -1
            best = ", the best so far" if sign * score > sign * self.best_valid_score else ""
            words = f"{self._stage.line}, {self.valid_metric} {score:.4f} on validation{best}"
            self.logger.info(set_color("epoch", "green") + words)
        return score, result

    def _keep_progress(self, stage: _Stage, epoch: int) -> None:
        """Write what the stage resumes from when it is killed in epoch ``epoch`` or later."""
        assert stage.keep is not None
        begin = perf_counter()
        stage.keep(
            {
                "epoch": epoch,
                "model": on_cpu(dict(self.model.state_dict())),
                "optimizer": on_cpu(self.optimizer.state_dict()),
                "outcome": asdict(stage.outcome),
                "best_valid_score": float(self.best_valid_score),
                "best_valid_result": {key: float(value) for key, value in (self.best_valid_result or {}).items()},
                "cur_step": self.cur_step,
                "losses": {key: float(value) for key, value in self.train_loss_dict.items()},
                "seconds": stage.clock.seconds,
                "places": loader_places(stage.loaders),
                "random": random_state(),
            }
        )
        stage.clock.wrote(perf_counter() - begin)

    def _resume(self, kept: dict[str, Any] | None, stage: _Stage, rate: float) -> bool:
        """Lay in what ``_keep_progress`` kept; False when there is nothing, or nothing that fits."""
        if kept is None:
            return False
        before = copy.deepcopy(self.model.state_dict())
        try:
            outcome = StageOutcome(**kept["outcome"])
            self.model.load_state_dict(kept["model"])
            self.optimizer.load_state_dict(kept["optimizer"])
            numbers = (kept["epoch"], kept["cur_step"], kept["best_valid_score"], kept["best_valid_result"], kept["losses"])
            resume = {key: kept[key] for key in ("places", "random")}
            clock = ProgressClock(kept["seconds"])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            self.model.load_state_dict(before)
            self.optimizer = self._build_optimizer(params=self.model.parameters(), learning_rate=rate)
            reason = str(error).splitlines()[-1].strip()
            self.logger.warning(f"the kept progress of stage {stage.name} does not fit this model ({reason}); it begins anew")
            return False
        self.start_epoch, self.cur_step, self.best_valid_score, valid, self.train_loss_dict = numbers
        self.best_valid_result = valid or None
        stage.outcome, stage.resume, stage.clock = outcome, resume, clock
        return True

    def _fit_table_stage(
        self, folder: StageFolder, name: str, model: Any, train_data: Any, valid_data: Any,
        edges: Mapping[str, EdgeMaker] | None, checkpoint: Any, fit: dict[str, Any],
    ) -> StageOutcome:  # fmt: skip
        """A stage of one step: the backbone counts instead of descending."""
        begin = perf_counter()
        self.eval_collector.data_collect(train_data)
        parts = (train_data._dataset, valid_data._dataset if valid_data else None)
        fitted = fit_table(model.recommender, *parts, self.logger, edges, self.item_text)
        outcome = StageOutcome(best_epoch=1, best_step=1, steps=1, epochs=1, fitted=fitted)
        if valid_data:
            result = self.evaluate(valid_data, load_best_model=False, show_progress=fit.get("show_progress", False))
            outcome.valid = {key: float(value) for key, value in result.items()}
            self.best_valid_score = calculate_valid_score(outcome.valid, self.valid_metric)
            if fit.get("callback_fn"):
                fit["callback_fn"](0, self.best_valid_score)
        outcome.state = saved_state(model)
        outcome.seconds = round(perf_counter() - begin, 3)
        outcome.peak_mb = peak_memory_mb()
        if checkpoint:
            self._write_checkpoint(outcome)
        folder.save_stage(name, asdict(outcome))
        return outcome

    def _build_optimizer(self, **kwargs: Any) -> torch.optim.Optimizer:
        if not updates_rows(self._stage_config):
            return super()._build_optimizer(**kwargs)
        kwargs = {"params": self.model.parameters(), "learning_rate": self.learning_rate, **kwargs}
        return RowAdam(kwargs["params"], lr=kwargs["learning_rate"])

    def seed_stage(self, name: str, *loaders: Any) -> None:
        """Seed every generator a stage draws from, so that a restarted stage repeats itself."""
        seed = stage_seed(self.config["seed"], name)
        init_seed(seed, self.config["reproducibility"])
        for loader in loaders:
            loader = getattr(loader, "loader", loader)
            if hasattr(loader, "generator"):
                loader.generator.manual_seed(seed)

    def row_loader(self, train_data: Any, rows: Iterable[int], batch_size: int, backwards: bool = False) -> TrainDataLoader:
        """RecBole's training loader over some rows of the training part, shuffled.

        ``backwards``: with the rows that the sessions of these rows give when they are read from their end.
        """
        dataset = train_data._dataset
        config = laid_over(self.config, {"train_batch_size": batch_size})
        chosen = dataset.inter_feat[torch.as_tensor(np.asarray(rows), dtype=torch.long)]
        if backwards:
            more = dataset.backward_rows()
            chosen = cat_interactions([chosen, more[torch.isin(more[dataset.uid_field], chosen[dataset.uid_field])]])
        return TrainDataLoader(config, dataset.copy(chosen), None, shuffle=True)

    def _train_epoch(self, train_data: Any, epoch_idx: int, loss_func: Any = None, show_progress: bool = False) -> Any:
        stage = self._stage
        if stage is None:
            return super()._train_epoch(train_data, epoch_idx, loss_func, show_progress)
        if stage.resume:
            find_places(stage.loaders, stage.resume["places"])
            set_random_state(stage.resume["random"])
            stage.resume = None
        elif stage.keep and epoch_idx and stage.clock.due():
            self._keep_progress(stage, epoch_idx)
        if stage.epoch_start:
            stage.epoch_start(epoch_idx)
        hook = None
        if stage.after_step:
            call = stage.after_step
            hook = self.optimizer.register_step_post_hook(lambda optimizer, args, kwargs: call(optimizer))
        begin, batches = perf_counter(), stage.batches
        if stage.show:  # for epochs that take a while; it leaves nothing behind
            batches = tqdm(batches, desc=f"{stage.shown}, epoch {epoch_idx + 1}", total=len(batches), leave=False, delay=3)
        try:
            losses = super()._train_epoch(batches, epoch_idx, stage.loss, show_progress)
        finally:
            if hook:
                hook.remove()
        if self._short:
            total = sum(losses) if isinstance(losses, tuple) else losses
            stage.line = f" {epoch_idx + 1} of {stage.shown}: loss {total:.4f}, {perf_counter() - begin:.2f} s"
            if not (stage.validated and self.eval_step > 0 and (epoch_idx + 1) % self.eval_step == 0):
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

    def _write_checkpoint(self, outcome: StageOutcome) -> None:
        """RecBole's checkpoint of the distilled student, which ``load_data_and_model`` reads."""
        state = {
            "config": self._stage_config,
            "epoch": outcome.best_epoch - 1,
            "cur_step": 0,
            "best_valid_score": float(self.best_valid_score),
            "state_dict": outcome.state,
            "other_parameter": self.model.other_parameter(),
            "optimizer": self.optimizer.state_dict(),
        }
        save_checkpoint(state, self.saved_model_file)
        self.logger.info(set_color("Saving current", "blue") + f": {self.saved_model_file}")
