"""The console of a run: what this package says. RecBole's own lines are in the log file, all of them.

A model that runs by itself has nobody but RecBole to speak for it: of RecBole's lines the console then has
the log file's name, the data, the model, one line an epoch, and a table at the end.
"""

from __future__ import annotations

import copy
import logging
import os
import re
from typing import Any

import recbole
from recbole.config import Config
from recbole.data.dataset import Dataset
from texttable import Texttable
from torch import nn

from recbole_alkd.bars import on_terminal
from recbole_alkd.compat.checkpoints import SAVING
from recbole_alkd.trainer.logs import log_file

_RECBOLE = os.path.dirname(recbole.__file__) + os.sep
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_TRAINED = re.compile(r"epoch (\d+) training \[time: ([\d.]+)s, (.*)\]")
_JUDGED = re.compile(r"epoch (\d+) evaluating \[time: [\d.]+s, valid_score: ([-\d.einfa]+)\]")
# of an OrderedDict in words: ('ndcg@10', 0.1), and from Python 3.12 on 'ndcg@10': 0.1
_METRIC = re.compile(r"'([^']+)'[,:] (?:np\.float64\()?([-\d.einfa]+)")
_FROM = "Loading model structure and parameters from "


class SingleModel:
    """RecBole's words about a model that runs by itself, in fewer words.

    Args:
        metric: what validation chooses by. bigger: whether more of it is better. every: epochs between two
            looks at validation; 0: none.
    """

    def __init__(self, metric: str, bigger: bool, every: int) -> None:
        self._metric, self._sign, self._every = metric, 1 if bigger else -1, every
        self._best = float("-inf")
        self._trained = ""
        self._valid: dict[str, str] = {}

    def words(self, said: Any) -> str | None:
        """What the console shows for what RecBole said (text, or the object that it logs); None: nothing."""
        if isinstance(said, Config):
            file = log_file()
            return f"log file: {file} (all settings are in it)" if file else None
        if isinstance(said, Dataset):
            return _data_words(said)
        if isinstance(said, nn.Module):
            count = sum(one.numel() for one in said.parameters() if one.requires_grad)
            return f"model: {type(said).__name__}, {f'{count:,}' if count else 'no trained'} parameters"
        text = _COLOUR.sub("", said) if isinstance(said, str) else ""
        if trained := _TRAINED.fullmatch(text):
            loss = trained[3].replace("train loss:", "loss")
            return self._epoch(int(trained[1]), f"{loss}, {trained[2]} s")
        if judged := _JUDGED.fullmatch(text):
            return self._judged(float(judged[2]))
        if text.startswith(_FROM):
            return f"checkpoint: {text.removeprefix(_FROM)}"
        if text.startswith("best valid"):
            self._valid = dict(_METRIC.findall(text))
            return None
        return self._table(dict(_METRIC.findall(text))) if text.startswith("test result") else None

    def _epoch(self, number: int, words: str) -> str | None:
        self._trained = f"epoch {number + 1}: {words}"
        judged = self._every > 0 and (number + 1) % self._every == 0
        return None if judged else self._trained

    def _judged(self, score: float) -> str:
        better = self._sign * score > self._best
        self._best = max(self._best, self._sign * score)
        best = ", the best so far" if better else ""
        return f"{self._trained}, {self._metric.lower()} {score:.4f} on validation{best}"

    def _table(self, test: dict[str, str]) -> str:
        table = Texttable(max_width=0)
        table.set_deco(Texttable.HEADER)
        table.set_cols_dtype(["t"] * (len(test) + 1))
        table.set_cols_align(["l"] + ["r"] * len(test))
        table.header(["", *test])
        for name, values in (("valid", self._valid), ("test", test)):
            if values:
                table.add_row([name, *(values.get(metric, "-") for metric in test)])
        return f"result\n\n{table.draw()}\n"


class Console(logging.StreamHandler):  # type: ignore[type-arg]
    """RecBole's handler of the console, in the place of ``original``, with what a reader can use.
    A warning is shown once."""

    def __init__(self, original: logging.Handler, single: SingleModel | None) -> None:
        super().__init__(getattr(original, "stream", None))
        self.setLevel(original.level)
        self.setFormatter(original.formatter)
        self.original, self._single = original, single
        self._warned: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            text = record.getMessage()
            if text in self._warned:
                return
            self._warned.add(text)
        elif record.pathname.startswith(_RECBOLE) or SAVING in str(record.msg):
            words = self._single.words(record.msg) if self._single else None
            if words is None:
                return
            record = copy.copy(record)  # the log file's stays as it is
            record.msg, record.args = words, None
        super().emit(record)


def is_console(handler: logging.Handler) -> bool:
    """Whether a handler of the log writes to the console."""
    return type(handler) in (logging.StreamHandler, Console)


def short_console(config: Any, ours: bool) -> None:
    """Give the console of a run its short form, or take that away, as ``short_log`` says.

    Args:
        ours: whether the run is one of this package: its model, or its command.
    """
    root = logging.getLogger()
    root.handlers = [one.original if isinstance(one, Console) else one for one in root.handlers]
    if not ours or config["short_log"] is False:
        return
    single = None
    if config["model"] != "ALKDRec":
        every = min(config["eval_step"], config["epochs"])
        single = SingleModel(config["valid_metric"], config["valid_metric_bigger"], every)
        if not on_terminal():
            config["show_progress"] = False  # RecBole's bars are for eyes
    root.handlers = [Console(one, single) if is_console(one) else one for one in root.handlers]


def _data_words(data: Any) -> str:
    sessions = type(data).__name__ == "ALKDRecDataset"
    users, rows = ("sessions", "rows") if sessions else ("users", "clicks")
    return (
        f"data: {data.dataset_name}: {data.user_num - 1:,} {users}, {data.item_num - 1:,} items, "
        f"{data.inter_num:,} {rows}"
    )
