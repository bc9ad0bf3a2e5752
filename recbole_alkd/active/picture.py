"""A picture of one selection: how difficulty is distributed, where the probabilities lie, what was picked."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from recbole_alkd.active.gain import difficulty_ranks
from recbole_alkd.files import write_picture
from recbole_alkd.settings.error import AlkdError


def draw_selection(
    path: str | Path,
    difficulty: np.ndarray,
    log_p: np.ndarray | None,
    picks: np.ndarray,
    solution_summary: str = "",
) -> Path:
    """Write the picture; the file's ending decides the format (.png, .svg, .pdf).

    Args:
        path: the file.
        difficulty: (N,) difficulties, larger is harder.
        log_p: (N,) log probabilities, or None for a deterministic policy.
        picks: indices into the pool.
        solution_summary: a line for the title, such as the value, its upper bound and the support.

    Raises:
        AlkdError: as ``check_picture``; the file cannot be written, as on a full disk.
    """
    check_picture(path)
    from matplotlib.figure import Figure

    difficulty, picks = np.asarray(difficulty, dtype=np.float64), np.asarray(picks)
    rank = difficulty_ranks(difficulty)
    # Figure without pyplot: no global state and no display
    figure = Figure(figsize=(8, 6), layout="constrained")
    top, bottom = figure.subplots(2, 1)

    bins = np.histogram_bin_edges(difficulty, bins=min(60, max(1, len(difficulty))))
    top.hist(difficulty, bins=bins, color="0.75", label=f"pool ({len(difficulty)})")
    top.hist(difficulty[picks], bins=bins, color="C0", label=f"picks ({len(picks)})")
    top.set(xlabel="difficulty (larger is harder)", ylabel="instances", yscale="log")
    top.legend()

    edges = np.linspace(0.5, len(rank) + 0.5, min(60, len(rank)) + 1)
    bottom.hist(
        rank[picks],
        bins=edges,
        weights=np.full(len(picks), 1 / max(1, len(picks))),
        color="C0",
        label="share of picks",
    )
    if log_p is not None:
        p = np.exp(np.asarray(log_p) - np.max(log_p))
        bottom.hist(
            rank,
            bins=edges,
            weights=p / p.sum(),
            histtype="step",
            color="C1",
            linewidth=1.5,
            label="probability",
        )
    bottom.set(xlabel="difficulty rank (1 is the hardest)", ylabel="share in each bin")
    bottom.legend()
    figure.suptitle(solution_summary)
    try:
        return write_picture(figure, path, dpi=120)
    except OSError as error:
        raise AlkdError(f"{path}: the picture cannot be written: {error.strerror}") from None


def check_picture(path: str | Path) -> None:
    """Look for all that a picture needs before anything is trained for it.

    Raises:
        AlkdError: matplotlib is not installed, it knows no such format, or there is no such folder.
    """
    try:
        import matplotlib.figure  # noqa: F401
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        raise AlkdError(f"{path}: a picture needs matplotlib: pip install 'recbole_alkd[bench]'") from None
    formats = sorted(FigureCanvasBase.get_supported_filetypes())
    path = Path(path)
    if path.suffix.lower().removeprefix(".") not in formats:
        raise AlkdError(f"{path}: {path.suffix!r} is no format of a picture; allowed: .{', .'.join(formats)}")
    check_target(path)


def check_target(path: str | Path) -> None:
    """AlkdError where no file can be written at ``path``: no such folder, one that may not be written into,
    or a folder."""
    path = Path(path)
    if path.is_dir():
        raise AlkdError(f"{path}: it is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise AlkdError(f"{path}: there is no folder {str(path.parent)!r}; make it first")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise AlkdError(f"{path}: it may not be written")
