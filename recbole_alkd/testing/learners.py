"""What every student must hold, whichever way it learns, as a mixin: whole runs on toy data.

A backbone of your own gets all of it with
``class TestMine(LearnerTests): student, plugins = "Mine", ["my_module"]``;
so does a learner of your own, with a backbone that names it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from recbole_alkd.compat import load_checkpoint
from recbole_alkd.learner.base import backbones_of, learner_class
from recbole_alkd.model.backbone import view_and_model
from recbole_alkd.testing.toy import run_toy

STAGES = ("teacher", "student", "student_longer", "distilled")


@contextmanager
def inside(folder: Path) -> Iterator[Path]:
    """``folder`` as the working directory, in which RecBole writes its logs."""
    before = os.getcwd()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)


class LearnerTests:
    """The laws of a student and of how it learns.

    Attributes:
        student: its ``student_model`` name. plugins: modules that register it.
        settings: laid over those of the toy run, such as ``{"kd_loss": "tr"}``.
    """

    student: ClassVar[str]
    plugins: ClassVar[list[str]] = []
    settings: ClassVar[Mapping[str, Any]] = {}

    def run(self, folder: Path, **settings: Any) -> dict[str, Any]:
        """A toy run in ``folder`` whose stages no other run shares."""
        own = {"student_model": self.student, "alkd_plugins": self.plugins, "stage_cache": False}
        with inside(folder):
            return run_toy(folder, **{**own, **self.settings, **settings})

    @pytest.fixture(scope="class")
    def ran(self, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
        """One run: its folder and its report."""
        folder = tmp_path_factory.mktemp("ran")
        return folder, self.run(folder)

    def state(self, report: Mapping[str, Any], stage: str) -> dict[str, torch.Tensor]:
        """What was kept of a stage."""
        state = load_checkpoint(str(Path(report["run_folder"]) / f"{stage}.stage.pth"))["state"]
        return state  # type: ignore[no-any-return]

    def test_it_names_a_learner(self, ran: Any) -> None:
        name = view_and_model(self.student)[0].learner
        assert learner_class(self.student) and self.student in backbones_of(name)

    def test_every_stage_is_evaluated(self, ran: Any) -> None:
        _, report = ran
        assert set(report["stages"]) == set(STAGES)
        for stage in report["stages"].values():
            assert stage["valid"].keys() == stage["test"].keys() and stage["test"]
            assert all(np.isfinite(value) and 0 <= value <= 1 for value in stage["test"].values())
            assert stage["bytes"] > 0 and stage["best_step"] >= 1

    def test_labels_reach_it(self, ran: Any) -> None:
        _, report = ran
        before, after = (self.state(report, stage) for stage in ("student", "distilled"))
        assert before.keys() == after.keys()
        assert any(not torch.equal(before[key], after[key]) for key in before), "the labels changed nothing"

    def test_distillation_leaves_the_size_alone(self, ran: Any) -> None:
        _, report = ran
        sizes = {report["stages"][stage]["parameters"] for stage in ("student", "student_longer")}
        assert len(sizes) == 1

    def test_the_saved_student_is_the_one_that_was_evaluated(self, ran: Any) -> None:
        from recbole_alkd import load_data_and_model
        from recbole_alkd.plugin import empty_argv

        folder, report = ran
        with inside(folder), empty_argv():
            _, model, *_, test_data = load_data_and_model(str(Path(report["run_folder"]) / "ALKDRec.pth"))
        rows = test_data._dataset.inter_feat
        model.eval()
        with torch.no_grad():
            scores, one = model.full_sort_predict(rows), model.full_sort_predict(rows[3:4])
        assert (
            scores.shape == (len(rows), test_data._dataset.item_num) and torch.isfinite(scores[:, 1:]).all()
        )
        torch.testing.assert_close(one[0, 1:], scores[3, 1:], rtol=1e-4, atol=1e-5)  # alone as in a batch
        items = rows["item_id"].unsqueeze(1)
        above = (scores[:, 1:] > scores.gather(1, items)).sum(1)
        level = (scores[:, 1:] == scores.gather(1, items)).sum(1) - 1
        with np.load(Path(report["run_folder"]) / "ranks.npz") as ranks:
            np.testing.assert_allclose(ranks["distilled_test"], (1 + above + level / 2).numpy(), atol=0.5)

    def test_the_same_settings_give_the_same(self, ran: Any, tmp_path: Path) -> None:
        _, report = ran
        again = self.run(tmp_path)
        for stage in STAGES:
            assert again["stages"][stage]["test"] == report["stages"][stage]["test"], stage
        assert again["policy"]["picks"] == report["policy"]["picks"]

    def test_a_run_that_did_not_end_resumes(self, tmp_path: Path) -> None:
        first = self.run(tmp_path)
        (Path(first["run_folder"]) / "result.json").unlink()
        (Path(first["run_folder"]) / "distilled.stage.pth").unlink()
        again = self.run(tmp_path)
        assert again["run_folder"] == first["run_folder"] and again["labels"]["asked"] == 0
        for stage in STAGES:
            assert again["stages"][stage]["test"] == first["stages"][stage]["test"], stage

    def test_it_is_a_teacher_recommender(self, tmp_path: Path) -> None:
        report = self.run(tmp_path, student_model="SessionFPMC", teacher_model=self.student)
        assert report["stages"]["teacher"]["test"] and len(report["policy"]["picks"]) == 10
