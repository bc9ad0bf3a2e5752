"""What a stage is called: a name in files and settings, words wherever somebody reads of it."""

from __future__ import annotations

import re

# stage -> its row in the table of a run
STAGES = {
    "teacher": "teacher recommender",
    "student": "student",
    "student_longer": "student, trained longer",
    "distilled": "student, distilled",
}
_NAME = re.compile(rf"({'|'.join(STAGES)})(?:_tune_(\d+)|_fold(\d+)|_(\d+))?")


def stage_words(name: str) -> str:
    """What logs and tables call the stage ``name``, one of its tries, folds or rounds; another name as it is.

    Example:
        >>> stage_words("student_longer"), stage_words("teacher_fold0"), stage_words("distilled_1")
        ('student, trained longer', 'teacher recommender, fold 1', 'student, distilled, round 1')
    """
    parts = _NAME.fullmatch(name)
    if parts is None:
        return name
    stage, a_try, fold, a_round = parts.groups()
    if a_try:
        return f"{STAGES[stage]}, try {int(a_try) + 1}"
    if fold:
        return f"{STAGES[stage]}, fold {int(fold) + 1}"
    return STAGES[stage] + (f", round {a_round}" if a_round else "")
