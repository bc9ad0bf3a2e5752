"""Recommendations from a bundle, in the user's own ids, without torch and without RecBole."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recbole_alkd.serving.items import Found, Items
from recbole_alkd.serving.manifest import MANIFEST, read_manifest
from recbole_alkd.serving.student_kinds import read_student
from recbole_alkd.serving.students import Student
from recbole_alkd.settings.error import AlkdError

BUNDLE, TEACHER_BUNDLE = "bundle", "teacher-bundle"  # folders in a run folder
_NOBODY = np.zeros(0, dtype=np.int64)
_LARGEST = 10**100  # an integer that is taken for an id is smaller


class Recommendation(NamedTuple):
    """An item for a session. ``title`` is somebody else's text ("" without one):
    to be shown, never taken for markup."""

    item: str
    title: str
    score: float


_RECOMMENDATION = partial(tuple.__new__, Recommendation)  # what the class does, without a frame for each item


class Reason(NamedTuple):
    """A part of a score.

    Attributes:
        source: the item of the session that it comes from; None where it comes from no single one.
        item: the item that is scored.
        kind: counted (clicks of training sessions), repeat (the item is in the session itself), title, llm
            (an LLM's list), popularity; learned (embeddings) and together (what an encoder makes of several
            items at once).
        weight: what it adds to the score.
    """

    source: str | None
    item: str
    kind: str
    weight: float


class Recommender:
    """The student of a bundle.

    It may be used by several threads at once: nothing changes after loading but ``ignored``.

    Attributes:
        path: the bundle. manifest: what ``manifest.json`` holds.
        items: ids, titles and counts by number. student: scores by number.
        max_length: how many of a session's newest known items count, as in training.
        ignored: how many unknown ids were ignored since loading.

    Example:
        >>> recommender = Recommender.load("bundle")
        >>> for item, title, score in recommender.recommend(["50", "181", "174"], k=10):
        ...     print(item, title, score)
    """

    def __init__(self, path: Path, manifest: dict[str, Any], threads: int = 1) -> None:
        self.path, self.manifest = path, manifest
        self.items = Items.read(path)
        facts = manifest["student"]
        self.max_length = facts.get("max_length")
        if not isinstance(self.max_length, int) or isinstance(self.max_length, bool) or self.max_length < 1:
            raise AlkdError(f"{path / MANIFEST}: max_length {self.max_length!r}; the bundle is damaged")
        self.student: Student = read_student(path, facts, self.items.counts, self.items.popular, threads)
        self.ignored = 0

    @classmethod
    def load(cls, path: str | Path, *, verify: bool = False, threads: int = 1) -> Recommender:
        """Open a bundle, or the one in a finished run's folder.

        Args:
            path: the folder. verify: hash every file of it first (``manifest.py`` says what is hashed
                otherwise).
            threads: of ONNX Runtime, where the backbone needs it.

        Raises:
            AlkdError: no bundle, one of another format version, or a damaged one; the message names the file.
        """
        folder = find_bundle(path)
        return cls(folder, read_manifest(folder, verify), threads)

    def recommend(
        self,
        history: Sequence[Any],
        k: int = 10,
        *,
        exclude_history: bool = True,
        unknown: str = "ignore",
        allowed: Iterable[Any] | None = None,
        blocked: Iterable[Any] | None = None,
    ) -> Any:
        """The ``k`` best items after a session, best first; of equal scores the item that came first into the
        catalogue.

        Args:
            history: the session's item ids, oldest first; text, or integers, which are taken for their
                digits. A list of such lists gives a list of results.
                Of a long one the newest ``max_length`` known items count.
            k: how many; fewer come where there are no more.
            exclude_history: leave out the items of the session.
            unknown: what is done with ids that are not in the catalogue: "ignore" (and count, ``ignored``) or
                "error". A session of which nothing is known is served by popularity.
            allowed: ids of the only items that may come. blocked: ids of items that may not. Those that are
                not in the catalogue have no effect.

        Returns:
            A list of ``Recommendation``; a list of such lists for a list of histories.

        Raises:
            AlkdError: an argument that is none of these, or an unknown id with ``unknown="error"``.
        """
        limit = at_least_one(k)
        if unknown not in ("ignore", "error"):
            raise AlkdError(f"unknown: {unknown!r} is not allowed; allowed: ignore | error")
        only = None if allowed is None else np.unique(self._known("allowed", allowed))
        never = _NOBODY if blocked is None else self._known("blocked", blocked)
        many = _is_list(history) and len(history) > 0 and _is_list(history[0]) and all(map(_is_list, history))
        lists = []
        for one in history if many else [history]:
            numbers = self.numbers(one, unknown)
            banned = (
                never if not exclude_history else np.concatenate([never, numbers]) if len(never) else numbers
            )
            lists.append(self._shown(*self.top(numbers, limit, banned, only)))
        return lists if many else lists[0]

    def numbers(self, history: Sequence[Any], unknown: str = "ignore") -> np.ndarray:
        """The numbers of the known items of a session, in its order.

        Raises:
            AlkdError: no list of ids, or an unknown one with ``unknown="error"``.
        """
        if not _is_list(history):
            raise AlkdError(
                f"history: {short(history)} is not allowed; allowed: a list of item ids, oldest first"
            )
        ids = [one if type(one) is str else item_id("history", one) for one in history]
        numbers = self.items.numbers(ids)
        if np.count_nonzero(numbers) < len(ids):
            if unknown == "error":
                missing = ids[int((numbers == 0).argmax())]
                raise AlkdError(
                    f"history: {short(missing)} is not in the catalogue of {self.items.n_items - 1:,} items"
                )
            numbers = numbers[numbers > 0]
            self.ignored += len(ids) - len(numbers)
        return numbers

    def top(
        self, numbers: np.ndarray, k: int, banned: np.ndarray, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """``recommend`` in numbers of items: (k,) items and scores. ``allowed`` is rising."""
        if not len(numbers):
            return self.student.top_popular(k, banned, allowed)
        return self.student.top(numbers[-self.max_length :], k, banned, allowed)

    def scores(self, history: Sequence[Any]) -> np.ndarray:
        """Scores of every item, (n_items,) float32 by number, nothing masked; 0 is the padding."""
        numbers = self.numbers(history)
        if not len(numbers):
            return np.float32(1e-7) * self.items.counts.astype(np.float32)
        return self.student.scores(numbers[-self.max_length :])

    def explain(self, history: Sequence[Any], item: Any) -> list[Reason]:
        """What the score of ``item`` after this session is made of, the largest part first;
        the weights sum to the score.

        For a table this is the sum itself: every edge from an item of the session, by what the edge came
        from. For SessionFPMC it is the share of each item in the inner product. Other backbones are no sums
        over items: there a part is what the score loses without that item, and what is left stands under
        ``together``.

        Raises:
            AlkdError: an unknown item.
        """
        number = self.items.number(item_id("item", item))
        if not number:
            raise AlkdError(
                f"item: {short(item)} is not in the catalogue of {self.items.n_items - 1:,} items"
            )
        session = self.numbers(history)[-self.max_length :]
        name = self.items.id(number)
        if not len(session):
            return [
                Reason(
                    None, name, "popularity", float(np.float32(1e-7) * np.float32(self.items.counts[number]))
                )
            ]
        parts: dict[tuple[int | None, str], float] = {}
        for place, kind, weight in self.student.parts(session, number):
            key = (None if place is None else int(session[place]), kind)
            parts[key] = parts.get(key, 0.0) + weight
        reasons = [
            Reason(None if one is None else self.items.id(one), name, kind, weight)
            for (one, kind), weight in parts.items()
        ]
        return sorted(reasons, key=lambda reason: -abs(reason.weight))

    def find(self, text: str, limit: int = 10) -> list[Found]:
        """Items by their id or by words of their title, the most popular first;
        near ones where none has them."""
        if not isinstance(text, str):
            raise AlkdError(f"text: {short(text)} is not allowed; allowed: text")
        return self.items.find(text, at_least_one(limit, "limit"))

    def _shown(self, items: np.ndarray, scores: np.ndarray) -> list[Recommendation]:
        return list(
            map(
                _RECOMMENDATION,
                zip(self.items.ids(items), self.items.titles(items), scores.tolist(), strict=True),
            )
        )

    def _known(self, name: str, items: Iterable[Any]) -> np.ndarray:
        if isinstance(items, (str, bytes, dict)) or not isinstance(items, Iterable):
            raise AlkdError(f"{name}: {short(items)} is not allowed; allowed: item ids")
        ids = [item_id(name, one) for one in items]
        numbers = self.items.numbers(ids)
        return numbers[numbers > 0]


def find_bundle(path: str | Path) -> Path:
    """The folder of a bundle: ``path``, or the one in a finished run's folder.
    AlkdError where there is no folder."""
    folder = Path(path)
    if not folder.is_dir():
        raise AlkdError(f"{folder}: no such folder; allowed: a bundle or a finished run's folder")
    inner = folder / BUNDLE
    return inner if not (folder / MANIFEST).exists() and (inner / MANIFEST).exists() else folder


def run_of(path: str | Path) -> Path:
    """The folder of a run, given that or the bundle in it."""
    folder = Path(path)
    return folder.parent if folder.name == BUNDLE and (folder / MANIFEST).exists() else folder


def find_teacher(path: str | Path) -> Path | None:
    """The bundle of the teacher recommender in a run's folder, given that or the bundle in it; None without
    one."""
    teacher = run_of(path) / TEACHER_BUNDLE
    return teacher if (teacher / MANIFEST).exists() else None


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple, np.ndarray))


def item_id(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and abs(int(value)) < _LARGEST:
        return str(int(value))
    raise AlkdError(f"{name}: {short(value)} is no item id; allowed: text or an integer")


def at_least_one(value: Any, name: str = "k") -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if isinstance(value, bool) or number < 1:
        raise AlkdError(f"{name}: {short(value)} is not allowed; allowed: an integer of at least 1")
    return number


def short(value: Any) -> str:
    """A value as an error shows it, whatever its size."""
    try:
        words = repr(value[:50] if isinstance(value, (str, bytes, list, tuple, np.ndarray)) else value)
    except ValueError:  # Python writes no integers of thousands of digits
        words = f"a value of type {type(value).__name__} that is too large"
    return words if len(words) <= 80 else f"{words[:77]}..."
