"""LoRA of a local causal LM: learn to score the true next item above the other candidates.

The loss of an example is list-wise, the cross-entropy of the target under the softmax of the candidates' scores (PMI of
their titles, see ``local``). At the start the adapter changes nothing, so training starts from the zero-shot ranking.
LoRA is this package's addition to the paper, whose LLM is only prompted.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import random
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from recbole_alkd.config import AlkdError, Settings
from recbole_alkd.teacher.base import LoraExample
from recbole_alkd.teacher.models import new_folder

if TYPE_CHECKING:
    from recbole_alkd.teacher.local import TitleScorer

REPORT = "alkd_lora.json"
_WARMUP = 0.05  # share of the steps in which the learning rate rises


def train_adapter(
    scorer: TitleScorer,
    examples: Sequence[LoraExample],
    settings: Settings,
    folder: Path,
    *,
    show_progress: bool = False,
    log_metric: Callable[[str, float, int], None] | None = None,
) -> dict[str, Any]:
    """Train an adapter of ``scorer.model`` and write it to ``folder``, in PEFT's own format, when it is complete.

    Returns:
        The report, also written beside the adapter: examples, steps, loss_first and loss_last (means over the first and
        the last tenth of the steps), seconds, natural and inserted (targets), settings.

    Raises:
        AlkdError: fewer than ``lora_examples`` examples, or fewer seen in training; no module called as ``lora_targets``
            says; a loss that is not finite; accelerate is not installed.
    """
    wanted = settings.lora.lora_examples
    if len(examples) < wanted:
        raise AlkdError(f"lora_examples: {wanted} are wanted and only {len(examples)} were made; allowed: at most {len(examples)}")
    if importlib.util.find_spec("accelerate") is None:
        raise AlkdError("lora: True needs accelerate, not installed here; install with: pip install 'recbole_alkd[local]'")
    began = time.perf_counter()
    seed = settings.teacher.llm_seed
    nulls = [scorer.null(example.candidates) for example in examples]
    with kept_random_state(), new_folder(folder) as work:
        torch.manual_seed(seed)
        plain = scorer.model
        scorer.model = _add_adapter(plain, settings)
        try:
            trainer = _trainer(scorer, examples, nulls, settings, work, show_progress, log_metric)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # of the libraries to each other
                trainer.train()
            losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
            seen = _examples_seen(trainer.state, len(examples), settings)
            if seen != len(examples) * settings.lora.lora_epochs:
                raise AlkdError(f"LoRA saw {seen} examples instead of {len(examples)} x {settings.lora.lora_epochs} epochs")
            tenth = max(1, len(losses) // 10)
            report = {
                "examples": len(examples),
                "steps": trainer.state.global_step,
                "loss_first": float(np.mean(losses[:tenth])),
                "loss_last": float(np.mean(losses[-tenth:])),
                "seconds": time.perf_counter() - began,
                "natural": sum(example.natural for example in examples),
                "inserted": sum(not example.natural for example in examples),
                "settings": asdict(settings.lora) | {"llm_model": settings.teacher.llm_model, "llm_seed": seed},
            }
            shutil.rmtree(work / "trainer", ignore_errors=True)
            scorer.model.save_pretrained(work)
            (work / REPORT).write_text(json.dumps(report, indent=1), encoding="utf-8")
        finally:
            scorer.model = _remove_adapter(scorer.model)
    return report


def load_adapter(model: Any, folder: Path) -> Any:
    """``model`` with the adapter in ``folder``, in evaluation mode; AlkdError when the folder is damaged."""
    from peft import PeftModel
    from safetensors import SafetensorError

    try:
        return PeftModel.from_pretrained(model, str(folder)).eval()
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise AlkdError(f"the adapter in {folder} cannot be used ({str(error).splitlines()[0]}); delete that folder") from None


def read_report(folder: Path) -> dict[str, Any]:
    """The report of the training that made the adapter in ``folder``."""
    try:
        return json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AlkdError(f"the adapter in {folder} has no readable {REPORT} ({error}); delete that folder") from None


def without_adapter(model: Any) -> contextlib.AbstractContextManager[Any]:
    """Inside of it ``model`` computes as the LM without an adapter."""
    return model.disable_adapter() if hasattr(model, "disable_adapter") else contextlib.nullcontext()


@contextlib.contextmanager
def kept_random_state() -> Iterator[None]:
    """Random numbers drawn inside do not move the generators outside (the Trainer seeds all of them)."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _add_adapter(model: Any, settings: Settings) -> Any:
    from peft import LoraConfig, get_peft_model

    lora = settings.lora
    config = LoraConfig(
        r=lora.lora_rank,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=list(lora.lora_targets),
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise AlkdError(f"lora_targets: {lora.lora_targets}: {str(error).splitlines()[0]}") from None


def _remove_adapter(model: Any) -> Any:
    return model.unload().eval() if hasattr(model, "unload") else model


def _trainer(
    scorer: TitleScorer,
    examples: Sequence[LoraExample],
    nulls: Sequence[torch.Tensor],
    settings: Settings,
    work: Path,
    show_progress: bool,
    log_metric: Callable[[str, float, int], None] | None,
) -> Any:
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    lora, seed = settings.lora, settings.teacher.llm_seed
    steps = -(-len(examples) // lora.lora_batch_size) * lora.lora_epochs

    class ListwiseTrainer(Trainer):
        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            rows = inputs["rows"]
            chosen = [examples[row] for row in rows]
            trees = [scorer.tree(example.history, example.candidates) for example in chosen]
            scores = scorer.scores(trees, [nulls[row] for row in rows])
            targets = [example.candidates.index(example.target) for example in chosen]
            losses = [cross_entropy(s[None], torch.tensor([t], device=s.device)) for s, t in zip(scores, targets, strict=True)]
            loss = torch.stack(losses).mean()
            if not torch.isfinite(loss):
                raise AlkdError(
                    f"LoRA: the loss is {loss.item()} in step {self.state.global_step + 1}; try a lower lora_learning_rate"
                )
            return (loss, {}) if return_outputs else loss

    class Progress(TrainerCallback):
        bar: Any = None

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.bar = tqdm(total=len(examples) * lora.lora_epochs, desc="LoRA", unit="example", disable=not show_progress)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.bar.update(_examples_seen(state, len(examples), settings) - self.bar.n)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:
                self.bar.set_postfix(loss=f"{logs['loss']:.3f}")
                if log_metric:
                    log_metric("lora/loss", logs["loss"], state.global_step)

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.bar.close()

    arguments = TrainingArguments(
        output_dir=str(work / "trainer"),
        per_device_train_batch_size=lora.lora_batch_size,
        num_train_epochs=lora.lora_epochs,
        learning_rate=lora.lora_learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=max(1, round(_WARMUP * steps)),
        seed=seed,
        data_seed=seed,
        use_cpu=next(scorer.model.parameters()).device.type == "cpu",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    if not arguments.use_cpu:
        arguments._n_gpu = 1  # more than one would mean DataParallel
    trainer = ListwiseTrainer(
        model=scorer.model,
        args=arguments,
        train_dataset=range(len(examples)),
        data_collator=lambda rows: {"rows": list(rows)},
        callbacks=[Progress()],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _examples_seen(state: Any, count: int, settings: Settings) -> int:
    """By the Trainer's own steps; a counter of ours would begin again when training is resumed."""
    batch = settings.lora.lora_batch_size
    epochs, steps = divmod(state.global_step, -(-count // batch))
    return epochs * count + min(steps * batch, count)
