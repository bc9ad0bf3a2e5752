"""The processes of a run: the one place that asks for a rank. A run is one process, and more are refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recbole.utils import init_seed

from recbole_alkd.settings.error import AlkdError


@dataclass(frozen=True)
class Group:
    """The processes that train together, seen by one of them. ``rank``: of this one, from 0. ``size``: how
    many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def of(cls, config: Any) -> Group:
        """The processes of a run, as RecBole's Config has them.

        Raises:
            AlkdError: more than one.
        """
        if not config["single_spec"]:
            raise AlkdError(
                "nproc: ALKDRec runs in one process (its LLM teacher may use every device); allowed: 1"
            )
        return cls(int(config["local_rank"] or 0))

    def seed_model(self, config: Any) -> None:
        """Seed the initial weights of a model as RecBole's ``run_recbole`` does before it builds one."""
        init_seed(config["seed"] + self.rank, config["reproducibility"])
