"""What lets RecBole 1.2.1 run on today's numpy, torch and setuptools, and without Ray.

This is the only place that replaces anything inside RecBole for the sake of compatibility. Each shim names
the RecBole line it cures and does nothing where that line is already fine.
``apply()`` may be called any number of times.
"""

from __future__ import annotations

from recbole_alkd.compat import batches, checkpoints, libraries, running, saved_data, searching
from recbole_alkd.compat.trust import trusted_loads as trusted_loads
from recbole_alkd.files import load_checkpoint as load_checkpoint
from recbole_alkd.files import save_checkpoint as save_checkpoint

RECBOLE_VERSION = "1.2.1"
_applied = False


def apply() -> None:
    """Install every shim once. Raises ImportError when RecBole or pandas is a version that cannot work."""
    global _applied
    if _applied:
        return
    libraries.numpy_aliases()
    _check_versions()
    libraries.quiet_known_warnings()
    libraries.keep_anomaly_mode()
    libraries.quick_start_without_ray()
    checkpoints.readable_checkpoints()
    running.download_in_one_process()
    running.folders_of_several_runs()
    running.use_gpu_decides()
    running.leader_writes_curves()
    searching.search_files_are_data()
    searching.hyperopt_of_today()
    saved_data.saved_data_on_trust_alone()
    running.metrics_of_whole_lists()
    running.scores_in_blocks()
    batches.rows_as_tensors()
    batches.batches_of_whole_rows()
    _applied = True


def _check_versions() -> None:
    import pandas

    try:
        import recbole
    except ModuleNotFoundError as error:
        if error.name != "recbole":
            raise
        # Python 3.12 and later cannot have the Ray that RecBole asks for and does not need here
        raise ImportError(
            f"recbole_alkd needs RecBole: pip install --no-deps recbole=={RECBOLE_VERSION}", name="recbole"
        ) from None

    if recbole.__version__ != RECBOLE_VERSION:
        raise ImportError(
            f"recbole_alkd needs recbole=={RECBOLE_VERSION}, found {recbole.__version__}: "
            f"pip install recbole=={RECBOLE_VERSION}"
        )
    if int(pandas.__version__.split(".")[0]) >= 3:
        # dataset.py:1217 and ten more lines call Series.agg(len), which sees the whole Series since pandas 3.
        raise ImportError(
            f"RecBole {RECBOLE_VERSION} needs pandas<3, found {pandas.__version__}: pip install 'pandas<3'"
        )
