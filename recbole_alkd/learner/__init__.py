"""How families of recommenders learn. Importing this package registers the built-in learners."""

from recbole_alkd.learner import counting, gradient  # noqa: F401
from recbole_alkd.learner.base import Learner, Lesson, Workshop, backbones_of, learner_class
from recbole_alkd.learner.stage_task import StageTask

__all__ = ["Learner", "Lesson", "StageTask", "Workshop", "backbones_of", "learner_class"]
