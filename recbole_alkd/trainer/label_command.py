"""Labels without distillation (``recbole-alkd label``): what is done with a selection,
and what is said about it.

Every function takes the rounds after ``ALKDRecTrainer.select``, whose sessions a run with the same settings
selects too, so that it finds these labels in the store.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from recbole_alkd.data.writing import write_files
from recbole_alkd.files import json_line
from recbole_alkd.labelling.batch import read_batch, write_batch
from recbole_alkd.labelling.estimate import estimate_labels
from recbole_alkd.labelling.rankings import keys_of
from recbole_alkd.labelling.rounds import LabelRounds
from recbole_alkd.labels import LabelStore
from recbole_alkd.labels.cost import money
from recbole_alkd.registry import teachers
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.teacher.api.teacher import ApiTeacher
from recbole_alkd.teacher.local.judging import expected
from recbole_alkd.teacher.replay import id_field

Answer = tuple[dict[str, Any], list[str]]  # as data, and as lines of text


def estimate(rounds: LabelRounds, picked: np.ndarray) -> Answer:
    """What labelling would take; nothing is sent or stored. A local LLM is tried on a few sessions."""
    path = Path(rounds.settings.teacher.label_store).expanduser()
    instances = rounds.instances(picked)
    if path.is_file():
        with LabelStore(path) as store:
            estimated = estimate_labels(rounds.llm, instances, store, rounds.supplies)
    else:
        estimated = estimate_labels(rounds.llm, instances, None, rounds.supplies)
    limits, bound, origin = rounds.settings.selection, rounds.llm.bound_words, rounds.llm.origin
    if origin and not (estimated.most_tokens or estimated.most_usd):
        words = f"{estimated.known:,} in {path}, {estimated.missing:,} to be {origin}; no LLM is asked"
        return dataclasses.asdict(estimated), [f"{estimated.wanted:,} instances: {words}"]
    lines = [
        f"{estimated.wanted:,} instances: {estimated.known:,} in {path}, {estimated.missing:,} to ask"
        + (", and hints" if estimated.hints else ""),
        f"estimate:    {estimated.tokens:,} tokens, {money(estimated.usd)}",
        f"upper bound: {estimated.most_tokens:,} tokens, {money(estimated.most_usd)}"
        + (f" ({bound})" if bound else ""),
    ]
    if estimated.seconds is not None:
        lines.append(
            f"time here:   {expected(estimated.seconds)} for the labels (tried on {estimated.tried})"
        )
        if estimated.preparation:
            lines.append(
                f"before that: {expected(estimated.preparation_seconds)} for {estimated.preparation}"
            )
    elif estimated.unmeasured:
        lines.append(f"time here:   not known: {estimated.unmeasured}")
    spent = rounds.ledger.spending
    for name, most, limit, taken in (
        ("budget_tokens", estimated.most_tokens, limits.budget_tokens, spent.tokens),
        ("budget_usd", estimated.most_usd, limits.budget_usd, spent.usd),
    ):
        if limit is not None and most is not None:
            before = f", of which earlier starts of this run spent {taken:g}" if taken else ""
            passed = ", which the upper bound passes: asking may end early" if most + taken > limit else ""
            lines.append(f"{name}: {limit:g}{before}{passed}")
    return dataclasses.asdict(estimated), lines


def check_prompts(teacher: str) -> None:
    """AlkdError where the LLM teacher of that name asks no LLM, so that there is no prompt to show."""
    if teachers.get(teacher).instant:
        asking = [name for name in teachers if not teachers.get(name).instant]
        raise AlkdError(
            f"--show: llm_teacher {teacher!r} asks no LLM and has no prompt; allowed: {', '.join(asking)}"
        )


def show(rounds: LabelRounds, picked: np.ndarray, count: int) -> Answer:
    """The questions of the first ``count`` sessions as the LLM would read them;
    nothing is asked, sent or stored."""
    instances = rounds.instances(picked)[:count]
    titles = rounds.llm.context.titles
    prompts, lines = [], []
    for instance, key in zip(instances, keys_of(rounds.llm, instances), strict=True):
        text = rounds.llm.prompt(instance)
        titled = sum(titles.get(item, f"item {item}") != f"item {item}" for item in instance.candidates)
        prompts.append(
            {
                instance.noun: instance.session,
                "key": key,
                "prompt": text,
                "titled": titled,
                "candidates": len(instance.candidates),
            }
        )
        lines += [
            f"=== {instance.noun} {instance.session}, label {key[:16]}: "
            f"{titled} of {len(instance.candidates)} candidates have a title ===",
            *text.split("\n"),
            "",
        ]
    if (
        rounds.settings.teacher.llm_hints
        and "hints=" in rounds.llm.identity
        and "hints=none" not in rounds.llm.identity
    ):
        lines.append(
            "The hints, which are asked for once before the first label, stand in the prompt besides "
            "(llm_hints)."
        )
    return {"prompts": prompts}, lines


def label(
    rounds: LabelRounds, picked: np.ndarray, retry_failed: bool = False, file: Path | None = None
) -> Answer:
    """Ask for the labels that are missing from the store;
    write all rankings to ``file`` as ``llm_teacher: replay`` reads them."""
    path = rounds.settings.teacher.label_store
    instances = rounds.instances(picked)
    with LabelStore(path) as store:
        collected = rounds.collect(instances, store, retry_failed)
    session = {instance.row: instance.session for instance in instances}
    missing = [session[row] for row in collected.missing]
    bill, origin = collected.bill, rounds.llm.origin
    free = bool(origin) and not (bill.cost.tokens or bill.usd)
    made = f"{origin} now, no LLM asked" if free else "instances asked now"
    cost = (
        f"{bill.prompt_tokens:,} prompt + {bill.completion_tokens:,} completion tokens, {money(bill.usd)}, "
        f"{bill.seconds:.1f} s"
    )
    lines = [
        f"{len(collected.labels):,} rankings in {path}: {bill.asked:,} {made}, "
        f"{bill.reused:,} rankings from the store; "
        f"{bill.failed:,} failed, {len(missing):,} without an answer",
        *([] if free else [cost]),
        *([f"ended by {collected.ended}"] if collected.ended else []),
    ]
    if file:
        settings = rounds.settings.teacher
        source = settings.llm_teacher + (
            f" {settings.llm_model}" if settings.llm_teacher in ("api", "local") else ""
        )
        records = [
            {id_field(rounds.rows.unit): session[row], "ranking": list(one.ranking), "source": source}
            for row, one in collected.labels.items()
        ]
        write_files(file.parent, {file.name: lambda stream: stream.writelines(map(json_line, records))})
        lines.append(
            f"rankings written to {file}; read by llm_teacher: replay and lora_target: "
            "replay (llm_replay_file)"
        )
    spent = dataclasses.asdict(rounds.ledger.spending)
    report = {**bill.report(), "spent": spent, "rankings": len(collected.labels), "missing": missing}
    report |= {"ended": collected.ended, "repairs": collected.repairs}
    return report, lines


def write_requests(rounds: LabelRounds, picked: np.ndarray, file: Path) -> Answer:
    """Write what is missing from the store as an OpenAI batch file."""
    teacher = _api(rounds, "--batch-out")
    with LabelStore(rounds.settings.teacher.label_store) as store:
        made = write_batch(
            teacher, rounds.instances(picked), store, rounds.budget(len(picked)), file, rounds.supplies
        )
    lines = [
        f"{made.requests:,} requests written to {file}; {made.known:,} labels are in the store"
        + (f", {made.missing:,} instances left out ({made.ended})" if made.missing else ""),
        f"upper bound: {made.tokens:,} tokens, {money(made.usd)}",
    ]
    hints = made.hints
    if hints.tokens:
        lines.append(
            f"hints: {hints.prompt_tokens:,} + {hints.completion_tokens:,} tokens, {money(hints.usd)}, "
            "asked for now"
        )
    return dataclasses.asdict(made), lines


def read_answers(rounds: LabelRounds, picked: np.ndarray, file: Path) -> Answer:
    """Put the answers of a batch's output file into the store."""
    teacher = _api(rounds, "--batch-in")
    with LabelStore(rounds.settings.teacher.label_store) as store:
        answers = read_batch(teacher, rounds.instances(picked), store, file)
    bill = answers.bill
    if bill.asked:
        rounds.ledger.note(None, f"batch {file.name}", bill.cost.tokens, bill.usd, open_=False)
    lines = [
        f"{answers.stored:,} labels of {file} stored, {bill.failed:,} of them failed; "
        f"{answers.known:,} were known, "
        f"{answers.foreign:,} belong to other questions, {answers.unanswered:,} requests ended in an error",
        f"{bill.prompt_tokens:,} prompt + {bill.completion_tokens:,} completion tokens, {money(bill.usd)}",
        *(f"{file}, {problem}; it is left out" for problem in answers.unreadable),
    ]
    return {**dataclasses.asdict(answers), "bill": bill.report()}, lines


def _api(rounds: LabelRounds, option: str) -> ApiTeacher:
    if not isinstance(rounds.llm, ApiTeacher):
        name = rounds.settings.teacher.llm_teacher
        raise AlkdError(f"{option}: llm_teacher {name!r} knows no batch files; allowed: llm_teacher api")
    return rounds.llm
