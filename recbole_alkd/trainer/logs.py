"""Where a run writes while it runs: one name for its log, its curves and its folder."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

TENSORBOARD = "log_tensorboard"  # RecBole's folder for it


def log_file() -> Path | None:
    """The file that the run's log goes into, or None."""
    files = [
        handler.baseFilename
        for handler in logging.getLogger().handlers
        if type(handler) is logging.FileHandler
    ]
    return Path(os.path.relpath(files[0])) if files else None


def name_log(name: str) -> None:
    """Call the run's log file like its run folder. A resumed run goes on in the log that it began."""
    for handler in logging.getLogger().handlers:
        if type(handler) is not logging.FileHandler:
            continue
        old = Path(handler.baseFilename)
        new = old.with_name(f"{name}.log")
        if old == new:
            continue
        handler.acquire()
        try:
            handler.close()
            # the log of an earlier run in this process keeps its name
            if not getattr(handler, "is_named", False):
                if new.exists():
                    with open(old, "rb") as lines, open(new, "ab") as stream:
                        shutil.copyfileobj(lines, stream)
                    old.unlink()
                else:
                    os.replace(old, new)
            handler.baseFilename = os.fspath(new)
            handler.is_named = True  # type: ignore[attr-defined]
        except OSError:  # another process of the same second has the file; nothing is lost where it is
            pass
        finally:
            handler.release()


def named_tensorboard(writer: Any, name: str) -> Any:
    """A TensorBoard writer in a folder called like the run folder, in the place of RecBole's,
    which has written nothing yet."""
    from torch.utils.tensorboard import SummaryWriter

    old = Path(writer.log_dir)
    mine = {Path(one.event_writer._file_name) for one in (writer.all_writers or {}).values()}
    writer.close()
    for file in mine:
        file.unlink(missing_ok=True)
    if old.is_dir() and not any(old.iterdir()):
        old.rmdir()
    return SummaryWriter(os.path.join(TENSORBOARD, name))


def teacher_log(writer: Any, wandb: Any) -> Callable[[str, float, int], None]:
    """Where an LLM teacher's own curves (the LoRA loss) go: TensorBoard and W&B."""

    def log_metric(name: str, value: float, step: int) -> None:
        writer.add_scalar(name, value, step)
        wandb.log_metrics({name: value}, head="")

    return log_metric
