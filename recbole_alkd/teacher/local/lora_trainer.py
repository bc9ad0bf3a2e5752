"""The transformers Trainer that trains an adapter on candidate lists, and the account of what it did.

More than 300 lines: what is changed in the Trainer, its arguments and its callbacks rest on each other.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from recbole_alkd.bars import progress_bar
from recbole_alkd.processes.group import Group
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import Settings
from recbole_alkd.shared_steps import SharedSteps
from recbole_alkd.teacher.base import Instance, LoraExample
from recbole_alkd.teacher.records import LogMetric

if TYPE_CHECKING:
    from recbole_alkd.teacher.local.scorer import Scorer

_WARMUP = 0.05  # share of the steps in which the learning rate rises
_HELD_OUT = 0.1  # share of the examples, where there is more than one epoch
_SCALE_RATE = 0.1  # learning rate of the logarithm of the scale, with the schedule of the adapter's
_CHECKPOINTS = 20  # in an epoch, where there is only one


class ListwiseTrainer(Trainer):
    """A batch is the row numbers of examples; the loss is the mean of their ``example_loss``.

    ``scale``: what scores are divided by; with ``learns_scale`` its logarithm is trained too. Its value after
    every step is in the log, from which a training that is resumed takes it.
    """

    def __init__(
        self,
        scorer: Scorer,
        examples: Sequence[LoraExample],
        scale: float,
        learns_scale: bool,
        group: Group,
        **options: Any,
    ) -> None:
        super().__init__(
            model=scorer.model, data_collator=lambda rows: {"rows": torch.tensor(rows)}, **options
        )
        self.scorer, self.examples, self.learns_scale = scorer, examples, learns_scale
        device = next(scorer.model.parameters()).device
        self.log_scale = torch.nn.Parameter(
            torch.tensor(float(np.log(scale)), device=device), requires_grad=learns_scale
        )
        self._given = scale
        trained = [one for one in scorer.model.parameters() if one.requires_grad]
        # the processes of a group go through the same batches, and each takes a part of their examples
        self._shared = None
        if group.size > 1:
            self._shared = SharedSteps(group, self._loss_of, [*trained, self.log_scale])
        self._since = time.perf_counter()

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss: Tensor = (self._shared or self._loss_of)(inputs["rows"])
        if not torch.isfinite(loss):
            raise AlkdError(
                f"LoRA: the loss is {loss.item()} in step {self.state.global_step + 1}; "
                "try a lower lora_learning_rate"
            )
        return (loss, {}) if return_outputs else loss

    def _loss_of(self, rows: Tensor) -> Tensor:
        losses, cases = [], []
        # held-out losses are of the same cases every time
        epoch = int(self.state.epoch or 0) if self.scorer.model.training else 0
        chosen = [(int(row), self.examples[int(row)]) for row in rows]
        for row, example in chosen:
            instance = Instance(row, str(row), example.history, example.candidates)
            cases.append(self.scorer.training_case(instance, epoch))
        # a CPU gains nothing from a batch, which pads the shorter texts
        parts = [[case] for case in cases] if self.log_scale.device.type == "cpu" else [cases]
        made = [scores for part in parts for scores in self.scorer.scores(part)]
        for (_, example), scores in zip(chosen, made, strict=True):
            losses.append(
                example_loss(scores / (self.log_scale.exp() if self.learns_scale else self._given), example)
            )
        return torch.stack(losses).mean()

    @property
    def scale(self) -> float:
        """What scores are divided by now."""
        return float(self.log_scale.detach().exp()) if self.learns_scale else self._given

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        made = super().create_optimizer(*args, **kwargs)
        if self.learns_scale:
            made.add_param_group(
                {"params": [self.log_scale], "lr": _SCALE_RATE, "weight_decay": 0.0}
            )
        return made

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        self.log_scale.grad = None  # it is no part of the model, whose gradients the Trainer clears
        return super().training_step(*args, **kwargs)

    def take_scale(self, history: Sequence[dict[str, Any]]) -> None:
        """Go on with the scale that the log of an earlier start ends with."""
        scales = [entry["log_scale"] for entry in history if "log_scale" in entry]
        if scales and self.learns_scale:
            with torch.no_grad():
                self.log_scale.fill_(scales[-1])

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds the seconds of training so far, those before a kill included, and the scale."""
        if self.learns_scale:
            logs = {**logs, "log_scale": float(self.log_scale.detach())}
        before = next(
            (entry["seconds"] for entry in reversed(self.state.log_history) if "seconds" in entry), 0.0
        )
        now = time.perf_counter()
        super().log({**logs, "seconds": before + now - self._since}, *args, **kwargs)
        self._since = now


