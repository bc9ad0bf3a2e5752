"""The items that somebody means who gives ids or titles."""

from __future__ import annotations

from recbole_alkd.serving.items import folded
from recbole_alkd.serving.recommender import Recommender
from recbole_alkd.settings.error import AlkdError

HISTORY = 'item ids between spaces ("50 181 174"), or ids and titles between semicolons ("Fargo; Star Wars")'


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


def read_history(recommender: Recommender, text: str) -> list[str]:
    """The item ids that somebody typed: ids between spaces, or ids and titles between semicolons.

    Raises:
        AlkdError: nothing there, or something that is neither an id nor the title of one item;
            it shows near ones.
    """
    words = text.split()
    if not words:
        raise AlkdError(f"--history: empty; allowed: {HISTORY}")
    if ";" not in text:
        known = [recommender.items.number(word) for word in words]
        if all(known):
            return words
        if any(known):
            return [read_item(recommender, word, "--history") for word in words]
    return [read_item(recommender, part.strip(), "--history") for part in text.split(";") if part.strip()]
