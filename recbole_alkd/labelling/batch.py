"""OpenAI Batch files for the API teacher: half the price, an answer within a day, and no connection of ours.

``write_batch`` writes what is missing from the label store as one request a line; the user uploads the file
and downloads the output; ``read_batch`` puts its answers into the store, under the same keys as if they had
been asked one by one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recbole_alkd.files import json_line, write_whole
from recbole_alkd.labelling.bill import Bill
from recbole_alkd.labelling.hints import hints_of
from recbole_alkd.labelling.rankings import questions_of
from recbole_alkd.labelling.supplies import Supplies
from recbole_alkd.labels.budget import Budget
from recbole_alkd.labels.cost import Cost, total
from recbole_alkd.labels.store import Label, LabelStore
from recbole_alkd.llm.replies import lenient_json
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.teacher.api.teacher import ApiTeacher
from recbole_alkd.teacher.base import Instance, Materials, bound_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchRequest:
    """What a batch file asks for.

    Attributes:
        requests: lines of the file. known: instances whose label, ok or failed, is in the store.
        missing: instances that did not fit the budget; ``ended`` says which limit.
        tokens, usd: upper bounds for the whole file; ``usd`` None without a price.
        hints: what the hints in its prompts took, which are asked for at once; nothing where they were kept.
    """

    requests: int
    known: int
    missing: int
    tokens: int
    usd: float | None
    ended: str | None
    hints: Cost


@dataclass(frozen=True)
class BatchAnswers:
    """What came of a batch file.

    Attributes:
        bill: of the answers that were new to the store.
        stored: labels that were put, failed ones included. known: answers whose key the store had.
        foreign: answers to questions that are none of these instances.
            unanswered: requests that ended in an error.
        unreadable: the lines that are no line of such a file, by number and reason.
    """

    bill: Bill
    stored: int
    known: int
    foreign: int
    unanswered: int
    unreadable: tuple[str, ...] = ()


def write_batch(
    teacher: ApiTeacher,
    instances: Sequence[Instance],
    store: LabelStore,
    budget: Budget,
    file: Path,
    supplies: Supplies | None = None,
) -> BatchRequest:
    """Write the requests for what is missing from the store to ``file``, as far as upper bounds fit the
    budget.

    Hints are asked for at once when they are wanted and not kept yet, because the requests hold them.
    """
    questions = questions_of(teacher, instances)
    stored = store.get_many(list(questions))
    missing = {key: instance for key, instance in questions.items() if key not in stored}
    paid = Cost()
    if missing:
        rules, paid = hints_of(teacher, store, budget, supplies)
        teacher.take(Materials(hints=rules))
    lines, ended, most = [], None, Cost()
    for key, instance in missing.items():
        bound = bound_of(teacher, instance).at(teacher.batch_share)
        if budget.reserve(bound.tokens, bound.usd) is None:
            ended = budget.refusal
            break
        most += bound
        body = {
            "model": teacher.settings.llm_model,
            "messages": list(teacher.messages(instance)),
            # OpenAI's own name, which all its models know
            "max_completion_tokens": teacher.answer_tokens(instance),
            "temperature": 0,
        }
        lines.append(
            json_line({"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body})
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, "".join(lines))
    return BatchRequest(
        len(lines), len(stored), len(missing) - len(lines), most.tokens, most.usd, ended, paid
    )


def read_batch(
    teacher: ApiTeacher, instances: Sequence[Instance], store: LabelStore, file: Path
) -> BatchAnswers:
    """Put the answers of a batch's output file into the store. Reading a file twice changes nothing.

    An answer without a usable ranking becomes a failed label; a request that ended in an error is left to be
    asked again. A line that cannot be read is named and left out.

    Raises:
        AlkdError: a file that cannot be read, or none of whose lines can.
    """
    questions, identity = questions_of(teacher, instances), teacher.identity
    labels, foreign, unanswered = [], 0, 0
    lines, unreadable = _read_lines(file)
    for key, body in lines:
        instance = questions.get(key)
        if instance is None:
            foreign += 1
        elif body is None:
            unanswered += 1
        else:
            answer = teacher.read_answer(instance, body)
            labels.append(
                Label(
                    key=key,
                    ranking=answer.ranking,
                    candidates=instance.candidates,
                    raw=answer.raw,
                    repairs=answer.repairs,
                    **vars(replace(answer.cost.at(teacher.batch_share), seconds=0.0)),
                    status=answer.status,
                    teacher=identity,
                    time=time.time(),
                )
            )
    before = store.get_many([label.key for label in labels])
    # a label that is there stays, unless it failed and this one has not
    new = [x for x in labels if x.key not in before or (before[x.key].status, x.status) == ("failed", "ok")]
    stored = store.put_many(new)
    if foreign:
        logger.warning(
            "%s: %d answers are to other questions than those of this data set and these settings",
            file,
            foreign,
        )
    bill = Bill(
        asked=len(new),
        reused=len(labels) - len(new),
        failed=sum(label.status == "failed" for label in new),
        repaired=sum(bool(label.ranking and label.repairs) for label in new),
        cost=total(label.cost for label in new),
    )
    return BatchAnswers(bill, stored, len(labels) - len(new), foreign, unanswered, tuple(unreadable))


def _read_lines(file: Path) -> tuple[list[tuple[str, Any]], list[str]]:
    """(custom_id, the response's body or None when the request failed) of every line that is one,
    and what the others are."""
    try:
        # a string may hold any other line separator
        lines = file.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise AlkdError(f"batch file {str(file)!r} cannot be read: {error}") from None
    responses: list[tuple[str, Any]] = []
    unreadable: list[str] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        record = lenient_json(line.decode("utf-8", "replace"))
        response = record.get("response") if isinstance(record, dict) else None
        if not (
            isinstance(record, dict) and isinstance(record.get("custom_id"), str) and "response" in record
        ):
            unreadable.append(
                f"line {number}: no line of a batch's output file (custom_id and response are needed)"
            )
        elif (
            not isinstance(response, dict) or str(response.get("status_code")) != "200" or record.get("error")
        ):
            responses.append((record["custom_id"], None))
        else:
            # what was answered was paid for, whatever it is
            responses.append((record["custom_id"], response.get("body") or {}))
    if unreadable and not responses:
        raise AlkdError(f"{file}, {unreadable[0]}")
    for problem in unreadable[:20]:
        logger.warning("%s, %s; it is left out", file, problem)
    return responses, unreadable
