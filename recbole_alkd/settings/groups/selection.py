"""Which instances are labelled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recbole_alkd.settings.field import above, at_least, between, setting
from recbole_alkd.settings.groups.group import Group
from recbole_alkd.settings.rules import RATIO


@dataclass(frozen=True)
class SelectionSettings(Group):
    """Which instances are labelled, and how many."""

    heading = "active selection"
    alkd_unit: str = setting(
        "session", str, choices=("session", "item"),
        help="What is labelled: session (what comes next in it), or item (which items people who chose it "
        "choose next).",
    )
    alkd_policy: str = setting("max_min", str, help="max_min (exact), random, easiest, hardest, listed, ...")
    alkd_draw: str = setting(
        "gumbel",
        str,
        choices=("gumbel", "pps"),
        help="gumbel (the paper's Algorithm 1 in one pass) or pps (fixed size, exact inclusion "
        "probabilities).",
    )
    alkd_fill: str = setting(
        "error",
        str,
        choices=("error", "next"),
        help="When the budget exceeds the policy's support: error, or next (the next-best instances; "
        "always after a pilot).",
    )
    alkd_mu: float = setting(
        10,
        float,
        check=at_least(0),
        help="Gain of an effective label: 1 / rank^mu, rank 1 is the hardest instance.",
    )
    alkd_ratio: Any = setting(
        [1, 5, 4],
        list,
        str,
        check=RATIO,
        help="Assumed effective : similar : incorrect labels, or pilot.",
    )
    alkd_rounds: int = setting(1, int, check=at_least(1), help="Rounds of select, ask, distil.")
    alkd_pool: str = setting(
        "last",
        str,
        choices=("last", "prefix"),
        help="Instances that may be labelled: last (one a session), prefix (every training row).",
    )
    alkd_picks: str | None = setting(
        None,
        str,
        help="For the policy listed: a JSON file of session ids, FILE or FILE#key.",
    )
    alkd_difficulty: str = setting("consistency", str, help="consistency (the paper's), loss, rank.")
    alkd_pilot: int = setting(
        100,
        int,
        check=at_least(1),
        help="Labels of the uniform pilot that estimates the ratio (part of the budget).",
    )
    alkd_confidence: float = setting(
        0.95,
        float,
        check=between(0, 1, "()"),
        help="Joint confidence of the pilot's bounds.",
    )
    budget_labels: int = setting(500, int, check=at_least(1), help="LLM rankings this run may use.")
    budget_tokens: int | None = setting(None, int, check=at_least(1), help="Tokens this run may spend.")
    budget_usd: float | None = setting(None, float, check=above(0), help="US dollars this run may spend.")
