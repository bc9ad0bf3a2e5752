"""The trainers: ALKDRecTrainer, the stages of ALKDRec inside RecBole's fit loop, and SessionKNNTrainer, which counts."""

from recbole_alkd.trainer.session_knn import SessionKNNTrainer
from recbole_alkd.trainer.trainer import ALKDRecTrainer

__all__ = ["ALKDRecTrainer", "SessionKNNTrainer"]
