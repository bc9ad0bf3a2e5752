"""`replay`: rankings that an LLM gave before, read from a file, as the paper's authors publish theirs of
GPT-4.

The file has one JSON object a line: ``{"session_id": "7", "ranking": ["318", "260", ...]}``; other keys are
ignored. With ``alkd_unit: item`` it is ``NAME.items.jsonl``, and a line has ``item_id`` in the place of
``session_id``. The recorded list decides: which candidates its LLM was shown is usually unknown, so a ranking
may hold items that are not among ``Instance.candidates``. Of all teachers only this one does that.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from recbole_alkd.registry import teachers
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import TeacherSettings
from recbole_alkd.teacher.base import Answer, Instance, LLMTeacher

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recordings:
    """Session (or item) -> the list that an LLM gave for it, never empty;
    the file they are from, and a hash of its content.

    ``unit``: what the lists are about, as ``alkd_unit``.
    """

    file: Path
    digest: str
    rankings: Mapping[str, tuple[str, ...]]
    unit: str = "session"


@teachers.register("replay")
class ReplayTeacher(LLMTeacher):
    """Answers from ``llm_replay_file``, or from ``NAME.llm.jsonl`` (of items:
    ``NAME.items.jsonl``) beside the data set's files."""

    needs_titles = False
    ranks_candidates_only = False
    instant = True
    takes_recommender_order = True  # no candidate decides

    @cached_property
    def _recordings(self) -> Recordings:
        unit = self.context.settings.selection.alkd_unit
        return read_recordings(
            self.context.settings.teacher, self.context.data_path, self.context.dataset, unit
        )

    @property
    def recorded(self) -> Mapping[str, tuple[str, ...]]:
        """Session -> the recorded list, as it stands in the file. Empty lists count as not recorded."""
        return self._recordings.rankings

    @property
    def identity(self) -> str:
        return f"replay|{self._recordings.digest}|top_n={self.context.settings.teacher.llm_top_n}"

    @property
    def origin(self) -> str:
        return f"read from {self._recordings.file}"

    def can_label(self, sessions: Sequence[str]) -> list[bool]:
        return [session in self.recorded for session in sessions]

    def prompt(self, instance: Instance) -> str:
        """Only the session decides: its recorded ranking does not depend on the candidates of this run."""
        return f"recorded ranking of {instance.noun} {instance.session}"

    def ask(self, instances: Sequence[Instance]) -> Iterator[tuple[Instance, Answer]]:
        for instance in instances:
            yield instance, self._answer(instance)

    def _answer(self, instance: Instance) -> Answer:
        ranking = self.recorded.get(instance.session)
        if ranking is None:
            return Answer(
                (), status="failed", raw=f"no ranking is recorded for {instance.noun} {instance.session}"
            )
        repairs: dict[str, int] = {}

        def keep(items: Sequence[str], why: str, dropped: Any) -> list[str]:
            kept = [item for item in items if not dropped(item)]
            if len(kept) < len(items):
                repairs[why] = len(items) - len(kept)
            return kept

        items = list(dict.fromkeys(ranking))
        if len(items) < len(ranking):
            repairs["duplicate"] = len(ranking) - len(items)
        known, session = self.context.titles or self.context.items, set(instance.history)
        if known:  # every item of the data set
            items = keep(items, "unknown", lambda item: item not in known)
        items = keep(items, "in_session", lambda item: item in session)
        items = items[: self.context.settings.teacher.llm_top_n]
        return Answer(
            tuple(items), raw=json.dumps(ranking), repairs=repairs, status="ok" if items else "failed"
        )


def read_recordings(
    settings: TeacherSettings, data_path: Path, dataset: str, unit: str = "session"
) -> Recordings:
    """The rankings in ``llm_replay_file``, or in ``NAME.llm.jsonl`` (of items:
    ``NAME.items.jsonl``) in ``data_path``.

    Raises:
        AlkdError: a file that cannot be read, or a line that is no ranking.
    """
    name = f"{dataset}.{'items' if unit == 'item' else 'llm'}.jsonl"
    file = Path(settings.llm_replay_file) if settings.llm_replay_file else data_path / name
    try:
        content = file.read_bytes()
    except OSError as error:
        raise AlkdError(
            f"llm_replay_file: {str(file)!r} cannot be read ({error.strerror}); "
            "needed is a file of recorded rankings, one "
            f'{{"{id_field(unit)}": ..., "ranking": [...]}} a line'
        ) from None
    rankings = {session: ranking for session, ranking in _read(file, content, id_field(unit)) if ranking}
    return Recordings(file, hashlib.sha256(content).hexdigest()[:16], rankings, unit)


def id_field(unit: str) -> str:
    """What a line of recorded rankings calls that which the ranking is about."""
    return f"{unit}_id"


def check_recordings(recordings: Recordings, sessions: Iterable[str], items: Iterable[str]) -> None:
    """See whether recorded rankings are of this data set; a partial match is counted and logged.

    Args:
        sessions: the training sessions; where the lists are about items, these. items: every item.

    Raises:
        AlkdError: no recorded session, or no recorded item, is one of them; it shows both kinds of id.
    """
    if not recordings.rankings:
        raise AlkdError(
            f"{recordings.file} holds no ranking, or empty ones alone; needed is one "
            f'{{"{id_field(recordings.unit)}": ..., "ranking": [item, ...]}} a line'
        )
    ranked = [item for ranking in recordings.rankings.values() for item in ranking]
    key = id_field(recordings.unit)
    recorded = {key: set(recordings.rankings), "ranking": set(ranked)}
    own = {key: set(sessions), "ranking": set(items)}
    words = {key: f"{recordings.unit} ids", "ranking": "items"}
    for name, ids in recorded.items():
        if not ids & own[name]:
            raise AlkdError(
                f"{recordings.file}: none of its {len(ids):,} {words[name]} ({_some(ids)}) is one of this "
                "data set's "
                f"{len(own[name]):,} ({_some(own[name])}); "
                "recorded rankings name sessions and items by their ids, as the data set's files do"
            )
    matching = len(recorded[key] & own[key])
    unknown = sum(item not in own["ranking"] for item in ranked)
    if matching < len(recorded[key]) or unknown:
        known = "training sessions" if recordings.unit == "session" else "items"
        logger.warning(
            f"{recordings.file}: rankings of {len(recorded[key]):,} {recordings.unit}s, "
            f"{matching:,} of which are {known} of this data set; "
            f"of the {len(ranked):,} items in the rankings {unknown:,} are not in it"
        )


def _some(ids: Iterable[str]) -> str:
    shown = sorted(ids)
    return ", ".join(repr(name[:40]) for name in shown[:3]) + (", ..." if len(shown) > 3 else "")


def _is_id(value: Any) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool)


def _read(file: Path, content: bytes, key: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    seen: dict[str, int] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise AlkdError(f"{file}, line {number}: not readable as JSON: {error}") from None
        session, ranking = (
            (record.get(key), record.get("ranking")) if isinstance(record, dict) else (None, None)
        )
        if not _is_id(session) or not isinstance(ranking, list):
            raise AlkdError(f'{file}, line {number}: {{"{key}": ..., "ranking": [item, ...]}} is expected')
        if not all(map(_is_id, ranking)):
            raise AlkdError(f"{file}, line {number}: a ranking holds item ids only (text or integers)")
        if str(session) in seen:
            raise AlkdError(
                f"{file}, line {number}: {key[:-3]} {str(session)!r} stands in line {seen[str(session)]} "
                "already"
            )
        seen[str(session)] = number
        yield str(session), tuple(map(str, ranking))
