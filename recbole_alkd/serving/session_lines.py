"""The lines of a file of sessions: what a line asks for, and the lines that answer many at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from recbole_alkd.serving.recommender import Recommender, item_id, short
from recbole_alkd.settings.error import AlkdError

LONGEST = 1 << 24  # bytes of a line
_KEPT = 1 << 19  # ids and numbers whose look-up is remembered


class SessionLines:
    """Reads sessions and writes their answers.

    Args:
        recommender: who answers. file: what errors name.
        k, exclude_history, titles: as ``recommend_file`` has them.
    """

    def __init__(
        self, recommender: Recommender, file: Path, k: int, exclude_history: bool, titles: bool
    ) -> None:
        self.recommender, self.file = recommender, file
        self.k, self.exclude_history, self.titles = k, exclude_history, titles
        self.numbers: dict[str, int] = {}
        self.names: dict[int, str] = {}

    def session(self, line: bytes, number: int) -> tuple[str | None, list[str]] | None:
        """What the session is known by (JSON), and its ids; None for a blank line, AlkdError for what is no
        session."""
        if line.isspace():
            return None
        place = f"{self.file}:{number}"
        if len(line) > LONGEST:
            raise AlkdError(f"{place}: more than {LONGEST >> 20} MiB in one line")
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise AlkdError(f"{place}: {short(line.decode('utf-8', 'replace'))} is no JSON") from None
        name = None
        if isinstance(record, dict):
            other = record.keys() - {"history", "session"}
            if other or "history" not in record:
                wrong = f"{short(min(other))} is not understood" if other else "no history"
                raise AlkdError(f"{place}: {wrong}; allowed: history, session")
            if "session" in record:
                name = json.dumps(record["session"], ensure_ascii=False)
            record = record["history"]
        if not isinstance(record, list):
            raise AlkdError(
                f"{place}: {short(record)} is not allowed; allowed: a list of item ids, oldest first"
            )
        return name, [one if type(one) is str else item_id(place, one) for one in record]

    def answers(self, sessions: list[tuple[str | None, list[str]]]) -> tuple[bytes, int]:
        """The lines of sessions, and how many of their ids are unknown."""
        recommender, student = self.recommender, self.recommender.student
        look_up = self._look_up([one for _, ids in sessions for one in ids])
        known = [[number for number in map(look_up.__getitem__, ids) if number] for _, ids in sessions]
        unknown = sum(len(ids) for _, ids in sessions) - sum(map(len, known))
        places = [place for place, numbers in enumerate(known) if numbers]
        nobody = np.zeros(0, dtype=np.int64)
        ranked: list[tuple[list[int], list[float]]] = [([], [])] * len(sessions)
        if places:
            every = [np.array(known[place], dtype=np.int64) for place in places]
            banned = every if self.exclude_history else [nobody] * len(every)
            items, scores, many = student.top_many(
                [one[-recommender.max_length :] for one in every], self.k, banned
            )
            names, values, end = items.tolist(), scores.tolist(), 0
            for place, count in zip(places, many.tolist(), strict=True):
                begin, end = end, end + count
                ranked[place] = names[begin:end], values[begin:end]
        if len(places) < len(sessions):
            items, scores = student.top_popular(self.k, nobody)
            popular = items.tolist(), scores.tolist()
            ranked = [one if numbers else popular for one, numbers in zip(ranked, known, strict=True)]
        self._name([number for numbers, _ in ranked for number in numbers])
        names_of = self.names.__getitem__
        lines = []
        for (name, _), (numbers, values) in zip(sessions, ranked, strict=True):
            head = "" if name is None else f'"session": {name}, '
            shown = ", ".join(map(names_of, numbers))
            lines.append(
                f'{{{head}"items": [{shown}], "scores": '
                f"[{', '.join([f'{value:.7g}' for value in values])}]}}\n"
            )
        return "".join(lines).encode("utf-8", "replace"), unknown

    def _look_up(self, ids: list[str]) -> dict[str, int]:
        """The number of every id (or title), 0 for an unknown one."""
        if len(self.numbers) > _KEPT:
            self.numbers.clear()
        missing = list({one for one in ids if one not in self.numbers})
        if missing:
            items = self.recommender.items
            numbers = items.numbers(missing)
            if self.titles and not numbers.all():
                unknown = np.flatnonzero(numbers == 0)
                numbers[unknown] = items.titled([missing[place] for place in unknown.tolist()])
            self.numbers.update(zip(missing, numbers.tolist(), strict=True))
        return self.numbers

    def _name(self, numbers: list[int]) -> None:
        """Have the ids of items at hand, as JSON."""
        if len(self.names) > _KEPT:
            self.names.clear()
        missing = list({one for one in numbers if one not in self.names})
        if missing:
            ids = self.recommender.items.ids(np.array(missing))
            self.names.update(zip(missing, (json.dumps(one, ensure_ascii=False) for one in ids), strict=True))
