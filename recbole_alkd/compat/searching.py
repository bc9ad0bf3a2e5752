"""RecBole's HyperTuning beside today's hyperopt and numpy. Each shim names the line that it cures."""

from __future__ import annotations

from typing import Any

import numpy as np

from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.text import read_search_file


def search_files_are_data() -> None:
    """hyper_tuning.py:239 evaluates the lists of a search file (NAME choice [..], NAME uniform low,high) as
    Python.
    """
    from recbole.trainer import HyperTuning

    def _build_space_from_file(file: str) -> Any:
        return HyperTuning._build_space_from_dict(read_search_file(file))

    _build_space_from_file.__doc__ = HyperTuning._build_space_from_file.__doc__
    HyperTuning._build_space_from_file = staticmethod(_build_space_from_file)


class _Numpy:
    """What hyper_tuning.py calls ``np``: numpy, with the two names as they are today.

    hyper_tuning.py:116 draws from a ``RandomState``, which hyperopt 0.3 asks for ``integers``; line 462
    casts to ``np.str``, gone since numpy 1.24.
    """

    str = str

    class random:  # noqa: N801
        RandomState = staticmethod(np.random.default_rng)

    def __getattr__(self, name: Any) -> Any:
        return getattr(np, name)


def hyperopt_of_today() -> None:
    """``algo="exhaustive"`` and ``display_file`` with hyperopt 0.3; one that cannot be imported is named.

    hyperopt 0.2 imports ``pkg_resources``, which left setuptools in version 81.
    """
    from recbole.trainer import HyperTuning, hyper_tuning

    begin = HyperTuning.__init__

    def __init__(  # noqa: N807
        self: Any, *args: Any, **keywords: Any) -> None:
        try:
            import hyperopt
        except ModuleNotFoundError as error:
            reason = (
                "is not installed" if error.name == "hyperopt" else f"needs {error.name}, which is not there"
            )
            raise AlkdError(f"HyperTuning: hyperopt {reason}: pip install 'hyperopt>=0.3'") from error
        if tuple(int(part) for part in hyperopt.__version__.split(".")[:2]) >= (0, 3):
            hyper_tuning.np = _Numpy()
        begin(self, *args, **keywords)

    __init__.__doc__ = begin.__doc__
    HyperTuning.__init__ = __init__
