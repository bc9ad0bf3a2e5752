"""The page of a report: one HTML file without any request, light and dark, sortable, readable on a phone."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --good: #1a7f37; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --good: #5fd07a; --bad: #ff8a80; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 0 auto; padding: 1rem;
  background: Canvas; color: CanvasText; }
h1, h2 { line-height: 1.2; }
.summary { border-left: .3rem solid #2f7ed8; background: var(--soft); padding: .6rem 1rem; }
/* a shadow at the right says that there is more; at the end of the way a cover that scrolls along hides it */
.scroll { overflow-x: auto; background: linear-gradient(to left, Canvas 1rem, transparent) right / 2rem 100% no-repeat local,
  linear-gradient(to left, #8886, transparent) right / 1rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: Canvas;
  white-space: normal; min-width: 13rem; }
@media (max-width: 40rem) { th:first-child, td:first-child { min-width: 7rem; } }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid #2f7ed8; }
th[aria-sort=ascending] button::after { content: " \\2191"; } th[aria-sort=descending] button::after { content: " \\2193"; }
.better { color: var(--good); } .worse { color: var(--bad); }
svg { max-width: 100%; height: auto; min-width: 34rem; }
footer, .failed { font-size: .9rem; }
"""

SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const head = button.parentElement, table = head.closest("table"), column = head.cellIndex;
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const value = row => row.cells[column].dataset.value, number = row => parseFloat(value(row));
  const rows = [...table.tBodies[0].rows], numeric = rows.some(row => !isNaN(number(row)));
  const last = row => numeric && isNaN(number(row));
  rows.sort((a, b) => last(a) - last(b) || (up ? 1 : -1) * (numeric ? number(a) - number(b) : value(a).localeCompare(value(b))));
  table.tBodies[0].append(...rows);
});
"""


@dataclass(frozen=True)
class Sheet:
    """A table to sort. ``rows``: of every cell the shown text and the value that its column is sorted by."""

    title: str
    words: str
    header: Sequence[str]
    rows: Sequence[Sequence[tuple[str, Any]]]


def page(
    plan: Any, tables: Sequence[Any], words: str, failed: Sequence[str], figures: Sequence[Sequence[str]],
    sheets: Sequence[Sequence[Sheet]], method: str,
) -> str:  # fmt: skip
    """The whole page. ``figures``: the SVGs of each table. ``sheets``: what is shown of each. ``method``: how all came about."""
    escape = html.escape
    parts = [f"<h1>{escape(plan.name)}</h1>"]
    parts += [f'<p class="summary">{escape(sentence)}</p>' for sentence in words.splitlines()]
    for table, drawn, shown in zip(tables, figures, sheets, strict=True):
        parts.append(f"<h2>{escape(table.dataset)}, {escape(table.backbone)}</h2>")
        parts.append(f"<p>{table.sessions:,} test sessions, {len(plan.seeds)} seeds. A click on a column sorts by it.</p>")
        parts += [f'<div class="scroll">{figure}</div>' for figure in drawn]
        for sheet in shown:
            parts += [f"<h3>{escape(sheet.title)}</h3>", f"<p>{escape(sheet.words)}</p>"] if sheet.title else []
            parts.append(_table(sheet))
    if failed:
        items = "".join(f"<li>{escape(line)}</li>" for line in failed)
        parts.append(f'<section class="failed"><h2>Failed runs</h2><ul>{items}</ul></section>')
    parts.append(f"<footer><p>{escape(method)}</p></footer>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(plan.name)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + f"\n<script>{SCRIPT}</script></body></html>\n"
    )


def _table(sheet: Sheet) -> str:
    head = "".join(f'<th scope="col"><button type="button">{html.escape(name)}</button></th>' for name in sheet.header)
    body = "".join(map(_row, sheet.rows))
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _row(cells: Sequence[tuple[str, Any]]) -> str:
    shown = []
    for text, value in cells:
        mark = f' class="{text}"' if text in ("better", "worse") else ""
        shown.append(f'<td data-value="{html.escape(str(value), quote=True)}"{mark}>{html.escape(text)}</td>')
    return "<tr>" + "".join(shown) + "</tr>"
