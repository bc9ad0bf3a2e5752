"""The page of a report: one HTML file without any request, light and dark, sortable, readable on a phone.

What is worth knowing comes first at any width: the verdicts in words, then the figures, then the tables:
verdicts, costs and groups of targets. A window too narrow for a table shows each of its rows as a card, and
the figure of all arms as bars that fit.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recbole_alkd.bench.columns import Cell, Sheet
    from recbole_alkd.bench.verdicts import Verdicts

# nothing is asked for, whatever the names in a plan hold
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --good: #1a7f37; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --good: #5fd07a; --bad: #ff8a80; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 0 auto; padding: 1rem;
  background: Canvas; color: CanvasText; overflow-wrap: anywhere; }
h1, h2 { line-height: 1.2; }
.summary { border-left: .3rem solid #2f7ed8; background: var(--soft); padding: .6rem 1rem; margin: 1rem 0; }
.summary p, .summary ul { margin: .2rem 0; }
.summary .lead { font-size: 1.15rem; font-weight: 600; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(34rem, 100%), 1fr)); gap: 1rem; }
.arms { display: none; }
.arm { display: grid; grid-template-columns: 1fr auto; gap: 0 .8rem; padding: .3rem 0; font-size: .9rem; }
.axis { grid-column: 1 / -1; position: relative; height: 1rem; border-bottom: 1px solid var(--line); }
.axis i { position: absolute; top: 0; height: 1rem; }
.axis .zero { border-left: 1px dotted currentColor; }
.axis .bar { top: .4rem; height: .25rem; background: #2f7ed8; min-width: 1px; }
.axis .dot { top: .2rem; width: .6rem; height: .6rem; margin-left: -.3rem; background: #2f7ed8;
  rotate: 45deg; }
/* a shadow at the right says that there is more; at the end of the way a cover that scrolls along hides it */
.scroll { overflow-x: auto; background: linear-gradient(to left, Canvas 1rem, transparent) right / 2rem
  100% no-repeat local,
  linear-gradient(to left, #8886, transparent) right / 1rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .3rem .5rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top;
  overflow-wrap: normal; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: Canvas;
  overflow-wrap: anywhere;
  min-width: 8rem; }
td.verdict { text-align: left; }
th.verdict { text-align: left; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid #2f7ed8; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
.better, .better-maybe { color: var(--good); } .worse, .worse-maybe { color: var(--bad); }
.better, .worse { font-weight: 600; }
svg { max-width: 100%; height: auto; min-width: 34rem; }
footer, .failed, .notes { font-size: .9rem; }
details { margin: 1rem 0; } details summary { font-size: 1.1rem; font-weight: 600; cursor: pointer; }
@media (max-width: 36rem) {
  .arms { display: block; }
  .figures .drawn-above { display: none; }
}
@media print {
  :root { color-scheme: light; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  .figures { grid-template-columns: 1fr 1fr; } svg { min-width: 0; }
  .summary, figure, tr, .arm { break-inside: avoid; }
  .scroll { overflow: visible; background: none; }
  th button::after { content: "" !important; }
}
@media screen and (max-width: 64rem) {
  table, tbody, thead { display: block; }
  thead tr { display: flex; flex-wrap: wrap; gap: .2rem .8rem; padding: .4rem 0;
    border-bottom: 1px solid var(--line); }
  thead tr::before { content: "sort by"; }
  th { border: 0; padding: 0; }
  th:first-child { min-width: 0; position: static; }
  th button { text-decoration: underline; padding: .2rem 0; }
  tbody tr { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .3rem .8rem;
    padding: .6rem 0;
    border-bottom: 1px solid var(--line); }
  td { display: block; border: 0; padding: 0; text-align: left; min-width: 0; overflow-wrap: anywhere; }
  td:first-child { font-size: 1rem; font-weight: 600; position: static; }
  td:first-child, td.verdict { grid-column: 1 / -1; }
  td.verdict { font-size: .95rem; }
  td:empty { display: none; }
  td:not(:first-child, .verdict)::before { content: attr(data-label); display: block; font-size: .75rem;
    opacity: .75; }
}
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
  rows.sort((a, b) => last(a) - last(b) ||
    (up ? 1 : -1) * (numeric ? number(a) - number(b) : value(a).localeCompare(value(b))));
  table.tBodies[0].append(...rows);
});
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(one => one.open = true));
"""


