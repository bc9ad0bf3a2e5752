"""Lines of RecBole 1.2.1 that end or slow a run which could work. Each shim names the line that it cures."""

from __future__ import annotations

import os
from typing import Any

from recbole_alkd.compat.replacing import replace_everywhere
from recbole_alkd.memory import rows_at_once
from recbole_alkd.processes.group import place
from recbole_alkd.settings.error import AlkdError


def download_in_one_process() -> None:
    """dataset.py:252 waits at a barrier after a download, which fails in a run that has one process and so no
    group."""
    import torch
    from recbole.data.dataset import Dataset

    original = Dataset._download

    def _download(self: Dataset) -> None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            original(self)
            return
        barrier = getattr(torch.distributed, "barrier", None)
        torch.distributed.barrier = lambda *_, **__: None  # type: ignore[assignment]
        try:
            original(self)
        finally:
            if barrier is None:
                del torch.distributed.barrier
            else:
                torch.distributed.barrier = barrier

    Dataset._download = _download


def folders_of_several_runs() -> None:
    """utils.py:51 looks for a folder and then makes it, and fails when another run makes it in between."""
    from recbole.utils import utils

    original = utils.ensure_dir

    def ensure_dir(dir_path: str) -> None:
        os.makedirs(dir_path, exist_ok=True)

    replace_everywhere("ensure_dir", original, ensure_dir)


def use_gpu_decides() -> None:
    """configurator.py:490 chooses the device by ``gpu_id`` alone, so that ``use_gpu: False`` trains on a GPU
    all the same."""
    import torch
    from recbole.config import Config

    original = Config._init_device

    def _init_device(self: Config) -> None:
        original(self)
        if self.final_config_dict["single_spec"] and not self.final_config_dict["use_gpu"]:
            self.final_config_dict["device"] = torch.device("cpu")

    Config._init_device = _init_device


def leader_writes_curves() -> None:
    """trainer.py:100 has every process of a run write curves into a folder of its own."""
    from recbole.trainer import trainer

    original = trainer.get_tensorboard

    def get_tensorboard(logger: Any) -> Any:
        return NoCurves() if place()[0] else original(logger)

    replace_everywhere("get_tensorboard", original, get_tensorboard)


class NoCurves:
    """What a process that does not lead has in the place of a TensorBoard writer."""

    log_dir = None

    def add_scalar(self, *_: Any, **__: Any) -> None:
        pass

    def add_hparams(self, *_: Any, **__: Any) -> None:
        pass


def metrics_of_whole_lists() -> None:
    """collector.py:246 calls ``.cpu()`` on counts that are no tensors, so that ItemCoverage,
    AveragePopularity, GiniIndex and TailPercentage fail; and collector.py:165 asks for the best k of fewer
    than k items, after an epoch of training."""
    import torch
    from recbole.evaluator import Collector

    get_data_struct, data_collect = Collector.get_data_struct, Collector.data_collect

    def collected(self: Collector) -> Any:
        plain = {
            key: value
            for key, value in self.data_struct._data_dict.items()
            if not isinstance(value, torch.Tensor)
        }
        for key in plain:
            del self.data_struct._data_dict[key]
        struct = get_data_struct(self)
        for key, value in plain.items():
            struct.set(key, value)
            self.data_struct.set(key, value)
        return struct

    def begins(self: Collector, train_data: Any) -> None:
        items = train_data._dataset.item_num - 1
        listed = self.register.need("rec.items") or self.register.need("rec.topk")
        if listed and max(self.topk) > items:
            raise AlkdError(
                f"topk: {max(self.topk)} is more than the {items} items of the data set; "
                f"allowed: at most {items}"
            )
        data_collect(self, train_data)

    Collector.get_data_struct, Collector.data_collect = collected, begins


def scores_in_blocks() -> None:
    """general_dataloader.py:252 gives a sequential model ``eval_batch_size`` rows at once, however many items
    each is scored against: 4,096 rows times 834,459 items are 13.7 GB.
    See ``memory.py`` for how many rows there are instead."""
    from recbole.data.dataloader import FullSortEvalDataLoader

    original = FullSortEvalDataLoader._init_batch_size_and_step

    def _init_batch_size_and_step(self: FullSortEvalDataLoader) -> None:
        original(self)
        if self.is_sequential:
            rows = rows_at_once(self.step, self._dataset.item_num)
            if rows < self.step:
                self.step = rows
                self.set_batch_size(rows)

    FullSortEvalDataLoader._init_batch_size_and_step = _init_batch_size_and_step
