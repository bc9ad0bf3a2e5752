"""Whether a gain on validation sessions is more than chance: paired bootstrap intervals over sessions."""

from __future__ import annotations

import numpy as np

LEVEL = 0.05
_DRAWS, _DRAWS_AT_ONCE = 1000, 100


def paired_intervals(
    differences: np.ndarray, level: float = LEVEL, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap intervals of mean differences over the same sessions.

    Args:
        differences: (sessions, k) what k things gain over what each is compared with; all are drawn together.
        level: the share of intervals that do not hold the true mean.

    Returns:
        (k,) lower ends, (k,) upper ends.
    """
    rng = np.random.default_rng(seed)
    values = np.asarray(differences, dtype=np.float32)
    sessions, means = len(values), []
    for start in range(0, _DRAWS, _DRAWS_AT_ONCE):
        draws = min(_DRAWS_AT_ONCE, _DRAWS - start)
        times = np.empty((draws, sessions), dtype=np.float32)
        for row in times:  # one draw after the other: counting it stays in the processor's cache
            row[:] = np.bincount(rng.integers(sessions, size=sessions), minlength=sessions)
        means.append(times @ values / sessions)
    low, high = np.quantile(np.concatenate(means), [level / 2, 1 - level / 2], axis=0)
    return low, high
