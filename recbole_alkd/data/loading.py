"""RecBole's sequential data set on files that our own readers read and check first."""

from __future__ import annotations

import glob
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from recbole.data.dataset import SequentialDataset
from recbole.utils import FeatureSource, FeatureType

from recbole_alkd.data.benchmark import check_rows
from recbole_alkd.data.columns import check_columns, check_files
from recbole_alkd.data.frames import frame_of, read_columns
from recbole_alkd.data.reading import TIME_UNITS, Clicks, read_clicks
from recbole_alkd.data.rows import PARTS
from recbole_alkd.data.tables import clean_id, existing
from recbole_alkd.settings.error import AlkdError

_BY_NAME = {kind.value: kind for kind in FeatureType}


class CheckedFiles(SequentialDataset):
    """Loads ``.inter`` and ``.item`` files without pandas' reader.

    The columns that a session needs (user, item, time; session, list, item of benchmark files) are read
    whatever ``load_col`` says, and ids are text whatever their header says.
    """

    inter_feat: Any

    def __init__(self, config: Any) -> None:
        self.list_field = config["ITEM_ID_FIELD"] + config["LIST_SUFFIX"]
        _check_columns(config)
        for level, note in getattr(config, "alkd_notes", ()):
            getLogger().log(level, note)
        super().__init__(config)

    def _get_download_url(self, url_file: str, allow_none: bool = False) -> Any:
        try:
            return super()._get_download_url(url_file, allow_none)
        except ValueError:
            raise AlkdError(
                f"dataset: no folder {self.dataset_path!r}, and RecBole knows no data set "
                f"{self.dataset_name!r} to download; "
                "data_path is the folder above it"
            ) from None

    def _wanted(self, source: Any) -> set[str] | None:
        """Columns of ``source`` that the settings ask for; None: all."""
        source = getattr(source, "value", source)
        load, unload = self.config["load_col"], self.config["unload_col"] or {}
        if load is not None and load.get(source, ()) not in ("*", None):
            return set(load.get(source, ()))
        if source in unload:
            path = existing(Path(self.dataset_path) / f"{self.dataset_name}.{source}")
            if path is not None:
                return set(read_columns(path, None, *self._form).texts) - set(unload[source])
        return set() if load is not None and source not in load else None

    @property
    def _form(self) -> tuple[str, str | None]:
        """Separator and encoding of the files."""
        return self.config["field_separator"], self.config["encoding"]

    def _load_data(self, token: str, dataset_path: str) -> None:
        check_files(self.config.final_config_dict, Path(dataset_path), token)
        super()._load_data(token, dataset_path)
        check_columns(
            self.config.final_config_dict, {name: kind.value for name, kind in self.field2type.items()}
        )

    # clicks

    def _read_clicks(self, token: str, folder: Path, time_unit: str | None) -> Clicks:
        """The clicks of ``NAME.inter``, and ``inter_feat`` made of them; what is left out is said."""
        path = existing(folder / f"{token}.inter")
        if path is None:
            raise AlkdError(_no_clicks(token, folder))
        wanted = self._wanted(FeatureSource.INTERACTION)
        clicks = read_clicks(
            path, self.uid_field, self.iid_field, self.time_field, time_unit, *self._form, others=wanted
        )
        if not len(clicks.user):
            raise AlkdError(
                f"{path}: no clicks ({clicks.rows:,} rows, {len(clicks.blank):,} of them without user or "
                "item)"
            )
        if clicks.left_out():
            self.logger.warning(clicks.left_out())
        columns = {
            self.uid_field: np.array(clicks.users, dtype=object)[clicks.user],
            self.iid_field: np.array(clicks.items, dtype=object)[clicks.item],
        }
        kinds = {self.uid_field: "token", self.iid_field: "token"}
        if wanted is None or self.time_field in wanted:
            columns[self.time_field] = clicks.time / (1 if time_unit is None else TIME_UNITS[time_unit])
            kinds[self.time_field] = "float"
        others = {name: texts for name, texts in clicks.others.items() if name not in columns}
        kinds |= {name: clicks.kinds[name] for name in others}
        frame = frame_of(path, others, kinds, clicks.line.tolist(), self.config["seq_separator"])
        self.inter_feat = self._with_properties(
            pd.DataFrame({**columns, **frame}), kinds, FeatureSource.INTERACTION
        )
        return clicks

    # benchmark files

    def _load_benchmark(self, token: str, folder: Path) -> None:
        names = self.benchmark_filename_list
        if not isinstance(names, (list, tuple)) or len(names) != len(PARTS):
            raise AlkdError(
                f"benchmark_filename: {names!r} is not allowed; allowed: three names, [train, valid, test]"
            )
        if self.list_field in (self.config["seq_len"] or {}):
            raise AlkdError(
                f"seq_len: {self.list_field} keeps the first items of a session; "
                "use MAX_ITEM_LIST_LENGTH, which keeps the last"
            )
        needed = (self.uid_field, self.list_field, self.iid_field)
        wanted = self._wanted(FeatureSource.INTERACTION)
        parts = []
        for name in names:
            path = existing(folder / f"{token}.{name}.inter")
            if path is None:
                raise AlkdError(
                    f"benchmark_filename: no file {token}.{name}.inter in {str(folder)!r}; "
                    f"there are {_inter_files(token, folder)}"
                )
            part = read_columns(path, None if wanted is None else wanted | set(needed), *self._form)
            missing = [field for field in needed if field not in part.texts]
            if missing:
                raise AlkdError(
                    f"{path}: no column {', '.join(missing)}; "
                    f"it has {', '.join(part.texts)}: set USER_ID_FIELD and "
                    "ITEM_ID_FIELD to what the file has"
                )
            parts.append(part)
        separator = self.config["seq_separator"]
        check_rows(parts, *needed, separator, self._described)
        kinds = {**parts[0].kinds, self.uid_field: "token", self.iid_field: "token"}
        shared = [name for name in kinds if all(name in part.texts for part in parts)]
        frames = [
            frame_of(part.path, {name: part.texts[name] for name in shared}, kinds, part.line, separator)
            for part in parts
        ]
        self.file_size_list = [len(frame) for frame in frames]
        self.inter_feat = self._with_properties(
            pd.concat(frames, ignore_index=True), kinds, FeatureSource.INTERACTION
        )

    def _described(self) -> set[str]:
        """The ids of the ``.item`` file, where there is one."""
        path = existing(Path(self.dataset_path) / f"{self.dataset_name}.item")
        if path is None:
            return set()
        return {
            clean_id(text)
            for text in read_columns(path, [self.iid_field], *self._form).texts.get(self.iid_field, [])
        }

    # other files

    def _load_feat(self, filepath: str, source: Any) -> pd.DataFrame | None:
        """A file of features (``.item``, ``.user``, ...) as RecBole's own method gives it."""
        wanted = self._wanted(source)
        if wanted == set():
            return None
        path = Path(filepath)
        if source is FeatureSource.ITEM and wanted is not None:
            wanted.add(self.iid_field)
        columns = read_columns(path, wanted, *self._form)
        if not columns.texts:
            self.logger.warning(
                f"{path.name}: none of the columns of load_col is there ({', '.join(sorted(wanted or ()))})"
            )
            return None
        kinds = {name: "token" if name == self.iid_field else kind for name, kind in columns.kinds.items()}
        frame = frame_of(path, columns.texts, kinds, columns.line, self.config["seq_separator"])
        return self._with_properties(frame, kinds, source)

    # what RecBole makes of other columns, which no session model sees (``columns.WITHOUT_EFFECT``)

    def _set_label_by_threshold(self) -> None:
        """Nothing: sessions have no labels of 0 and 1."""

    def _normalize(self) -> None:
        """Nothing: a batch holds no numbers."""

    def _discretization(self) -> None:
        """Nothing: a batch holds no numbers."""

    def _preload_weight_matrix(self) -> None:
        """Nothing: no session model asks for such a matrix."""

    def _drop_unused_col(self) -> None:
        """Nothing: what a batch does not need is gone already, and the rest is needed."""

    def _with_properties(self, frame: pd.DataFrame, kinds: dict[str, str], source: Any) -> pd.DataFrame:
        """Tell RecBole what the columns are; sequences are cut as ``seq_len`` says."""
        cut = self.config["seq_len"] or {}
        for name in frame:
            kind = _BY_NAME[kinds[name]]
            longest = 1
            if kind in (FeatureType.TOKEN_SEQ, FeatureType.FLOAT_SEQ):
                if name in cut:
                    frame[name] = [values[: cut[name]] for values in frame[name]]
                longest = max(map(len, frame[name]), default=0)
            self.field2type[name], self.field2source[name], self.field2seqlen[name] = kind, source, longest
            if kind in (FeatureType.FLOAT, FeatureType.FLOAT_SEQ):
                self.field2bucketnum[name] = 2
        return frame


