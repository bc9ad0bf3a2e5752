"""The examples of a study of LoRA, in a file: what a local LLM is tuned on and judged by,
so that it can be tuned elsewhere.

Made where the data set and its recommenders are (``recbole-alkd lora-examples``), used where an LLM is fast
(``recbole-alkd lora-curve``), without data set and recommender.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recbole_alkd.files import write_whole
from recbole_alkd.labelling.candidates import prefix_examples
from recbole_alkd.labelling.rounds import LabelRounds
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.identity import stage_seed
from recbole_alkd.teacher.base import LoraExample

POOLS = ("mixed", "natural")
# settings that the file brings along
KEPT = ("llm_candidates", "llm_history", "llm_title_tokens", "llm_prompt")
_FORM = 1
_HELD_OUT = 0.2  # share of the training sessions that judging examples are of


@dataclass(frozen=True)
class StudyExamples:
    """Examples of one data set.

    Attributes:
        dataset: its name. settings: those of ``KEPT``, and ``teacher_model``, for the record.
        titles: item token -> title, of the items that occur, and of all others,
            on which the rarity of words depends.
        mixed: training examples as they come, the target inserted where the recommender had not found it.
        natural: those whose target the recommender found. held_out: natural ones of other sessions,
            that judge.
        drawn, found: how many prefixes were looked at for all of them, and in how many the target was found.
    """

    dataset: str
    settings: Mapping[str, Any]
    titles: Mapping[str, str]
    mixed: tuple[LoraExample, ...]
    natural: tuple[LoraExample, ...]
    held_out: tuple[LoraExample, ...]
    drawn: int = 0
    found: int = 0

    def pool(self, name: str) -> tuple[LoraExample, ...]:
        """The training examples called ``name``, one of ``POOLS``."""
        return self.mixed if name == "mixed" else self.natural


def draw_study(rounds: LabelRounds, titles: Mapping[str, str], count: int, held_out: int) -> StudyExamples:
    """At most ``count`` examples of each pool, and ``held_out`` to judge by.

    The sessions are divided at random: a fifth for judging, the others for training. All candidates are of
    the recommender that never saw the session (cross-fitted).
    """
    rows, made = rounds.rows, rounds.rows.examples(rounds.folds)
    sessions = [rows.dataset.session_items(session) for session in rounds.folds.sessions]
    rng = np.random.default_rng(stage_seed(rounds.seed, "lora study"))
    judging = rng.random(len(sessions)) < _HELD_OUT
    every = prefix_examples(sessions, sum(map(len, sessions)), rng, max_per_session=8, fewer=True)
    for_training = [pair for pair in every if not judging[pair[0]]]
    for_judging = [pair for pair in every if judging[pair[0]]]
    judges = made.natural(for_judging, held_out)[1]
    mixed, natural, looked, natural_ones = [], [], 0, 0
    for start in range(0, len(for_training), size := max(2000, count)):
        part = made.of(for_training[start : start + size])
        looked, natural_ones = looked + len(part), natural_ones + sum(one.natural for one in part)
        mixed += part
        natural += [one for one in part if one.natural]
        if len(natural) >= count:
            break
    settings = {key: getattr(rounds.settings.teacher, key) for key in KEPT}
    settings["teacher_model"] = rows.dataset.config["teacher_model"]
    return StudyExamples(
        rows.dataset.config["dataset"],
        settings,
        dict(titles),
        tuple(mixed[:count]),
        tuple(natural[:count]),
        tuple(judges),
        looked,
        natural_ones,
    )


def write_study(file: Path, study: StudyExamples) -> None:
    """Write ``study`` to ``file`` as JSON, whole or not at all. Of histories, what an LLM would be shown."""
    shown = study.settings["llm_history"]
    items = sorted(study.titles)
    number = {item: k for k, item in enumerate(items)}

    def rows(examples: Sequence[LoraExample]) -> list[list[Any]]:
        return [
            [
                [number[i] for i in e.history[-shown:]],
                [number[i] for i in e.candidates],
                number[e.target],
                int(e.natural),
            ]
            for e in examples
        ]

    content = {
        "form": _FORM,
        "dataset": study.dataset,
        "settings": dict(study.settings),
        "drawn": study.drawn,
        "found": study.found,
        "items": items,
        "titles": [study.titles[item] for item in items],
        **{name: rows(getattr(study, name)) for name in (*POOLS, "held_out")},
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(content, separators=(",", ":")))


def read_study(file: Path) -> StudyExamples:
    """What ``write_study`` wrote.

    Raises:
        AlkdError: no such file, or another one.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["form"] != _FORM:
            raise ValueError(f"form {content['form']!r}")
        items, titles = [str(item) for item in content["items"]], [str(title) for title in content["titles"]]
        settings = dict(content["settings"])
        if not isinstance(settings["llm_candidates"], int):
            raise ValueError("llm_candidates is no whole number")
        "\n".join([*items, *titles]).encode()  # an escape of JSON may be half a character
        pools = {name: tuple(_example(items, *row) for row in content[name]) for name in (*POOLS, "held_out")}
        if not pools["held_out"]:
            raise ValueError("no held-out example, by which tuning is judged")
        return StudyExamples(
            str(content["dataset"]),
            settings,
            dict(zip(items, titles, strict=True)),
            drawn=int(content["drawn"]),
            found=int(content["found"]),
            **pools,
        )
    except OSError as error:
        raise AlkdError(
            f"{file}: {error.strerror}; allowed: a file that recbole-alkd lora-examples wrote"
        ) from None
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise AlkdError(
            f"{file}: no file that recbole-alkd lora-examples wrote ({type(error).__name__}: "
            f"{str(error)[:80]})"
        ) from None


def _example(
    items: Sequence[str], history: Sequence[int], candidates: Sequence[int], target: int, natural: int
) -> LoraExample:
    if min(*history, *candidates, target, 0) < 0:
        raise ValueError("a number of an item is below 0")
    if target not in candidates or len(set(candidates)) < max(2, len(candidates)):
        raise ValueError("a target is one of its candidates, of which there are at least two, all different")
    shown = tuple(items[k] for k in candidates)
    return LoraExample(tuple(items[k] for k in history), shown, items[target], bool(natural))
