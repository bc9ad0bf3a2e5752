"""ALKDRecDataset: sessions and their rows inside RecBole, the ones that ``make_sessions`` would write.

A plain ``.inter`` file is cut into sessions, the sessions are split, and the training part is augmented;
benchmark files (``benchmark_filename: [train, valid, test]``) hold the split already. Every row of a part
carries its number in the field ``alkd_row``, by which the trainer finds the row's label in a shuffled batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType

from recbole_alkd.data.columns import ROW_FIELD
from recbole_alkd.data.filtering import FilteredClicks, split_settings
from recbole_alkd.data.rows import (
    Rows,
    cut_sessions,
    expand,
    split_sessions,
)
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.reading import settings_of

_GATHER = 1 << 16  # rows that are padded at once


class ALKDRecDataset(FilteredClicks):
    """Sessions as RecBole's users, histories with their targets as its rows.

    Fields of a batch: ``USER_ID_FIELD`` (the session), ``ITEM_ID_FIELD + LIST_SUFFIX`` (history, oldest
    first, padded with 0 on the right to the longest one, at most ``MAX_ITEM_LIST_LENGTH``: the last items are
    kept), ``ITEM_ID_FIELD`` (the target), ``ITEM_LIST_LENGTH_FIELD`` and ``alkd_row``. Nothing else: item
    titles are read by ``load_titles``, user features and timestamps are no input of a session model.

    RecBole's filters (``val_interval``, ``user_inter_num_interval``, ``item_inter_num_interval``,
    ``rm_dup_inter``, ...) work on a plain file, with the session as the user. Benchmark files are taken as
    they are, but for two things: training rows are brought to ``session_augmentation`` (several rows of one
    session, as ``augmentation="prefix"`` writes them, are one session), and histories are cut.
    After ``build`` this object holds the rows of all parts one after the other.

    Attributes of a part that ``build`` returns:
        row_is_last: (rows,) bool, whether the row's target is its session's last item;
            ``alkd_row`` indexes it.

    Raises:
        AlkdError: see ``split_settings`` and ``make_sessions``; benchmark files other than three,
            ``seq_len`` on the list field.
    """

    row_is_last: np.ndarray
    _kept: tuple[str, list[ALKDRecDataset]] | None = None  # words and parts of a set that was built already
    item_feat: Any

    def __init__(self, config: Any) -> None:
        self.settings = settings_of(config).session
        super().__init__(config)

    def _benchmark_presets(self) -> None:
        """Lengths and lists are made with the rows."""

    def _change_feat_format(self) -> None:
        """Turn the loaded clicks into rows of all parts (RecBole calls this once, when it splits
        the data)."""
        for name in self.feat_name_list:
            if name != "inter_feat":
                setattr(self, name, self._dataframe_to_interaction(getattr(self, name)))
        if self.benchmark_filename_list is None:
            uid, flat, offsets, parts = self._sessions_of_clicks()
        else:
            uid, flat, offsets, parts = self._sessions_of_benchmark()
        augmentation, longest = self.settings.session_augmentation, self.max_item_list_len
        rows = [
            expand(offsets, part, augmentation if k == 0 else "last", longest) for k, part in enumerate(parts)
        ]
        self._rows_last = [part.last for part in rows]
        train = np.full(self.user_num, -1)
        train[uid[parts[0]]] = parts[0]
        self._full = (train, flat, offsets)
        self._train_sessions = uid[parts[0]]
        for field in set(self.inter_feat) - {self.uid_field, self.iid_field, self.list_field}:
            self._del_col(self.inter_feat, field)
        self.inter_feat = self._interaction(uid, flat, rows)

    def _sessions_of_clicks(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
        """Session ids (n,), items (N,) session by session, offsets (n + 1,), and the sessions of the three
        parts."""
        session, uid = pd.factorize(self.inter_feat[self.uid_field].to_numpy())
        sessions = cut_sessions(session, self._time)
        ratios, order = split_settings(self.config["eval_args"])
        parts = split_sessions(sessions.ended, ratios, order, self.config["seed"])
        return uid, self.inter_feat[self.iid_field].to_numpy()[sessions.rows], sessions.offsets, parts

    def _sessions_of_benchmark(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
        """The same from (history, label) rows; the training rows of one session are put together again."""
        uid, histories = (
            self.inter_feat[self.uid_field].to_numpy(),
            self.inter_feat[self.list_field].to_numpy(),
        )
        length = np.array([len(history) for history in histories]) + 1
        end = np.cumsum(length)
        flat = np.empty(end[-1], dtype=np.int64)
        label = np.zeros(len(flat), dtype=bool)
        label[end - 1] = True
        flat[label], flat[~label] = self.inter_feat[self.iid_field].to_numpy(), np.concatenate(histories)

        train_rows = self.file_size_list[0]
        code = pd.factorize(uid[:train_rows])[0]
        order, again = np.arange(len(uid)), np.zeros(len(uid), dtype=bool)
        order[:train_rows] = np.argsort(code, kind="stable")
        # the row continues the session of the one before
        again[1:train_rows] = np.diff(code[order[:train_rows]]) == 0
        here, before = order[again], order[np.flatnonzero(again) - 1]
        torn = flat[end[here] - 2] != flat[end[before] - 1]
        if torn.any():
            session = str(self.id2token(self.uid_field, uid[here[torn.argmax()]]))
            raise AlkdError(
                f"{self.dataset_name}: session {session!r} has training rows that are not prefixes of one "
                "session, shortest first; "
                "give every session an id of its own"
            )
        size = np.where(again, 1, length[order])  # a row that continues a session adds its label only
        start = np.cumsum(size) - size
        place = np.arange(size.sum()) + np.repeat(end[order] - size - start, size)
        first = np.flatnonzero(~again)
        offsets = np.append(start[first], size.sum())
        sizes = [int((~again[:train_rows]).sum()), *self.file_size_list[1:]]
        return uid[order][first], flat[place], offsets, np.split(np.arange(len(first)), np.cumsum(sizes)[:2])

    def _interaction(self, uid: np.ndarray, flat: np.ndarray, parts: list[Rows]) -> Interaction:
        session = np.concatenate([rows.session for rows in parts])
        begin = np.concatenate([rows.begin for rows in parts])
        target = np.concatenate([rows.target for rows in parts])
        length = target - begin
        width = int(length.max())
        history = torch.zeros((len(target), width), dtype=torch.int64)
        for start in range(0, len(target), _GATHER):
            chosen = slice(start, start + _GATHER)
            place = begin[chosen, None] + np.arange(width)
            inside = place < target[chosen, None]
            history[chosen] = torch.from_numpy(np.where(inside, flat[np.where(inside, place, 0)], 0))
        for field, kind, size in (
            (self.list_field, FeatureType.TOKEN_SEQ, width),
            (self.item_list_length_field, FeatureType.TOKEN, 1),
            (ROW_FIELD, FeatureType.TOKEN, 1),
        ):
            self.set_field_property(field, kind, FeatureSource.INTERACTION, size)
        return Interaction(
            {
                self.uid_field: torch.from_numpy(uid[session].astype(np.int64)),
                self.list_field: history,
                self.iid_field: torch.from_numpy(flat[target].astype(np.int64)),
                self.item_list_length_field: torch.from_numpy(length),
                ROW_FIELD: torch.cat([torch.arange(len(rows)) for rows in parts]),
            }
        )

    def check_catalogue(self) -> None:
        """AlkdError when ``topk`` asks for more items than there are."""
        items, longest = self.item_num - 1, max(self.config["topk"])
        if longest > items:
            raise AlkdError(
                f"topk: {longest} is more than the {items} items of {self.dataset_name}; "
                f"allowed: at most {items}"
            )

    def build(self) -> list[ALKDRecDataset]:
        """The three parts, each with ``row_is_last``."""
        if self._kept is not None:
            return self._kept[1]
        self._change_feat_format()
        parts, start = [], 0
        for last in self._rows_last:
            part = self.copy(self.inter_feat[start : start + len(last)])
            part.row_is_last = last
            parts.append(part)
            start += len(last)
        return parts

    def keep_parts(self) -> None:
        """Build the parts now; ``build`` gives them, and ``str`` still speaks of what was loaded."""
        words = str(self)
        self._kept = words, self.build()

    def __str__(self) -> str:
        return super().__str__() if self._kept is None else self._kept[0]

    def backward_rows(self) -> Interaction:
        """The training rows that the training sessions give when they are read from their end,
        with -1 as ``alkd_row``."""
        items = [self.session_items(session)[::-1] for session in self._train_sessions]
        offsets = np.cumsum([0, *map(len, items)])
        rows = expand(
            offsets, np.arange(len(items)), self.settings.session_augmentation, self.max_item_list_len
        )
        made = self._interaction(self._train_sessions, np.concatenate(items), [rows])
        made[ROW_FIELD].fill_(-1)
        return made

    def session_items(self, session: int) -> np.ndarray:
        """All items of a training session, oldest first, as internal ids; ``session`` is its internal id.

        A benchmark file that was cut when it was written gives what it holds.
        AlkdError when the session is not in training.
        """
        train, flat, offsets = self._full
        at = train[session]
        if at < 0:
            raise self._not_training(session)
        return flat[offsets[at] : offsets[at + 1]]

    def items_of_sessions(self, sessions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``session_items`` of sessions (n,), one after the other, (N,), and where each begins, (n + 1,)."""
        train, flat, offsets = self._full
        at = train[sessions]
        if (at < 0).any():
            raise self._not_training(int(sessions[(at < 0).argmax()]))
        size = offsets[at + 1] - offsets[at]
        ends = np.cumsum(size)
        return flat[np.arange(size.sum()) + np.repeat(offsets[at] - (ends - size), size)], np.append(0, ends)

    def _not_training(self, session: int) -> AlkdError:
        token = str(self.id2token(self.uid_field, session))
        return AlkdError(f"session {token!r} is not a training session")
