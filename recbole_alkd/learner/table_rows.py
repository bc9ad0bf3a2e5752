"""``report_tables``: neighbour tables (SessionKNN) as rows beside a run's stages,
with and without item titles.

They are counted in seconds, without an LLM, and are what a distilled student has to beat.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from logging import Logger
from time import perf_counter
from typing import Any

from recbole_alkd.data.titles import NoTitlesError
from recbole_alkd.learner.counting import count_model
from recbole_alkd.learner.item_text import ItemText
from recbole_alkd.learner.outcome import saved_state, state_bytes
from recbole_alkd.model.backbone import SessionRecommender
from recbole_alkd.settings.groups import TextSettings
from recbole_alkd.settings.reading import laid_over, settings_of

ENCODER = "tfidf"  # of titles, where the run itself names none: no model, under a second


def table_words(name: str) -> str:
    """What the printed table calls a row: "session_knn_10_titles" is "SessionKNN 10, titles"."""
    neighbors, _, titles = name.removeprefix("session_knn_").partition("_")
    return f"SessionKNN {neighbors}" + (f", {titles}" if titles else "")


@dataclass(frozen=True)
class TableRow:
    """A fitted table. ``name``: its key in ``baselines``. fitted: what validation chose.
    seconds: of fitting it."""

    name: str
    model: SessionRecommender
    fitted: dict[str, float]
    seconds: float

    def facts(self) -> dict[str, Any]:
        return {
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "bytes": state_bytes(saved_state(self.model)),
            "seconds": self.seconds,
            "fitted": self.fitted,
        }


def table_rows(
    config: Any, train: Any, valid: Any, text: ItemText | None, logger: Logger
) -> Iterator[TableRow]:
    """Fit the tables of ``report_tables``, one after the other; those with titles are left out where the data
    set has none.

    Args:
        config: RecBole's Config of the run. train, valid: parts of its data set (valid may be None).
        text: the run's own title vectors, or None; then titles are compared by TF-IDF.
    """
    sizes = settings_of(config).report.report_tables
    titles = titles_of(train, text) if sizes else None
    for neighbors in sizes:
        for own in (None, titles) if titles else (None,):
            name = f"session_knn_{neighbors}" + ("_titles" if own else "")
            viewed = table_config(config, neighbors, own.text if own else TextSettings())
            settings = settings_of(viewed)
            begin = perf_counter()
            model = SessionRecommender(viewed, train, settings, "student").to(config["device"])
            fitted = count_model(model.recommender, train, valid, logger, None, own, table_words(name))
            yield TableRow(name, model.eval(), fitted, round(perf_counter() - begin, 3))


def titles_of(train: Any, text: ItemText | None) -> ItemText | None:
    """Title vectors for a table, by the run's own encoder or TF-IDF; None where no item has a title."""
    layer = text.text.item_text_layer if text else None
    titles = ItemText(
        TextSettings(item_text=text.text.item_text if text else ENCODER, item_text_layer=layer), train
    )
    try:
        return titles if titles.vectors.any() else None
    except NoTitlesError:
        return None


def table_config(config: Any, neighbors: int, text: TextSettings) -> Any:
    """The run's Config as a SessionKNN student with so many neighbours, and these settings of titles,
    sees it."""
    size = {"student_neighbors": neighbors, "student_bytes": None}
    own: dict[str, Any] = {
        "student_model": "SessionKNN",
        **size,
        "train_loss": None,
        "train_backwards": False,
        **text.flat(),
    }
    # laid over the model's own YAML, which has these too
    own["student_config"] = {**size, "item_text": text.item_text}
    return laid_over(config, own)
