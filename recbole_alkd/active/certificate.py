"""What the certificate of an exact selection means, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def certificate_words(policy: Mapping[str, Any]) -> str:
    """What the certificate means for a user."""
    value, upper = policy["value"], policy["upper"]
    if upper <= 0:
        return "in the worst case no policy is sure of any gain"
    share = value / upper
    if share >= 0.9995:
        return "whichever labels turn out wrong in the assumed ratio, no policy is sure of gaining more"
    return (
        f"whichever labels turn out wrong in the assumed ratio, it is sure of {share:.1%} of what the best "
        "policy can be sure of"
    )


def certificate(policy: Mapping[str, Any]) -> str:
    """The worst-case gain of a policy and the bound that no policy exceeds, in units of the assumed gains."""
    return (
        f"worst-case gain {policy['value']:.6g}, upper bound {policy['upper']:.6g}, gap {policy['gap']:.2g}"
    )