def _check_columns(config: Any) -> None:
    """``load_col`` and ``unload_col`` are mappings from a suffix to names, and not both speak of one file."""
    for key in ("load_col", "unload_col"):
        value = config[key]
        good = value is None or isinstance(value, dict)
        good = good and all(v in ("*", None) or isinstance(v, (list, tuple)) for v in (value or {}).values())
        if not good:
            raise AlkdError(
                f"{key}: {value!r} is not allowed; allowed: {{inter: [user_id, item_id, timestamp]}} or ~"
            )
    both = set(config["load_col"] or {}) & set(config["unload_col"] or {})
    if both:
        raise AlkdError(
            f"unload_col: not allowed beside load_col for one file ({', '.join(sorted(both))}); "
            "give one of the two"
        )


def _inter_files(token: str, folder: Path) -> str:
    names = sorted(path.name for path in folder.glob(f"{glob.escape(token)}*.inter*"))
    return ", ".join(names[:6]) or "no .inter files of that name"


def _no_clicks(token: str, folder: Path) -> str:
    parts = all(existing(folder / f"{token}.{part}.inter") for part in PARTS)
    hint = (
        "set benchmark_filename: [train, valid, test]"
        if parts
        else "make them of CSV with `recbole-alkd sessions`"
    )
    return (
        f"dataset: no file {token}.inter in {str(folder)!r}; there are {_inter_files(token, folder)}; {hint}"
    )
