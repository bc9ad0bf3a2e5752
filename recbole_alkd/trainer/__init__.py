"""The trainers that RecBole sees: ALKDRecTrainer, and the one of models that count and run by themselves."""

from recbole_alkd.learner.counting_trainer import CountingTrainer
from recbole_alkd.trainer.trainer import ALKDRecTrainer

SessionKNNTrainer = CountingTrainer  # its name in earlier versions

__all__ = ["ALKDRecTrainer", "CountingTrainer"]
