"""Where a run writes while it runs: one name for its log, its curves and its folder."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeGuard

from colorlog import ColoredFormatter
from recbole.utils.logger import RemoveColorFilter

TENSORBOARD = "log_tensorboard"  # RecBole's folder for it


def _is_file(handler: logging.Handler) -> TypeGuard[logging.FileHandler]:
    """Whether a handler is the one that RecBole writes a run's log file with, and not a program's own."""
    return type(handler) is logging.FileHandler and any(
        isinstance(one, RemoveColorFilter) for one in handler.filters
    )


def _is_console(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and isinstance(handler.formatter, ColoredFormatter)


@contextmanager
def log_of_its_own() -> Iterator[None]:
    """Inside of it ``init_logger`` begins a log, as for the first run of a process.

    By itself it leaves the log of an earlier run in place, whose folder may be another model's, below another
    working directory, or gone. A program's own handlers stay.
    """
    root = logging.getLogger()
    before = root.handlers
    ours = [one for one in before if _is_file(one) or _is_console(one)]
    if not any(map(_is_file, ours)):
        yield
        return
    root.handlers = []
    try:
        yield
    finally:
        made = root.handlers
        root.handlers = [*made, *(one for one in before if one not in ours)] if made else before
        for one in ours if made else ():
            if _is_file(one):
                one.close()


def log_file() -> Path | None:
    """The file that the run's log goes into, or None."""
    files = [handler.baseFilename for handler in logging.getLogger().handlers if _is_file(handler)]
    return Path(os.path.relpath(files[0])) if files else None


def name_log(name: str) -> None:
    """Call the run's log file like its run folder. A resumed run writes on in the log that it began."""
    for handler in logging.getLogger().handlers:
        if not _is_file(handler):
            continue
        old = Path(handler.baseFilename)
        new = old.with_name(f"{name}.log")
        if old == new:
            continue
        handler.acquire()
        try:
            handler.close()
            if new.exists():
                with open(old, "rb") as lines, open(new, "ab") as stream:
                    shutil.copyfileobj(lines, stream)
                old.unlink()
            else:
                os.replace(old, new)
            handler.baseFilename = os.fspath(new)
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
