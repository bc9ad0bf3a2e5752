"""What settings must have of each other, as far as settings alone tell."""

from __future__ import annotations

from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import Settings
from recbole_alkd.settings.rules import is_vector_file


def check_together(settings: Settings) -> None:
    """AlkdError where two settings do not go together."""
    teacher, selection = settings.teacher, settings.selection
    if teacher.llm_top_n > teacher.llm_candidates:
        raise AlkdError(
            f"llm_top_n: {teacher.llm_top_n} is more than llm_candidates ({teacher.llm_candidates}); "
            "allowed: at most that many"
        )
    if settings.backbone.student_neighbors is not None and settings.backbone.student_bytes is not None:
        raise AlkdError(
            "student_bytes: not allowed beside student_neighbors, which decides the size too; "
            "give one of the two"
        )
    text = settings.text
    for key in ("item_text_lora", "item_text_layer"):
        value = getattr(text, key)
        if value and (text.item_text == "tfidf" or is_vector_file(text.item_text or "")):
            raise AlkdError(f"{key}: {value} has no meaning for item_text: {text.item_text}; leave it out")
    if teacher.label_engine == "ray" and teacher.llm_teacher != "local":
        raise AlkdError(
            f"label_engine: 'ray' is for the LLM teacher local, not for {teacher.llm_teacher!r}; "
            "for api give several servers (llm_base_url: a list)"
        )
    if teacher.ray_address and teacher.label_engine != "ray":
        raise AlkdError("ray_address: only used with label_engine: ray")
    if selection.alkd_ratio == "pilot" and selection.alkd_pilot >= selection.budget_labels:
        raise AlkdError(
            f"alkd_pilot: {selection.alkd_pilot} leaves nothing of budget_labels "
            f"({selection.budget_labels}); "
            "allowed: less than that"
        )
    if selection.alkd_policy == "listed" and not selection.alkd_picks:
        raise AlkdError(
            f"alkd_picks: the policy 'listed' needs a JSON file of {selection.alkd_unit} ids; "
            "give alkd_picks: FILE or FILE#key"
        )
