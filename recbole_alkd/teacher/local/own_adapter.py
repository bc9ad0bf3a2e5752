"""The LoRA adapter that a local teacher's labels rest on: found again by a hash of all that decides it,
trained where it is missing, used where it is shown to be better."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from recbole_alkd.llm.adapters import why_unused
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.teacher.local import lora
from recbole_alkd.teacher.local.adapter import is_used, load_adapter, read_report
from recbole_alkd.teacher.local.scorer import Scorer
from recbole_alkd.teacher.records import Materials, TeacherContext

logger = logging.getLogger(__name__)
# settings of LoRA that earlier versions had not -> what these did
_FIRST = {"lora_inserted": True, "lora_candidates": None, "lora_scale": "fixed", "lora_held_out": None}


class OwnAdapter:
    """The adapter of one run, where ``lora: True`` asks for one.

    Args:
        context: of the teacher. model: the identity of the LLM that it is trained on.
        hint_key: of the hints in the prompts. texts: what of the prompt decides the answers.
    """

    def __init__(self, context: TeacherContext, model: str, hint_key: str, texts: Sequence[str]) -> None:
        self.context, self.settings = context, context.settings.lora
        self._model, self._hint_key, self._texts = model, hint_key, list(texts)
        self._report: dict[str, Any] | None = None
        # whether labels are those of the LLM with its adapter; None: not known yet
        self._used: bool | None = None

    @cached_property
    def key(self) -> str:
        """Of everything that decides the adapter. One that an earlier version trained with the same settings
        is found again."""
        scale = self.settings.lora_scale
        own = self._key(scale)
        if scale != _FIRST["lora_scale"] and not (self._folders / own).is_dir():
            earlier = self._key(_FIRST["lora_scale"])
            with contextlib.suppress(AlkdError):
                if "lora_scale" not in read_report(self._folders / earlier)["settings"]:
                    return earlier
        return own

    def _key(self, scale: Any) -> str:
        s = self.context.settings.teacher
        given = self.settings.flat() | {"lora_scale": scale, "lora_inserted": not self.settings.only_natural}
        del given["lora_use"]
        # settings that came later count where they are not what was done before
        decides = {key: value for key, value in given.items() if key not in _FIRST or value != _FIRST[key]}
        return hashlib.sha256(
            json.dumps(
                {
                    "examples": self.context.lora_key,
                    "titles": sorted(self.context.titles.items()),
                    "lora": decides | {"lora_examples": self.context.settings.lora_examples},
                    "model": self._model,
                    "scoring": [
                        s.llm_scoring,
                        s.llm_title_tokens,
                        s.llm_history,
                        s.llm_seed,
                        s.llm_top_n,
                        self._hint_key,
                    ],
                    "weights": [s.llm_dtype, s.llm_quantize],
                    "prompt": self._texts,
                }
            ).encode()
        ).hexdigest()[:16]

    @property
    def _folders(self) -> Path:
        return self.context.cache / "adapters"

    @property
    def folder(self) -> Path:
        return self._folders / self.key

    @property
    def missing(self) -> bool:
        """Whether it has to be trained first."""
        return self.settings.lora and not self.folder.is_dir()

    @property
    def open(self) -> bool:
        """Whether it must be trained and judged before it is known whose labels these are."""
        if (
            not self.settings.lora
            or self.settings.lora_use == "always"
            or self.settings.lora_target == "replay"
        ):
            return False
        return bool(self.context.settings.lora_held_out) and not self.folder.is_dir()

    @property
    def decides(self) -> bool:
        """Whether labels are those of the LLM with its adapter; where that is not trained yet,
        they are taken to be."""
        if not self.settings.lora:
            return False
        if self._used is None and self.folder.is_dir():
            with contextlib.suppress(AlkdError):  # raised where it is loaded
                self._used = is_used(read_report(self.folder), self.settings)
        return self._used is not False

    @property
    def identity(self) -> str:
        """What of it is in the label keys."""
        return self.key if self.decides else "none"

    def put_on(self, scorer: Scorer, materials: Materials) -> None:
        """Give ``scorer`` the adapter, trained before where it is missing, unless it is not to be used.

        Raises:
            AlkdError: there are no examples, or the adapter in its folder is damaged; ``lora.train_adapter``.
        """
        model, folder = scorer.model, self.folder
        trained = False
        if not folder.is_dir():
            if materials.lora_examples is None:
                raise AlkdError(
                    "lora: True needs training sessions to make examples of, and there are none here; "
                    "set lora: False"
                )
            trained = lora.train_adapter(
                scorer,
                materials.lora_examples,
                self.context.settings,
                folder,
                held_out=materials.lora_held_out or (),
                show_progress=self.context.show_progress,
                log_metric=self.context.log_metric,
            )
        report = read_report(folder)
        adapted = load_adapter(model, folder)  # also where it is not used: a damaged one is named
        self._used = is_used(report, self.settings)
        if self._used:
            scorer.model = adapted
        else:
            scorer.model = adapted.unload().eval()
            logger.warning("LoRA: the adapter is not used: %s (lora_use: always uses it)", why_unused(report))
        self._report = {**report, "used": self._used, "adapter": str(folder), "reused": not trained}

    @property
    def report(self) -> dict[str, Any] | None:
        """That of its training; also where all labels were in the store, and nothing was loaded."""
        if self._report is None and self.settings.lora and self.folder.is_dir():
            with contextlib.suppress(AlkdError):  # a damaged one, which nobody needs
                report = read_report(self.folder)
                used = is_used(report, self.settings)
                return {**report, "used": used, "adapter": str(self.folder), "reused": True}
        return self._report
