"""How clicks become sessions."""

from __future__ import annotations

from dataclasses import dataclass

from recbole_alkd.settings.field import at_least, setting
from recbole_alkd.settings.groups.group import Group


@dataclass(frozen=True)
class SessionSettings(Group):
    """How clicks become sessions and sessions become instances."""

    heading = "sessions and instances"
    session_window: int | None = setting(
        86400,
        int,
        check=at_least(1),
        null=True,
        help="Seconds; a session is one user's clicks in one window (floor(timestamp / window), UTC). ~: "
        "the user field is the session.",
    )
    session_min_length: int = setting(5, int, check=at_least(2), help="Shorter sessions are left out.")
    session_augmentation: str = setting(
        "prefix",
        str,
        choices=("prefix", "last"),
        help="Training rows. prefix: one for every item after the first; last: one a session, as in the "
        "paper.",
    )
    session_time_unit: str | None = setting(
        None,
        str,
        choices=("s", "ms", "us", "ns"),
        help="s, ms, us or ns. ~: seconds, and a timestamp that is not an integer is an error.",
    )
    mask_session_items: bool = setting(
        False,
        bool,
        help="Whether items of the session are never recommended (as in the paper).",
    )
    title_field: str | None = setting(
        None,
        str,
        help="Column of the .item file with titles. ~: title, movie_title or name.",
    )
