"""How a function of RecBole's is replaced in every module that has imported it."""

from __future__ import annotations

import sys
from typing import Any


def replace_everywhere(name: str, original: Any, new: Any) -> None:
    """Set ``new`` wherever a module of RecBole's holds ``original`` as ``name``."""
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] == "recbole" and getattr(module, name, None) is original:
            setattr(module, name, new)
