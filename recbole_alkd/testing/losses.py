"""What every distillation loss must hold, as a mixin; and the small recommenders it is checked on.

A loss of your own gets all of it with ``class TestMine(LossTests): loss = "mine"``.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from recbole_alkd.distill.base import DistillBatch, DistillContext
from recbole_alkd.model.backbone import Backbone
from recbole_alkd.model.loss import in_batch_bpr
from recbole_alkd.registry import losses
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.reading import read_settings

N_ITEMS, LENGTH, ROWS = 40, 6, 60


class ToyRecommender(nn.Module):
    """Mean of input vectors against output vectors, in double precision: the simplest student and teacher."""

    def __init__(self, n_items: int, size: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        draw = torch.randn(2, n_items, size, generator=generator, dtype=torch.float64)
        self.inputs, self.outputs = nn.Parameter(draw[0]), nn.Parameter(draw[1])

    def forward(self, item_seq: torch.Tensor, item_seq_len: torch.Tensor) -> torch.Tensor:
        kept = (item_seq > 0).unsqueeze(2)
        return (self.inputs[item_seq] * kept).sum(1) / item_seq_len.unsqueeze(1)

    def item_table(self) -> torch.Tensor:
        return self.outputs


def toy_rows(
    count: int = ROWS, n_items: int = N_ITEMS, length: int = LENGTH, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Sessions of 1 to ``length`` distinct items and a target that is none of them."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.stack(
        [torch.randperm(n_items - 1, generator=generator)[: length + 1] + 1 for _ in range(count)]
    )
    size = torch.randint(1, length + 1, (count,), generator=generator)
    item_seq = order[:, :length] * (torch.arange(length) < size.unsqueeze(1))
    return {"item_id_list": item_seq, "item_length": size, "item_id": order[:, length]}


def toy_titles(n_items: int = N_ITEMS, kinds: int = 4, size: int = 6) -> np.ndarray:
    """Vectors of titles: items whose numbers are equal modulo ``kinds`` have nearly the same one."""
    rng = np.random.default_rng(8)
    vectors = rng.normal(size=(kinds, size))[np.arange(n_items) % kinds] + 0.1 * rng.normal(
        size=(n_items, size)
    )
    vectors[0] = 0
    return vectors


def toy_recommendation(student: Backbone) -> Any:
    """In-batch BPR of a RecBole batch."""
    return lambda rows: in_batch_bpr(
        student.encode(rows["item_id_list"], rows["item_length"]), student.item_table()[rows["item_id"]]
    )


def toy_context(
    student_size: int = 4,
    teacher_size: int | None = 7,
    n_items: int = N_ITEMS,
    epochs: int = 10,
    rows: Any = None,
    **settings: Any,
) -> DistillContext:
    """Toy student (seed 1) and toy teacher recommender (seed 2; none when its size is None) with the given
    settings."""
    student = Backbone(ToyRecommender(n_items, student_size, seed=1))
    return DistillContext(
        settings=read_settings(settings),
        student=student,
        item_text=toy_titles(n_items) if settings.get("item_text") else None,
        recommendation=toy_recommendation(student),
        teacher=None if teacher_size is None else Backbone(ToyRecommender(n_items, teacher_size, seed=2)),
        n_items=n_items,
        train_interaction=toy_rows(n_items=n_items) if rows is None else rows,
        item_seq_field="item_id_list",
        item_seq_len_field="item_length",
        item_field="item_id",
        epochs=epochs,
    )


def toy_lists(
    count: int, ranks: int = 8, n_items: int = N_ITEMS, seed: int = 5
) -> tuple[torch.Tensor, torch.Tensor]:
    """Candidates (count, 12) and rankings (count, ranks) of them, in another order; the third list
    is short."""
    candidates = min(12, n_items - 1)
    generator = torch.Generator().manual_seed(seed)
    pool = torch.stack(
        [torch.randperm(n_items - 1, generator=generator)[:candidates] + 1 for _ in range(count)]
    )
    order = torch.stack([torch.randperm(candidates, generator=generator)[:ranks] for _ in range(count)])
    lists = pool.gather(1, order)
    if count > 2:
        lists[2, 3:] = 0
    return lists, pool


def toy_batch(context: DistillContext, size: int = 9, labels: bool = True, **replaced: Any) -> DistillBatch:
    """The first ``size`` training rows, each with a ranking, candidates and a sampled negative."""
    rows = context.train_interaction
    lists, candidates = toy_lists(size, n_items=context.n_items)
    values = {
        "item_seq": rows["item_id_list"][:size],
        "item_seq_len": rows["item_length"][:size],
        "target": rows["item_id"][:size],
        "lists": lists if labels else torch.zeros_like(lists),
        "candidates": candidates if labels else torch.zeros_like(candidates),
        "negatives": 1 + (rows["item_id"][:size] + 3) % (context.n_items - 1),
    }
    return DistillBatch(context, **{**values, **replaced})


class LossTests:
    """The laws of a distillation loss.

    Attributes:
        loss: its ``kd_loss`` name, or the class itself.
        settings, options: laid over the defaults; ``options`` are those of ``kd_config``.
        smooth: the gradient is that of the value (no part of it is detached on purpose).
        trains: the loss itself has a gradient (one that only masks weights has none).
        idle: parts of names of its own parameters that have none.
    """

    loss: ClassVar[Any]
    settings: ClassVar[dict[str, Any]] = {}
    options: ClassVar[dict[str, Any]] = {}
    smooth: ClassVar[bool] = True
    trains: ClassVar[bool] = True
    idle: ClassVar[tuple[str, ...]] = ()

    @property
    def made_by(self) -> Any:
        """The class."""
        return losses.get(self.loss) if isinstance(self.loss, str) else self.loss

    def build(self, **toy: Any) -> SimpleNamespace:
        torch.manual_seed(3)
        context = toy_context(**{**self.settings, **toy})
        loss = self.made_by(context, self.options).double()
        loss.epoch_start(0)
        return SimpleNamespace(context=context, loss=loss)

    def value(self, made: SimpleNamespace, seed: int = 11, **batch: Any) -> torch.Tensor:
        torch.manual_seed(seed)
        return made.loss(toy_batch(made.context, **batch))

    def test_value_is_a_finite_scalar(self) -> None:
        value = self.value(self.build())
        assert value.ndim == 0 and torch.isfinite(value) and float(value.detach()) >= 0

    def test_gradient_reaches_the_student_and_its_own_modules(self) -> None:
        made = self.build()
        if not self.trains:
            pytest.skip("this loss has no gradient of its own")
        self.value(made).backward()
        model = made.context.student.model
        assert (
            model.outputs.grad is not None
            and torch.isfinite(model.outputs.grad).all()
            and model.outputs.grad.abs().sum() > 0
        )
        assert (
            model.inputs.grad is not None
            and torch.isfinite(model.inputs.grad).all()
            and model.inputs.grad.abs().sum() > 0
        )
        assert model.outputs.grad[0].abs().sum() == 0, "the padding is no item"
        for key, parameter in made.loss.named_parameters():
            if not any(part in key for part in self.idle):
                assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key

    def test_no_gradient_reaches_the_teacher(self) -> None:
        made = self.build()
        value = self.value(made)
        if value.requires_grad:
            value.backward()
        assert all(parameter.grad is None for parameter in made.context.teacher.model.parameters())

    def test_the_teacher_is_no_part_of_the_loss(self) -> None:
        made = self.build()
        inside = {id(parameter) for parameter in made.loss.parameters()}
        for view in (made.context.teacher, made.context.student):
            assert inside.isdisjoint(map(id, view.model.parameters()))

    def test_one_row_works(self) -> None:
        value = self.value(self.build(), size=1)
        assert value.ndim == 0 and torch.isfinite(value)

    def test_rows_without_labels_add_nothing_of_the_llm(self) -> None:
        made = self.build()
        value = self.value(made, labels=False)
        assert torch.isfinite(value)
        if made.loss.needs == {"lists"}:
            assert float(value.detach()) == 0.0

    def test_the_same_seed_gives_the_same_value(self) -> None:
        first, second = (self.value(self.build(), seed=4).detach() for _ in range(2))
        assert torch.equal(first, second)

    def test_gradient_is_that_of_the_value(self) -> None:
        """Central differences along random directions, in double precision."""
        made = self.build()
        if not (self.smooth and self.trains):
            pytest.skip("part of this loss is detached on purpose")
        parameters = [*made.context.student.model.parameters(), *made.loss.parameters()]
        gradients = torch.autograd.grad(self.value(made), parameters, allow_unused=True)
        generator = torch.Generator().manual_seed(0)
        for _ in range(3):
            directions = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
            analytic = sum(
                float((g * d).sum()) for g, d in zip(gradients, directions, strict=True) if g is not None
            )
            step, sides = 1e-6, []
            for sign in (1, -1):
                with torch.no_grad():
                    for p, d in zip(parameters, directions, strict=True):
                        p += sign * step * d
                    sides.append(float(self.value(made)))
                    for p, d in zip(parameters, directions, strict=True):
                        p -= sign * step * d
            assert (sides[0] - sides[1]) / (2 * step) == pytest.approx(analytic, rel=1e-4, abs=1e-7)

    def test_needs_are_known_and_options_are_checked(self) -> None:
        made = self.build()
        assert made.loss.needs <= {"lists", "teacher_scores", "teacher_vectors", "popularity", "item_text"}
        assert made.loss.options["weight"] >= 0
        with pytest.raises(AlkdError, match=r"kd_config: .* has no setting 'weigth'.*; allowed: .*weight"):
            self.made_by(made.context, {"weigth": 1.0})
        with pytest.raises(
            AlkdError, match=r"kd_config: .*weight: -1 is not allowed; allowed: a number of at least 0"
        ):
            self.made_by(made.context, {"weight": -1})
