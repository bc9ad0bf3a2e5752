"""Calls of RecBole's that do more where several processes make a run (``processes/``)."""

from __future__ import annotations

import functools
from typing import Any

from recbole_alkd.compat.replacing import replace_everywhere
from recbole_alkd.processes.group import place
from recbole_alkd.processes.places import PORT
from recbole_alkd.processes.started import starter


def start_together() -> None:
    """``recbole.quick_start.run`` starts the processes of ALKDRec in our way."""
    from recbole.quick_start import quick_start

    original = quick_start.run

    @functools.wraps(original)
    def run(
        model: Any,
        dataset: Any,
        config_file_list: Any = None,
        config_dict: Any = None,
        saved: bool = True,
        nproc: int = 1,
        world_size: int = -1,
        ip: str = "localhost",
        port: Any = PORT,
        group_offset: int = 0,
    ) -> Any:
        what, where = (model, dataset, config_file_list, config_dict, saved), (ip, port, group_offset)
        given = (*what, nproc, world_size, *where)
        if model != "ALKDRec" or (nproc == 1 and world_size <= 1 and starter() is None):
            return original(*given)
        from recbole_alkd.quick_start import run_recbole_alkd

        return run_recbole_alkd(*given)

    replace_everywhere("run", original, run)


def share_data() -> None:
    """``create_dataset`` reads once for all processes of a machine."""
    from recbole.data import utils

    from recbole_alkd.data.shared_sets import shared_dataset

    original = utils.create_dataset

    @functools.wraps(original)
    def create_dataset(config: Any) -> Any:
        _, count, local_rank = place()
        return original(config) if count == 1 else shared_dataset(config, original, local_rank == 0)

    replace_everywhere("create_dataset", original, create_dataset)
