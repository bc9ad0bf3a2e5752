"""RecBole's loggers with the stage in front of every name, as one fit loop names the curves of all stages
alike.
"""

from __future__ import annotations

from typing import Any


class StageTensorBoard:
    """Writes scalars as ``stage/tag``. Hyper-parameters are written once, by the last stage
    (``hparams=True``).
    """

    def __init__(self, writer: Any, stage: str, hparams: bool = False) -> None:
        self.writer, self.stage, self.hparams = writer, stage, hparams

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.writer.add_scalar(f"{self.stage}/{tag}", value, step)

    def add_hparams(self, hparams: dict[str, Any], metrics: dict[str, Any]) -> None:
        if self.hparams:
            self.writer.add_hparams(hparams, metrics)


class StageWandb:
    """Logs metrics as ``stage/head/name``, the step counters (``train_step``, ``valid_step``) as
    ``stage/name``.
    """

    def __init__(self, logger: Any, stage: str) -> None:
        self.logger, self.stage = logger, stage

    def log_metrics(self, metrics: dict[str, Any], head: str = "train", commit: bool = True) -> None:
        # RecBole leaves names with "_step" in them without a head
        heads = {key: self.stage if "_step" in key else f"{self.stage}/{head}" for key in metrics}
        named = {f"{heads[key]}/{key}": value for key, value in metrics.items()}
        self.logger.log_metrics(named, head="", commit=commit)

    def log_eval_metrics(self, metrics: dict[str, Any], head: str = "eval") -> None:
        self.logger.log_eval_metrics(metrics, head=f"{self.stage}/{head}")
