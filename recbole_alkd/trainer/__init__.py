"""ALKDRecTrainer: the stages of ALKDRec inside RecBole's fit loop."""

from recbole_alkd.trainer.trainer import ALKDRecTrainer

__all__ = ["ALKDRecTrainer"]
