"""Student and teacher recommender: what they are, how they are trained, and what titles add."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recbole_alkd.settings.field import at_least, between, setting
from recbole_alkd.settings.groups.group import Group
from recbole_alkd.settings.rules import FOLDER_OR_FALSE, WEIGHTS


@dataclass(frozen=True)
class BackboneSettings(Group):
    """The student and the teacher recommender."""

    heading = "teacher recommender and student"
    student_model: str = setting(
        "SessionFPMC",
        str,
        help="A backbone: SessionFPMC, SessionSTAMP, AttMix, GRU4Rec, NARM, STAMP, SASRec, SRGNN, ..., or "
        "SessionKNN.",
    )
    teacher_model: str = setting("SessionFPMC", str, help="The same choice.")
    student_embedding_size: int = setting(
        10,
        int,
        check=at_least(1),
        help="Size of the student's vectors; also hidden_size where its model has one.",
    )
    teacher_embedding_size: int = setting(
        100,
        int,
        check=at_least(1),
        help="The same for the teacher recommender.",
    )
    student_neighbors: int | None = setting(
        None,
        int,
        check=at_least(1),
        help="SessionKNN: neighbours an item. ~: all.",
    )
    student_bytes: int | None = setting(
        None,
        int,
        check=at_least(1),
        help="SessionKNN: the size of the table in bytes, in place of student_neighbors. ~: any.",
    )
    student_config: dict[str, Any] = setting(
        {},
        dict,
        help="RecBole settings of the student's own model, laid over that model's YAML.",
    )
    teacher_config: dict[str, Any] = setting({}, dict, help="The same for the teacher recommender.")
    stage_cache: str | bool | None = setting(
        None,
        str,
        bool,
        check=FOLDER_OR_FALSE,
        decides=False,
        help="Folder that shares trained teacher recommenders and plain students between runs. ~: stages/ "
        "in checkpoint_dir. False: each run trains its own.",
    )
    student_tune: int = setting(
        0,
        int,
        check=at_least(0),
        help="Settings tried on validation for student, teacher recommender and distillation each, the "
        "run's own first. 0: none.",
    )
    student_search: str | None = setting(
        None,
        str,
        decides=False,
        help="YAML file with the values that are tried. ~: properties/student_search.yaml.",
    )


@dataclass(frozen=True)
class TrainingSettings(Group):
    """How student and teacher recommender are trained before there are labels."""

    heading = "training of student and teacher recommender"
    train_loss: str | None = setting(
        "sampled_softmax",
        str,
        choices=("sampled_softmax",),
        null=True,
        help="~: the backbone's own loss (the paper's for SessionFPMC, SessionSTAMP, AttMix).",
    )
    train_backwards: bool = setting(False, bool, help="Sessions read from their end are training rows too.")
    softmax_negatives: int = setting(1024, int, check=at_least(1), help="Drawn items that a batch shares.")
    softmax_uniform: float = setting(
        0.5,
        float,
        check=between(0, 1, "(]"),
        help="Share of uniform draws; the rest is drawn by label frequency.",
    )
    softmax_l2: float = setting(
        0.01,
        float,
        check=at_least(0),
        help="Weight of the squares of the vectors a batch looks up.",
    )
    softmax_dropout: float = setting(
        0.3,
        float,
        check=between(0, 1, "[)"),
        help="Share of a session's items that is left out of the input.",
    )


@dataclass(frozen=True)
class TextSettings(Group):
    """What item titles say: their encoder, and what is made of the vectors."""

    heading = "item titles"
    item_text: str | None = setting(
        None,
        str,
        help="Encoder of titles: tfidf, minilm, smollm2-135m-instruct, or a Hugging Face id or folder; or "
        "FILE.npy with vectors of one's own, and FILE.ids. ~: titles are not used by the student.",
    )
    item_text_layer: int | None = setting(
        None,
        int,
        check=at_least(0),
        help="Hidden layer of a language model whose mean is the vector, 0: the embeddings. ~: 10 for the "
        "bundled model, else the last one.",
    )
    item_text_neighbors: int = setting(
        20,
        int,
        check=at_least(1),
        help="Nearest titles of an item that count as its neighbours.",
    )
    item_text_similarity: float = setting(
        0.3,
        float,
        check=between(0, 1, "[)"),
        help="Neighbours have a centred cosine above this.",
    )
    item_text_permuted: bool = setting(False, bool, help="Control: every item has the title of another one.")
    item_text_whiten: float = setting(
        0.0,
        float,
        check=between(0, 1),
        help="Power of the spectrum that is taken out of the vectors, 0: as they are, 1: full whitening.",
    )
    item_text_dim: int | None = setting(
        None,
        int,
        check=at_least(1),
        help="Principal axes that are kept. ~: 128 with item_text_whiten or item_text_graph, else the "
        "vectors as they are.",
    )
    item_text_graph: float = setting(
        0.0,
        float,
        check=between(0, 1),
        help="What the agreement of items that sessions hold together counts in the choice of axes, 0: plain "
        "PCA.",
    )
    item_text_map: int | None = setting(
        None,
        int,
        check=at_least(1),
        help="Coordinates of a linear map, learnt from items that sessions hold together; those that most "
        "probably go with an item become its edges. Such as 128. ~: none.",
    )
    item_text_lora: int = setting(
        0,
        int,
        check=at_least(0),
        help="Steps, at most, of a LoRA adapter on the encoder, trained on consecutive items. 0: the frozen "
        "encoder.",
    )
    item_text_edges: str = setting(
        "titles",
        str,
        choices=("titles", "neighbors", "both"),
        help="Edges of a table that counts: to items with like titles, to the counted neighbours of these, "
        "or both.",
    )
    item_text_loss: Any = setting(
        None,
        str,
        dict,
        help="text_pairs, text_project or {loss: weight, ...}: beside the student's recommendation loss, "
        "before any label. ~: none.",
    )
    item_text_config: dict[str, Any] = setting({}, dict, help="Settings of these losses, as in kd_config.")
    serve_text_dim: int | None = setting(
        None,
        int,
        check=at_least(1),
        help="Late fusion: coordinates of the titles that are served beside the student's vectors, such as "
        "128. ~: none.",
    )
    serve_text_weight: Any = setting(
        [0, 5, 10, 20],
        list,
        float,
        check=WEIGHTS,
        help="Their weight in the score; validation chooses from a list, 0 is the plain student.",
    )
