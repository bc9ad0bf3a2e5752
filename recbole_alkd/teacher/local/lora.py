"""LoRA of a local causal LM: learn to score the true next item above the other candidates.

The loss of an example is list-wise, the cross-entropy of the target under the softmax of the candidates'
scores (see ``scorers``). With ``lora_target: replay`` the LLM imitates recorded rankings of a stronger one
instead: minus the log-likelihood of the list under the Plackett-Luce model of the scores (ListMLE, Xia et
al., ICML 2008), per rank. With ``title`` scores an adapter that has learned nothing gives the zero-shot
ranking, where training starts. LoRA is this package's addition to the paper, whose LLM is only prompted.

With more than one epoch, a tenth of the examples is held out; training ends when their loss has not fallen
for ``lora_patience`` epochs, and the adapter of the best epoch is kept. A training that was killed resumes
from its last checkpoint, with the same losses.

An adapter is judged by examples apart from training (``judging``). One that is not shown to beat the LLM
without it is kept, with its report, and not used: labels are then the plain LLM's, and are stored as such.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from recbole_alkd.files import json_text, move_whole
from recbole_alkd.llm.adapters import REPORT, model_card, portable_name, rank_words, targets_embeddings
from recbole_alkd.llm.bundled import BUNDLED, quiet
from recbole_alkd.llm.devices import training_attention
from recbole_alkd.processes.group import Group
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import Settings
from recbole_alkd.teacher.base import Instance, LoraExample
from recbole_alkd.teacher.local.adapter import add_adapter
from recbole_alkd.teacher.local.judging import expected, is_better, judge, seconds_of_one
from recbole_alkd.teacher.local.scale import fit_scale
from recbole_alkd.teacher.records import LogMetric

if TYPE_CHECKING:
    from recbole_alkd.teacher.local.scorer import Scorer

logger = logging.getLogger(__name__)


def train_adapter(
    scorer: Scorer,
    examples: Sequence[LoraExample],
    settings: Settings,
    folder: Path,
    *,
    held_out: Sequence[LoraExample] = (),
    show_progress: bool = False,
    log_metric: LogMetric | None = None,
    group: Group | None = None,
) -> bool:
    """Train an adapter of ``scorer.model`` and write it to ``folder``, in PEFT's own format,
    when it is complete.

    ``alkd_lora.json`` beside it is the report: examples (held-out ones too), held_out, epochs, steps,
    loss_first and loss_last (means over the first and the last quarter of the steps), loss_held_out (of each
    epoch), seconds, natural and inserted (targets), scale_start and scale (what scores were divided by in the
    loss, before training and at its end), loss_start (of the first examples, before training; None where the
    scale was not fitted to them), ranks (of the targets of ``held_out``, before and after:
    ``judging.judge``), better (whether these show that it beats the plain LLM;
    None where it was not to be judged), settings.

    Args:
        group: processes that call this together, with the same arguments; each takes a part of every batch,
            and the losses are those of one process. The leader writes.

    Returns:
        False when another process, which was waited for, has made the adapter meanwhile.

    Raises:
        AlkdError: fewer than ``lora_examples`` examples, or fewer seen in training; no module called as
            ``lora_targets`` says; a loss that is not finite; accelerate is not installed.
    """
    from filelock import FileLock, Timeout

    if importlib.util.find_spec("accelerate") is None:
        raise AlkdError(
            "lora: True needs accelerate, not installed here; install with: pip install 'recbole_alkd[local]'"
        )
    group = group or Group()
    if not group.leads:
        with tempfile.TemporaryDirectory(prefix="alkd_lora_") as own:
            if group.from_leader(bool):
                _train(scorer, examples, (), settings, Path(own) / "adapter", False, None, group)
                return True
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("another process is training this adapter: waiting for it")
        lock.acquire()
    try:
        there = folder.is_dir()
        group.from_leader(lambda: not there)
        if there:
            return False
        clear_unfinished(folder)
        _train(scorer, examples, held_out, settings, folder, show_progress, log_metric, group)
        return True
    finally:
        lock.release()


def _train(
    scorer: Scorer,
    examples: Sequence[LoraExample],
    judges: Sequence[LoraExample],
    settings: Settings,
    folder: Path,
    show_progress: bool,
    log_metric: LogMetric | None,
    group: Group,
) -> None:
    from recbole_alkd.teacher.local.lora_trainer import (
        build_trainer,
        checked_report,
        example_loss,
        last_checkpoint,
    )

    lora, seed = settings.lora, settings.teacher.llm_seed
    if len(examples) < (1 if lora.only_natural else lora.lora_examples or 1):
        count = len(examples)
        raise AlkdError(
            f"lora_examples: {settings.lora_examples} are wanted and only {count} were made; "
            f"allowed: at most {count}"
        )
    examples, lengths = _that_fit(
        scorer, [shortened(example, lora.lora_candidates) for example in examples], settings
    )
    longest = sorted(lengths)[-lora.lora_batch_size :]
    scorer.prepare({item for example in (*examples, *judges) for item in example.candidates})
    work = folder.with_name(f".{folder.name}.partial")
    with kept_random_state(), quiet():
        torch.manual_seed(seed)
        plain = scorer.model
        scorer.model = add_adapter(plain, settings)
        try:
            with training_attention(scorer.model, longest):
                seconds = seconds_of_one(scorer, examples)
            logger.info(
                "LoRA: %d examples, %s on this machine",
                len(examples),
                expected(seconds * len(examples) * lora.lora_epochs),
            )
            scale, loss_start = scorer.temperature, None
            if lora.lora_scale == "learnt":
                scale, loss_start = fit_scale(scorer, examples, example_loss)
            trainer = build_trainer(
                scorer, examples, scale, settings, work / "checkpoints", show_progress, log_metric, group
            )
            # of several processes the leader's, which the others of its machine read
            begun = group.from_leader(lambda: last_checkpoint(work / "checkpoints"))
            with training_attention(scorer.model, longest):
                trainer.train(resume_from_checkpoint=begun)
            report = checked_report(trainer, examples, settings) | {
                "scale_start": scale,
                "loss_start": loss_start,
            }
            report["ranks"] = judge(scorer, judges)
            report["better"] = is_better(report["ranks"]) if settings.lora_held_out else None
            if report["ranks"]:
                logger.info("LoRA: %s", rank_words(report["ranks"]))
            base = settings.teacher.llm_model
            report["settings"] = lora.flat() | {
                "llm_model": base if base == BUNDLED else portable_name(base),
                "llm_seed": seed,
            }
            scorer.model.peft_config["default"].base_model_name_or_path = portable_name(base)
            scorer.model.save_pretrained(
                work / "adapter", save_embedding_layers=targets_embeddings(lora.lora_targets)
            )
            (work / "adapter" / REPORT).write_text(json_text(report, indent=1), encoding="utf-8")
            (work / "adapter" / "README.md").write_text(
                model_card(report, settings.teacher), encoding="utf-8"
            )
            move_whole(work / "adapter", folder)
        except AlkdError:
            shutil.rmtree(work, ignore_errors=True)  # resumed from here it would end in the same way
            raise
        finally:
            scorer.model = scorer.model.unload().eval()
    shutil.rmtree(work, ignore_errors=True)


def shortened(example: LoraExample, size: int | None) -> LoraExample:
    """``example`` with its ``size`` first candidates, all that it teaches among them; None: as it is."""
    taught = example.ranking or (example.target,)
    if size is None or len(example.candidates) <= max(size, len(taught)):
        return example
    others = [item for item in example.candidates if item not in taught]
    kept = {*taught, *others[: max(0, size - len(taught))]}
    return replace(example, candidates=tuple(item for item in example.candidates if item in kept))


_KEPT_DAYS = 3  # that an unfinished training of other settings is kept for


def clear_unfinished(folder: Path) -> None:
    """Remove what killed trainings of other adapters left beside ``folder``, when nobody has taken them up
    for days.

    A younger one is kept, because a run with its settings resumes it.
    """
    from filelock import FileLock, Timeout

    for left in folder.parent.glob(".*.partial"):
        name = left.name.removesuffix(".partial")
        if name == f".{folder.name}":
            continue
        try:
            with FileLock(folder.with_name(f"{name}.lock"), timeout=0):
                days = (time.time() - max(path.stat().st_mtime for path in (left, *left.rglob("*")))) / 86400
                if days > _KEPT_DAYS or (folder.parent / name[1:]).is_dir():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    logger.info(
                        "%s: an unfinished LoRA training, resumed by a run with its settings, else removed",
                        left,
                    )
        except (Timeout, OSError):
            continue  # at work


def _that_fit(
    scorer: Scorer, examples: Sequence[LoraExample], settings: Settings
) -> tuple[Sequence[LoraExample], list[int]]:
    """Those that are not longer than what the model reads, and their tokens; AlkdError where none is left."""
    cases = [
        scorer.training_case(Instance(row, str(row), example.history, example.candidates), 0)
        for row, example in enumerate(examples)
    ]
    fit = [one for one, case in zip(examples, cases, strict=True) if not case.problem]
    if not fit:
        raise AlkdError(
            f"llm_candidates: no LoRA example with {settings.teacher.llm_candidates} candidates fits what "
            f"{settings.teacher.llm_model!r} reads; lower llm_candidates or llm_title_tokens"
        )
    if len(fit) < len(examples):
        logger.warning(
            "%d of %d LoRA examples are longer than what the model reads and are left out",
            len(examples) - len(fit),
            len(examples),
        )
    return fit, [case.tokens for case in cases if not case.problem]


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
