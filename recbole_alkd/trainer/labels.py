"""The labels of a run: which sessions are asked about, who is asked, and what is distilled of the answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from recbole_alkd.data.titles import NoTitlesError, titles_of
from recbole_alkd.labelling.folds import Folds
from recbole_alkd.labelling.item_neighbours import ItemNeighbours
from recbole_alkd.labelling.item_rows import ItemRows
from recbole_alkd.labelling.rounds import LabelRounds
from recbole_alkd.labelling.training_rows import Rows, TrainingRows
from recbole_alkd.labels.ledger import FILE as LEDGER
from recbole_alkd.learner.base import Learner, Lesson
from recbole_alkd.learner.distillation import control_lists, spoiled_lists
from recbole_alkd.learner.item_text import ItemText
from recbole_alkd.learner.outcome import StageOutcome
from recbole_alkd.learner.role_run import RoleRun
from recbole_alkd.learner.stage_folder import StageFolder
from recbole_alkd.learner.stage_task import StageTask
from recbole_alkd.learner.stage_trainer import StageTrainer
from recbole_alkd.llm.text_vectors import TFIDF
from recbole_alkd.model.alkdrec import ALKDRec
from recbole_alkd.model.backbone import Backbone, SessionRecommender
from recbole_alkd.registry import teachers
from recbole_alkd.settings.groups import Settings, TextSettings
from recbole_alkd.settings.identity import stage_seed
from recbole_alkd.teacher.base import LLMTeacher, TeacherContext
from recbole_alkd.teacher.replay import Recordings, check_recordings, read_recordings
from recbole_alkd.trainer.logs import teacher_log

TITLE_NEIGHBOURS = 100  # of an item, from which candidates are taken


class Asking(Protocol):
    """What labels need of a run (``trainer.run.Run``), as it names it."""

    config: Any
    settings: Settings
    model: ALKDRec
    trainer: StageTrainer
    train_data: Any
    rows: TrainingRows
    show_progress: bool
    learners: dict[str, Learner]
    outcomes: dict[str, StageOutcome]
    roles: dict[str, RoleRun]

    @property
    def folder(self) -> StageFolder: ...

    @property
    def train_part(self) -> Any: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def recommender(self) -> Backbone: ...

    def seed(self, *names: object) -> None: ...

    def task(self, name: str, role_run: RoleRun) -> AbstractContextManager[StageTask]: ...


class RunLabels:
    """Asks for a run, once its recommenders are trained.

    Attributes:
        lora_report: what LoRA took, or None.
    """

    def __init__(self, run: Asking) -> None:
        self._run = run
        self._titles: Mapping[str, str] = {}
        self._rounds: LabelRounds | None = None
        self._neighbours: ItemNeighbours | None = None  # where items are labelled
        self.lora_report: dict[str, Any] | None = None

    @property
    def rounds(self) -> LabelRounds:
        """The labels, round by round."""
        assert self._rounds is not None, "nobody was asked yet"
        return self._rounds

    @property
    def asked(self) -> bool:
        """Whether there are rounds."""
        return self._rounds is not None

    def check(self, titles: bool = True) -> None:
        """Find what is wrong with titles, candidates and the budget before anything is trained.

        Args:
            titles: whether anything is shown to anybody; otherwise a data set without titles will do.
        """
        run = self._run
        rows: Rows = run.rows
        if run.settings.selection.alkd_unit == "item":
            rows = ItemRows(run.rows, self._item_neighbours())
        if titles:
            self._titles = self._shown_titles()
            rows.check_candidates()
        rows.check_budget()

    @contextmanager
    def asking(self) -> Iterator[LabelRounds]:
        """The rounds; the LLM teacher lives meanwhile."""
        rounds = self.open()
        try:
            yield rounds
        finally:
            self.lora_report = rounds.llm.lora_report
            rounds.llm.close()

    def open(self) -> LabelRounds:
        """Rounds that nobody was asked in yet; the caller closes their ``llm``."""
        run = self._run
        training = TrainingRows(run.train_data, run.settings, run.roles["teacher"].config)
        folds = self._folds(training)
        rows = self._rows(training)
        llm = self._llm_teacher(rows)
        try:
            self._rounds = LabelRounds(
                rows, run.recommender, run.model.served, llm, folds, run.config["seed"], run.device,
                run.show_progress, run.folder.path / LEDGER,
            )  # fmt: skip
        except BaseException:
            llm.close()
            raise
        return self._rounds

    def ask(self, number: int) -> None:
        """Round ``number``, from 1."""
        self.rounds.run(number)

    def part(self) -> Any:
        """The data set whose rows may be labelled."""
        run = self._run
        return self._rows(TrainingRows(run.train_data, run.settings, run.roles["teacher"].config)).part

    def lesson(self, settings: Settings) -> Lesson:
        """What is distilled of the labels. ``settings``: the run's, with those of the loss."""
        rounds, run = self.rounds, self._run
        lists = rounds.rows.lists(self._distilled_lists(), rounds.candidates())
        state = run.outcomes["student"].state
        return Lesson(settings, run.recommender, lists, list(rounds.labels), state, rounds.rows.part)

    def _rows(self, training: TrainingRows) -> Rows:
        if self._run.settings.selection.alkd_unit != "item":
            return training
        return ItemRows(training, self._item_neighbours())

    def _item_neighbours(self) -> ItemNeighbours:
        if self._neighbours is None:
            self._neighbours = ItemNeighbours(self._run.train_part, self._vectors(), TITLE_NEIGHBOURS)
        return self._neighbours

    def _distilled_lists(self) -> Mapping[int, Sequence[str]]:
        """Row -> list that is distilled: the labels, or what ``kd_lists`` and ``kd_correct`` put in their
        place.
        """
        rounds, seed, distill = self.rounds, self._run.config["seed"], self._run.settings.distill
        rng = np.random.default_rng(stage_seed(seed, "kd_lists"))
        lists = control_lists(distill.kd_lists, rounds.rankings(), rounds.rows.target_tokens, rng)
        if distill.kd_correct == 1:
            return lists
        spoil = np.random.default_rng(stage_seed(seed, "kd_correct"))
        return spoiled_lists(lists, rounds.candidates(), distill.kd_correct, spoil)

    def _shown_titles(self) -> Mapping[str, str]:
        """The titles that the LLM teacher is shown; {} where it needs none."""
        run = self._run
        if not teachers.get(run.settings.teacher.llm_teacher).needs_titles:
            return {}
        return titles_of(run.config, run.rows.item_field, run.rows.tokens[1:].tolist())

    def _vectors(self) -> np.ndarray | None:
        """Title vectors by the run's encoder, or TF-IDF, never permuted;
        None where the data set has no titles."""
        run, own = self._run, self._run.settings.text
        encoder, layer = own.item_text or TFIDF, own.item_text_layer if own.item_text else None
        try:
            vectors = ItemText(TextSettings(item_text=encoder, item_text_layer=layer), run.train_part).vectors
        except NoTitlesError:
            return None
        return vectors if vectors.any() else None

    def _folds(self, rows: TrainingRows) -> Folds:
        run = self._run

        def train_fold(fold: int, kept: np.ndarray) -> Backbone:
            """The teacher recommender without one fold, for as long as the full one took to its best."""
            if fold == 0:
                run.trainer.logger.info(
                    f"candidates of LoRA examples and of a pilot come from {run.settings.lora.lora_folds} "
                    "teacher recommenders, each trained without a part of the sessions (lora_folds)"
                )
            run.seed("fold init", fold)
            own = run.roles["teacher"]
            model = SessionRecommender(own.config, run.train_part, own.settings, "teacher").to(run.device)
            with run.task(f"teacher_fold{fold}", own) as task:
                run.learners["teacher"].fit_rows(task, model, own, kept, run.outcomes["teacher"])
            return model.eval().requires_grad_(False).view

        rng = np.random.default_rng(stage_seed(run.config["seed"], "folds"))
        return Folds(rows.session_ids, run.settings.lora.lora_folds, rng, train_fold)

    def _llm_teacher(self, rows: Rows) -> LLMTeacher:
        run = self._run
        settings, config = run.settings, run.config
        recorded = recordings_of(config, settings).digest if imitates(settings) else ""
        return teachers.get(settings.teacher.llm_teacher)(
            TeacherContext(
                settings=settings,
                dataset=config["dataset"],
                data_path=Path(config["data_path"]),
                titles=self._titles,
                cache=Path(settings.teacher.label_store).parent,
                lora_key=rows.lora_key(recorded),
                show_progress=run.show_progress,
                log_metric=teacher_log(*run.trainer.loggers),
                device=str(run.device),
                hint_key=rows.hint_key(),
                items=frozenset(rows.tokens[1:].tolist()),
            )
        )


def imitates(settings: Settings) -> bool:
    """Whether a local LLM imitates recorded rankings."""
    return (
        settings.teacher.llm_teacher == "local"
        and settings.lora.lora
        and settings.lora.lora_target == "replay"
    )


def recordings_of(config: Any, settings: Settings) -> Recordings:
    """The recorded rankings of a run's data set."""
    return read_recordings(
        settings.teacher, Path(config["data_path"]), config["dataset"], settings.selection.alkd_unit
    )


def check_recordings_of(config: Any, settings: Settings, rows: TrainingRows) -> None:
    """AlkdError where the rankings that a run replays or imitates are of other data."""
    if settings.teacher.llm_teacher == "replay" or imitates(settings):
        items = rows.tokens[1:].tolist()
        own = items if settings.selection.alkd_unit == "item" else rows.sessions.tolist()
        check_recordings(recordings_of(config, settings), own, items)
