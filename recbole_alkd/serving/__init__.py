"""A trained student taken away: bundles, recommendations, reasons, exports, updates.

Reading and serving need numpy alone (ONNX Runtime too for backbones that are neither tables nor SessionFPMC):
no torch, no RecBole. Making a bundle from a run and updating one import what they need when they are called.
"""

from __future__ import annotations

from pathlib import Path

from recbole_alkd.serving.items import Found
from recbole_alkd.serving.manifest import MANIFEST, copy_bundle
from recbole_alkd.serving.recommender import BUNDLE, Reason, Recommendation, Recommender

__all__ = ["Found", "Reason", "Recommendation", "Recommender", "update", "write_bundle"]


def write_bundle(run_folder: str | Path, out: str | Path) -> Path:
    """Write the bundle of a finished run into the new folder ``out`` (``serving/make.py``); needs
    RecBole and torch where the run has no ``bundle/``.

    Raises:
        AlkdError: no finished run, a backbone that cannot be taken out of torch, or ``out`` is there.

    Example:
        >>> write_bundle("saved/ALKDRec-ml-100k-...", "bundle")
    """
    inner = Path(run_folder) / BUNDLE
    if (inner / MANIFEST).exists():  # which needs nothing else
        return copy_bundle(inner, Path(out))
    from recbole_alkd.serving.make import write_bundle as write

    return write(run_folder, out)


def update(bundle: str | Path, inter: str | Path, out: str | Path, titles: str | Path | None = None) -> Path:
    """Add new sessions and items to the table of a bundle, as a new bundle (``serving/make_update.py``);
    needs the whole package.

    Args:
        bundle: a table's. out: a new folder.
        inter: whole sessions that the table does not hold yet: clicks, or rows of (session, history, item),
            in the columns that the run read.
        titles: a file with the titles of new items. None: the ``.item`` file beside ``inter``, if any.

    Returns:
        ``out``.

    Raises:
        AlkdError: the bundle is no table or has no ``counts.npz``, a file cannot be read, or ``out`` is
        there.

    Example:
        >>> update("bundle", "today.inter", "bundle-today")
    """
    from recbole_alkd.serving.make_update import update as add

    return add(bundle, inter, out, titles)
