"""What labels would cost, before anything is asked (``recbole-alkd label --dry-run``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from recbole_alkd.labelling.hints import hint_question
from recbole_alkd.labelling.rankings import questions_of
from recbole_alkd.labelling.supplies import Supplies
from recbole_alkd.labels.cost import read_bound, total
from recbole_alkd.labels.store import LabelStore
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.teacher.base import Instance, LLMTeacher, expected_of, most_of


@dataclass(frozen=True)
class Estimate:
    """What labels would take, before anything is asked. What a broken connection may cost twice is not in it.

    Attributes:
        wanted: instances. known: those whose label, ok or failed, is in the store.
            missing: those that would be asked.
        tokens, usd: what the missing ones take, about, the hints included where they are missing too.
        most_tokens, most_usd: upper bounds, with a second request for every instance. USD None: no price.
        hints: whether hints would be asked for.
        seconds: of asking about the missing ones on this machine; None where time is not the price,
            or was not measured.
        tried: how many of them were asked about to find that out.
        preparation_seconds, preparation: what comes before the first one is asked, such as LoRA.
        unmeasured: why a local LLM could not be tried.
    """

    wanted: int
    known: int
    missing: int
    tokens: int
    usd: float | None
    most_tokens: int
    most_usd: float | None
    hints: bool = False
    seconds: float | None = None
    tried: int = 0
    preparation_seconds: float = 0.0
    preparation: str = ""
    unmeasured: str = ""


def estimate_labels(
    teacher: LLMTeacher,
    instances: Sequence[Instance],
    store: LabelStore | None,
    supplies: Supplies | None = None,
) -> Estimate:
    """What ``collect_labels`` would ask and spend without a limit.
    Nothing is asked at a price, and nothing is stored.

    A local LLM is loaded and tried on a few instances, because time is its price. ``store`` None: there is
    none yet. ``supplies``: of the run, for the cases of hints.
    """
    questions = questions_of(teacher, instances)
    known = store.get_many(list(questions)) if store else {}
    missing = [instance for key, instance in questions.items() if key not in known]
    hints = hint_question(teacher, store, supplies) if missing else None
    before = list(teacher.text_costs(hints.messages)) if hints else []
    if missing:
        before += [
            read_bound(cost, "llm_teacher: preparation_cost") for cost in teacher.preparation_cost(store)
        ]
    about = total([*before[::2], *(expected_of(teacher, instance) for instance in missing)])
    most = total([*before[1::2], *(most_of(teacher, instance) for instance in missing)])
    nothing = None if missing else 0.0
    estimate = Estimate(
        wanted=len(instances),
        known=len(questions) - len(missing),
        missing=len(missing),
        tokens=about.tokens,
        usd=nothing if about.usd is None else about.usd,
        most_tokens=most.tokens,
        most_usd=nothing if most.usd is None else most.usd,
        hints=hints is not None,
    )
    try:
        measured = teacher.measure(missing) if missing else None
    except AlkdError as error:
        return replace(estimate, unmeasured=str(error))
    if measured is None:
        return estimate
    hint_tokens = before[0].tokens if before else 0
    return replace(estimate, **{**vars(measured), "tokens": measured.tokens + hint_tokens})
