"""Selection from a file, for picks that were made elsewhere (another run, a published selection)."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np

from recbole_alkd.active.policy.base import Policy, Pool, Selection
from recbole_alkd.active.sampling import PoolExhausted
from recbole_alkd.registry import policies
from recbole_alkd.settings.error import AlkdError

logger = logging.getLogger(__name__)


@policies.register("listed")
class Listed(Policy):
    """Needs ``alkd_picks``. Takes the first ``size`` listed sessions that are in the pool,
    in the file's order; no guarantee.

    Of a session with several instances the last one is taken. Sessions that are listed and not in the pool
    are skipped and logged; so are those that an earlier round has labelled.
    ``alkd_fill`` does not apply: the list decides.
    """

    def select(self, pool: Pool, size: int, rng: np.random.Generator) -> Selection:
        listed = read_picks(self.settings.alkd_picks)
        place = {str(session): index for index, session in enumerate(pool.sessions)}
        in_pool = [place[session] for session in listed if session in place]
        absent = [session for session in listed if session not in place]
        if absent:
            logger.warning(
                "alkd_picks: %d of %d listed %ss are not in the pool (never there, "
                "or labelled already): %s%s",
                len(absent),
                len(listed),
                self.settings.alkd_unit,
                ", ".join(absent[:5]),
                ", ..." if len(absent) > 5 else "",
            )
        if size > len(in_pool):
            raise PoolExhausted(len(in_pool), size)
        return Selection(np.array(in_pool[:size], dtype=np.int64), support=len(in_pool))


def read_picks(source: str | None) -> list[str]:
    """The distinct session ids in a JSON file, in its order: ``FILE`` with a list,
    or ``FILE#key`` with a mapping to lists.

    Raises:
        AlkdError: no file, not JSON, no such key (the message lists the keys), or no list of ids.
    """
    if not source:
        raise AlkdError(
            "alkd_picks: the policy 'listed' needs a JSON file of session ids, or of item ids; "
            "give alkd_picks: FILE or FILE#key"
        )
    name, _, key = (
        (source, "", "")
        if Path(source).is_file()
        else source.rpartition("#")
        if "#" in source
        else (source, "", "")
    )
    try:
        content = json.loads(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise AlkdError(
            f"alkd_picks: {name!r} cannot be read ({error.strerror}); allowed: a JSON file, FILE or FILE#key"
        ) from None
    except (ValueError, RecursionError) as error:
        raise AlkdError(f"alkd_picks: {name!r} is not JSON: {error}") from None
    if isinstance(content, dict):
        if key not in content:
            asked = f"has no key {key!r}" if key else "holds several lists"
            lists = [str(one) for one, ids in content.items() if isinstance(ids, list)] or content
            raise AlkdError(
                f"alkd_picks: {name!r} {asked}; allowed: {name}#KEY with KEY one of {', '.join(lists)}"
            )
        content = content[key]
    elif key:
        raise AlkdError(f"alkd_picks: {name!r} holds a list and no key {key!r}; allowed: {name}")
    if not isinstance(content, list) or not all(
        isinstance(entry, (str, int)) and not isinstance(entry, bool) for entry in content
    ):
        raise AlkdError(
            f"alkd_picks: {source!r} is no list of ids; allowed: a JSON list of texts or integers"
        )
    return list(dict.fromkeys(str(entry) for entry in content))
