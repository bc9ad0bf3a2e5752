"""Clicks as they are loaded and filtered inside RecBole, in exact time order,
before they are cut into sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from recbole.utils import FeatureSource

from recbole_alkd.data.loading import CheckedFiles
from recbole_alkd.data.rows import (
    check_split,
    cut_sessions,
    only_positions,
    window_index,
)
from recbole_alkd.data.sessions import positions_message
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import SessionSettings

ORDER_NAMES = {"RO": "random", "TO": "time"}


def split_settings(eval_args: dict[str, Any]) -> tuple[list[float], str]:
    """Ratios (summing to 1) and order ("random" or "time") from RecBole's ``eval_args``.

    Raises:
        AlkdError: anything but ``split: {RS: [train, valid, test]}, order: RO | TO, group_by: none``.
    """
    split, order, group_by = (eval_args.get(key) for key in ("split", "order", "group_by"))
    wanted = "use split: {RS: [0.6, 0.2, 0.2]}, order: RO (or TO), group_by: none"
    if not isinstance(split, dict) or list(split) != ["RS"]:
        raise AlkdError(
            f"eval_args: split {split!r} would put prefixes of valid and test sessions into training; "
            f"{wanted}"
        )
    if group_by not in (None, "none"):
        raise AlkdError(
            f"eval_args: group_by {group_by!r} would put prefixes of test sessions into training; {wanted}"
        )
    if order not in ORDER_NAMES:
        raise AlkdError(
            f"eval_args: order {order!r} is not allowed; allowed: RO (at random) | TO (by the time of the "
            "last click)"
        )
    ratios = split["RS"]
    if isinstance(ratios, list) and all(isinstance(r, (int, float)) for r in ratios) and sum(ratios) > 0:
        ratios = [r / sum(ratios) for r in ratios]  # RecBole takes [8, 1, 1] as well
    check_split(ratios, "eval_args, split RS")
    return ratios, ORDER_NAMES[order]


class FilteredClicks(CheckedFiles):
    """RecBole's loading and filters, in exact time order and without what silently drops rows.

    Attributes:
        settings: of sessions.
    """

    settings: SessionSettings
    _time: np.ndarray
    item_feat: Any

    def _load_inter_feat(self, token: str, dataset_path: str) -> None:
        if self.benchmark_filename_list is not None:
            self._load_benchmark(token, Path(dataset_path))
            return
        _, order = split_settings(self.config["eval_args"])
        unit, window = self.settings.session_time_unit, self.settings.session_window
        clicks = self._read_clicks(token, Path(dataset_path), unit)
        if window is not None:
            index = pd.Series(window_index(clicks.time, window, unit), index=self.inter_feat.index)
            self.inter_feat[self.uid_field] = self.inter_feat[self.uid_field] + "@" + index.astype(str)
        self._time = clicks.time
        if order == "time":
            session = pd.factorize(self.inter_feat[self.uid_field])[0]
            if only_positions(cut_sessions(session, clicks.time), clicks.time):
                raise AlkdError(positions_message(self.time_field, "eval_args order: RO"))

    def _load_user_or_item_feat(
        self, token: str, dataset_path: str, source: FeatureSource, field_name: str
    ) -> pd.DataFrame | None:
        if source is FeatureSource.USER:  # sessions are the users here, they have no features
            self.field2source[self.uid_field] = FeatureSource.USER_ID
            return None
        return super()._load_user_or_item_feat(token, dataset_path, source, field_name)

    def _load_data(self, token: str, dataset_path: str) -> None:
        super()._load_data(token, dataset_path)
        if self.benchmark_filename_list is not None:
            self._drop_item_features()

    def _set_alias(self, alias_name: str, default_value: list[str]) -> None:
        if alias_name == "item_id" and self.list_field in self.field2type:
            default_value = [*default_value, self.list_field]
        names = [*default_value, *(self.config[f"alias_of_{alias_name}"] or [])]
        self.alias[alias_name] = np.array(list(dict.fromkeys(filter(None, names))))

    def _data_filtering(self) -> None:
        super()._data_filtering()
        self._drop_item_features()

    def _filter_nan_user_or_item(self) -> None:
        """Clicks without an id are left out when they are read.
        RecBole's own drops rows that it counted before an earlier drop."""
        if self.item_feat is not None:
            self.item_feat.dropna(subset=[self.iid_field], inplace=True)

    def _filter_inter_by_user_or_item(self) -> None:
        """RecBole's, and it says what it leaves out."""
        before = len(self.inter_feat)
        super()._filter_inter_by_user_or_item()
        if len(self.inter_feat) < before:
            self.logger.warning(
                f"{self.dataset_name}: {before - len(self.inter_feat):,} of {before:,} clicks are left out, "
                "their items have no "
                f"row in {self.dataset_name}.item (filter_inter_by_user_or_item)"
            )

    def _remove_duplication(self) -> None:
        """RecBole's, in exact time order and with ties in file order."""
        keep = self.config["rm_dup_inter"]
        if keep is not None:
            order = np.argsort(self._time[self.inter_feat.index], kind="stable")
            kept = self.inter_feat.iloc[order].drop_duplicates(
                subset=[self.uid_field, self.iid_field], keep=keep
            )
            self.inter_feat = kept.sort_index()

    def _filter_by_inter_num(self) -> None:
        """RecBole's, repeated until no session is shorter than ``session_min_length``."""
        while True:
            if not self.inter_feat.empty:
                super()._filter_by_inter_num()
            if self.inter_feat.empty:
                raise AlkdError(
                    f"{self.dataset_name}: no click is left after the filters (val_interval, "
                    "user_inter_num_interval, "
                    "item_inter_num_interval, rm_dup_inter, filter_inter_by_user_or_item); filter less"
                )
            length = self.inter_feat.groupby(self.uid_field)[self.uid_field].transform("size")
            short = self.inter_feat.index[length < self.settings.session_min_length]
            if not len(short):
                return
            self.inter_feat.drop(short, inplace=True)
            if self.inter_feat.empty:
                least = self.settings.session_min_length
                raise AlkdError(
                    f"{self.dataset_name}: no session is left with {least} records (session_min_length); "
                    "lower it or filter less"
                )

    def _reset_index(self) -> None:
        # until here the index still says in which row of the file a click stood
        self._time = self._time[self.inter_feat.index]
        super()._reset_index()

    def _drop_item_features(self) -> None:
        """Item features served RecBole's filters; from here on they would be joined into every batch."""
        if self.item_feat is None:
            return
        for field in set(self.item_feat) - {self.iid_field}:
            for properties in (self.field2type, self.field2source, self.field2seqlen):
                properties.pop(field, None)
        self.item_feat = None
        self.feat_name_list = [name for name in getattr(self, "feat_name_list", []) if name != "item_feat"]
        self._rest_fields = np.array(
            [field for field in getattr(self, "_rest_fields", []) if field in self.field2type]
        )