def page(
    plan: Any, tables: Sequence[Any], verdicts: Sequence[Verdicts], failed: Sequence[str],
    figures: Sequence[Sequence[str]],
    sheets: Sequence[Sequence[Sheet]], notes: Sequence[str], method: str,
) -> str:  # fmt: skip
    """The whole page. ``figures``: the SVGs of each table. ``sheets``: what is shown of each,
    after the figures."""
    escape = html.escape
    parts = [f"<h1>{escape(plan.name)}</h1>"]
    parts += [_summary(one) for one in verdicts]
    if notes:
        parts.append(f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>')
    for table, drawn, shown in zip(tables, figures, sheets, strict=True):
        parts.append(f"<h2>{escape(table.dataset)}, {escape(table.backbone)}</h2>")
        parts.append(f"<p>{table.sessions:,} test sessions, {len(plan.seeds)} seeds.</p>")
        parts += [_figures(plan, table, drawn), *map(_sheet, shown)]
    if failed:
        items = "".join(f"<li>{escape(line)}</li>" for line in failed)
        parts.append(f'<section class="failed"><h2>Failed runs</h2><ul>{items}</ul></section>')
    parts.append(f"<footer><p>{escape(method)}</p></footer>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(plan.name)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + f"\n<script>{SCRIPT}</script></body></html>\n"
    )


def _summary(verdicts: Verdicts) -> str:
    items = "".join(f"<li>{html.escape(text)}</li>" for text in verdicts.parts)
    lead = f'<p class="lead">{html.escape(verdicts.lead)}</p>' if verdicts.lead else ""
    return f'<div class="summary">{lead}<p>{html.escape(verdicts.head)}:</p><ul>{items}</ul></div>'


def _figures(plan: Any, table: Any, drawn: Sequence[str]) -> str:
    """The figures of a table. Where a window is too narrow for the first one, bars of HTML stand for it."""
    bars = "" if plan.study else _arms(plan.metrics[0], table)
    shown = []
    for number, figure in enumerate(drawn):
        mark = " drawn-above" if bars and number == 0 else ""
        shown.append(f'<figure class="scroll{mark}" style="margin: 0">{figure}</figure>')
    return f'<div class="figures">{bars}{"".join(shown)}</div>'


def _arms(metric: str, table: Any) -> str:
    """Every arm with its mean and the interval of its difference from the reference, as bars in per cent."""
    base = next((row.values[metric].mean() for row in table.rows if row.is_reference), None)
    spans = []
    for row in table.rows:
        mean, comparison = float(row.values[metric].mean()), row.comparison.get(metric)
        known = comparison is not None and base is not None
        spans.append((mean, base + comparison.low, base + comparison.high) if known else (mean, mean, mean))
    least, most = min(low for _, low, _ in spans), max(high for *_, high in spans)
    room = (most - least) or 1.0

    def place(value: float) -> float:
        return 2 + 96 * (value - least) / room

    zero = f'<i class="zero" style="left: {place(base):.1f}%"></i>' if base is not None else ""
    shown = []
    for row, (mean, low, high) in zip(table.rows, spans, strict=True):
        bar = f"left: {place(low):.1f}%; width: {place(high) - place(low):.1f}%"
        shown.append(
            f'<div class="arm"><span>{html.escape(row.words)}</span><span>{mean:.4f}</span>'
            f'<div class="axis">{zero}<i class="bar" style="{bar}"></i>'
            f'<i class="dot" style="left: {place(mean):.1f}%"></i></div></div>'
        )
    caption = f"test {html.escape(metric)}; bar: 95 % interval of the difference, from the reference (dotted)"
    return f'<div class="arms">{"".join(shown)}<p>{caption}</p></div>'


def _sheet(sheet: Sheet) -> str:
    escape = html.escape
    words = f"<p>{escape(sheet.words)}</p>" if sheet.words else ""
    classes = ['class="verdict" ' if name == "verdict" else "" for name in sheet.header]
    named = zip(classes, sheet.header, strict=True)
    head = "".join(
        f'<th {mark}scope="col"><button type="button">{escape(name)}</button></th>' for mark, name in named
    )
    body = "".join(_row(sheet.header, row) for row in sheet.rows)
    words += "<p>A click on a column's name sorts by it.</p>" if not sheet.title else ""
    table = (
        f'{words}<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )
    return f"<details><summary>{escape(sheet.title)}</summary>{table}</details>" if sheet.title else table


def _row(header: Sequence[str], cells: Sequence[Cell]) -> str:
    shown = []
    for name, cell in zip(header, cells, strict=True):
        mark = " ".join(filter(None, ("verdict" if name == "verdict" else "", cell.mark)))
        value, label = html.escape(str(cell.value), quote=True), html.escape(name, quote=True)
        classes = f' class="{mark}"' if mark else ""
        text = html.escape(cell.text).replace(" %", "&nbsp;%")
        shown.append(f'<td data-value="{value}" data-label="{label}"{classes}>{text}</td>')
    return "<tr>" + "".join(shown) + "</tr>"
