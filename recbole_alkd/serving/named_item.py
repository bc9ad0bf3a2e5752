"""The item that somebody means who gives an id or a title."""

from __future__ import annotations

from recbole_alkd.serving.items import folded
from recbole_alkd.serving.recommender import Recommender
from recbole_alkd.settings.error import AlkdError


def read_item(recommender: Recommender, text: str, name: str) -> str:
    """The id of an item that somebody named by its id or its title, in any case;
    the only one whose title holds these words."""
    if recommender.items.number(text):
        return text
    matches = recommender.find(text)
    same = [one for one in matches if folded(one.title) == folded(text)]
    held = [one for one in matches if folded(text) in folded(one.title)]
    if same:
        return same[0].item
    if len(held) == 1:
        return held[0].item
    near = ", ".join(f"{one.title!r} (id {one.item})" for one in matches[:5])
    hint = f"; did you mean {near}?" if near else ""
    raise AlkdError(f"{name}: {text[:80]!r} is no item id and no title of one item{hint}")
