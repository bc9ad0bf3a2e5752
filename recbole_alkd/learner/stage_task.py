"""One stage that is to be trained: its name, its folder, and what an earlier run left of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from logging import Logger

from recbole.utils import set_color
from torch import nn

from recbole_alkd.learner.outcome import StageOutcome
from recbole_alkd.learner.stage_folder import StageFolder
from recbole_alkd.learner.stage_names import stage_words


@dataclass(frozen=True)
class StageTask:
    """One stage, or one try of it, that is to be trained.

    Attributes:
        name: of the stage; it seeds the stage. shown: what its folder and its curves are called, the name
            with the number of a try.
        folder: where it is kept when it has finished, and where it is found then.
        lent: the run's own folder where ``folder`` is shared among runs; None otherwise, and for a try.
        checkpoint: whether RecBole's own checkpoint is written too, given what came out.
        callback: RecBole's ``callback_fn``: (epoch, validation score), or None.
    """

    name: str
    shown: str
    folder: StageFolder
    lent: StageFolder | None = None
    checkpoint: Callable[[StageOutcome], bool] | None = None
    callback: Callable[[int, float], None] | None = None

    @property
    def words(self) -> str:
        """What the log calls the stage: its row in the run's table, with the number of a try, a fold or an
        earlier round.
        """
        return stage_words(self.shown)

    def finished(self, model: nn.Module, logger: Logger) -> StageOutcome | None:
        """The stage as an earlier run left it, laid into the model; None when it has to be trained."""
        stored = self.folder.stage(self.name)
        if stored is None:
            return None
        before = copy.deepcopy(model.state_dict())
        try:
            outcome = StageOutcome(**stored)
            # what only training needs (the slots) is not in the state
            model.load_state_dict(outcome.state, strict=False)
        except (TypeError, AttributeError, RuntimeError) as error:
            # torch lays in what fits before it says what does not
            model.load_state_dict(before, strict=False)
            reason = str(error).splitlines()[-1].strip()
            words = f"the stage {self.words} does not fit this model ({reason}); it is trained again"
            logger.warning(f"{self.folder.path}: {words}")
            return None
        words = f"finished by an earlier run, loaded from {self.folder.path}"
        logger.info(set_color("stage", "blue") + f" {self.words}: {words}")
        return outcome

    def keep(self, outcome: StageOutcome) -> None:
        """The stage has finished."""
        self.folder.save_stage(self.name, asdict(outcome))
