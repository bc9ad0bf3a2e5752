"""Tests for plug-ins: what a policy, a distillation loss, an LLM teacher or a student must hold,
as classes to inherit from.

They run with pytest, which this package does not install by itself::

    import my_losses                       # registers "mine"
    from recbole_alkd.testing import LossTests

    class TestMine(LossTests):
        loss = "mine"

``run_toy`` runs the whole of ALKDRec on toy data (``write_toy_data``), with any settings, in a second or two.
"""

import pytest

# an assertion that fails then shows its values
for _module in ("learners", "losses", "policies", "teachers", "toy"):
    pytest.register_assert_rewrite(f"{__name__}.{_module}")

from recbole_alkd.testing.learners import LearnerTests  # noqa: E402
from recbole_alkd.testing.losses import LossTests  # noqa: E402
from recbole_alkd.testing.policies import PolicyTests  # noqa: E402
from recbole_alkd.testing.teachers import TeacherTests  # noqa: E402
from recbole_alkd.testing.toy import run_toy, write_toy_data  # noqa: E402

__all__ = ["LearnerTests", "LossTests", "PolicyTests", "TeacherTests", "run_toy", "write_toy_data"]