def example_loss(scores: Tensor, example: LoraExample) -> Tensor:
    """``list_loss`` of the list that ``example`` teaches: the true next item alone, or a recorded ranking."""
    wanted = [example.candidates.index(item) for item in example.ranking or (example.target,)]
    return list_loss(scores, torch.tensor(wanted, device=scores.device))


def list_loss(scores: Tensor, wanted: Tensor) -> Tensor:
    """Minus the log-probability, per rank, of drawing the items ``wanted`` in their order, in nats.

    Plackett-Luce: the next item is drawn from the softmax of the scores of those that are left. With one
    wanted item this is the cross-entropy.

    Args:
        scores: (N,) of the candidates. wanted: (K,) distinct places in ``scores``, best first, K <= N.
    """
    left = torch.ones_like(scores, dtype=torch.bool).repeat(len(wanted), 1)
    for rank in range(1, len(wanted)):
        left[rank:, wanted[rank - 1]] = False
    return cross_entropy(scores.expand_as(left).masked_fill(~left, -torch.inf), wanted)


class ScaleOfEarlierStart(TrainerCallback):
    """Gives a training that is resumed the scale that it had."""

    def __init__(self, trainer: ListwiseTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.take_scale(state.log_history)


class Progress(TrainerCallback):
    """A bar in examples with the rate, the remaining time and the loss; the losses also go to
    ``log_metric``."""

    def __init__(self, count: int, settings: Settings, show: bool, log_metric: LogMetric | None) -> None:
        self.count, self.settings, self.show, self.log_metric = count, settings, show, log_metric

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        total, done = (
            self.count * self.settings.lora.lora_epochs,
            examples_seen(state, self.count, self.settings),
        )
        self.bar = progress_bar(total=total, initial=done, desc="LoRA", unit="example", disable=not self.show)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.update(examples_seen(state, self.count, self.settings) - self.bar.n)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any
    ) -> None:
        for key, name in (("loss", "lora/loss"), ("eval_loss", "lora/loss_held_out")):
            if logs and key in logs:
                # it is drawn with the next step: a line of its own each time is too much for a file
                shown = {key.replace("eval_loss", "held out"): f"{logs[key]:.3f}"}
                self.bar.set_postfix(shown, refresh=False)
                if self.log_metric:
                    self.log_metric(name, logs[key], state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.close()


def split_rows(count: int, settings: Settings) -> tuple[list[int], list[int]]:
    """Rows to train on and rows held out; none are held out when there is one epoch or one example."""
    if settings.lora.lora_epochs == 1 or count == 1:
        return list(range(count)), []
    rows = np.random.default_rng(settings.teacher.llm_seed).permutation(count)
    held_out = max(1, round(_HELD_OUT * count))
    return sorted(rows[held_out:].tolist()), sorted(rows[:held_out].tolist())


def build_trainer(
    scorer: Scorer,
    examples: Sequence[LoraExample],
    scale: float,
    settings: Settings,
    checkpoints: Path,
    show_progress: bool,
    log_metric: LogMetric | None,
    group: Group,
) -> ListwiseTrainer:
    """The Trainer of ``scorer.model``, a PEFT model, on ``examples``. ``scale``: what scores are
    divided by."""
    lora, seed = settings.lora, settings.teacher.llm_seed
    rows, held_out = split_rows(len(examples), settings)
    steps = -(-len(rows) // lora.lora_batch_size)
    each_epoch: dict[str, Any] = {
        "save_strategy": "epoch",
        "eval_strategy": "epoch",
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
    }
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=lora.lora_batch_size,
        per_device_eval_batch_size=lora.lora_batch_size,
        num_train_epochs=lora.lora_epochs,
        learning_rate=lora.lora_learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=max(1, round(_WARMUP * steps * lora.lora_epochs)),
        seed=seed,
        data_seed=seed,
        use_cpu=next(scorer.model.parameters()).device.type == "cpu",
        logging_steps=1,
        **(each_epoch if held_out else {"save_strategy": "steps", "save_steps": -(-steps // _CHECKPOINTS)}),
        save_total_limit=2,  # the last one may be half written when a kill comes
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["rows"],
        prediction_loss_only=True,
        dataloader_pin_memory=False,
        **(_checkpointing() if lora.lora_checkpointing else {}),
    )
    if not arguments.use_cpu:
        arguments._n_gpu = 1  # more than one would mean DataParallel
    callbacks: list[TrainerCallback] = [Progress(len(rows), settings, show_progress, log_metric)]
    if held_out:
        callbacks.append(EarlyStoppingCallback(early_stopping_patience=lora.lora_patience))
    trainer = ListwiseTrainer(
        scorer,
        examples,
        scale,
        lora.lora_scale == "learnt",
        group,
        args=arguments,
        train_dataset=rows,
        eval_dataset=held_out or None,
        callbacks=callbacks,
    )
    trainer.add_callback(ScaleOfEarlierStart(trainer))
    trainer.remove_callback(PrinterCallback)
    return trainer


def _checkpointing() -> dict[str, Any]:
    # transformers 5 renames it
    known = TrainingArguments.__dataclass_fields__
    name = "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"
    return {name: True, f"{name}_kwargs": {"use_reentrant": False}}


def last_checkpoint(folder: Path) -> str | None:
    """The newest complete checkpoint in ``folder``; half-written ones are removed."""
    checkpoints = {
        int(match[1]): path
        for path in folder.glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-(\d+)", path.name))
    }
    for step in sorted(checkpoints, reverse=True):
        try:
            # the Trainer writes it last
            json.loads((checkpoints[step] / "trainer_state.json").read_text(encoding="utf-8"))
            return str(checkpoints[step])
        except (OSError, ValueError):
            shutil.rmtree(checkpoints[step], ignore_errors=True)
    return None


def examples_seen(state: Any, count: int, settings: Settings) -> int:
    """By the Trainer's own steps; a counter of ours would begin again when training is resumed."""
    batch = settings.lora.lora_batch_size
    epochs, steps = divmod(state.global_step, -(-count // batch))
    return epochs * count + min(steps * batch, count)


def checked_report(
    trainer: ListwiseTrainer, examples: Sequence[LoraExample], settings: Settings
) -> dict[str, Any]:
    """What the training did; AlkdError when it did not see every example in every epoch."""
    rows, held_out = split_rows(len(examples), settings)
    history = trainer.state.log_history
    losses = [entry["loss"] for entry in history if "loss" in entry]
    judged = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    # fewer epochs than asked for are right only where the held-out loss did not fall in the last ones
    patience = settings.lora.lora_patience
    stopped = len(judged) > patience and min(judged[-patience:]) >= min(judged[:-patience])
    epochs = len(judged) if stopped else settings.lora.lora_epochs
    seen = examples_seen(trainer.state, len(rows), settings)
    if seen != len(rows) * epochs:
        raise AlkdError(f"LoRA saw {seen} examples instead of {len(rows)} in each of {epochs} epochs")
    quarter = max(1, len(losses) // 4)
    return {
        "examples": len(examples),
        "held_out": len(held_out),
        "epochs": epochs,
        "steps": trainer.state.global_step,
        "loss_first": float(np.mean(losses[:quarter])),
        "loss_last": float(np.mean(losses[-quarter:])),
        "loss_held_out": judged,
        "seconds": max(entry.get("seconds", 0.0) for entry in history),
        "natural": sum(example.natural for example in examples),
        "inserted": sum(not example.natural for example in examples),
        "imitated": sum(bool(example.ranking) for example in examples),
        "scale": trainer.scale,
    }
