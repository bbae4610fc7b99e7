"""Results as HTML for notebooks: no scripts, no other files, the same on light and dark pages."""

from collections.abc import Sequence
from html import escape

from training.common.output import Table

STYLE = """
.interp-result { background: #fff; color: #1d2530; padding: 8px 10px; overflow-x: auto;
  font: 13px/1.45 system-ui, -apple-system, "Segoe UI", "Liberation Sans", Arial, sans-serif; }
.interp-result .maps { display: flex; flex-wrap: wrap; gap: 12px 20px; }
.interp-result .rows { max-height: 26em; overflow: auto; width: fit-content; max-width: 100%; }
.interp-result table { border-collapse: collapse; margin: 0; font-size: 12.5px; color: inherit; }
.interp-result th, .interp-result td { text-align: right; padding: 3px 10px; white-space: nowrap; font-weight: 400;
  background: none; border: 0; border-bottom: 1px solid #dfe3e8; font-variant-numeric: tabular-nums; }
.interp-result th:first-child, .interp-result td:first-child { text-align: left; }
.interp-result thead th { color: #5b6673; position: sticky; top: 0; background: #fff; }
.interp-result p { margin: 8px 0 4px; max-width: 90ch; }
.interp-result .soft { color: #5b6673; font-size: 12px; }
.interp-result svg { font-family: inherit; }
.interp-result svg .found { fill: none; stroke: #e0762b; stroke-width: 2; }
"""


def result_html(maps: Sequence[str], tables: Sequence[Table], sentences: Sequence[str]) -> str:
    """One result as HTML.

    Args:
        maps: SVG, with its text escaped.
        tables: with titles and captions.
        sentences: the verdict.
    """
    parts = [f'<div class="maps">{"".join(maps)}</div>'] if maps else []
    parts += map(table_html, tables)
    parts += [f"<p>{escape(sentence)}</p>" for sentence in sentences]
    return f'<style>{STYLE}</style><div class="interp-result">{"".join(parts)}</div>'


def table_html(table: Table) -> str:
    """
    >>> "<td>&lt;b&gt;</td>" in table_html(Table("", ["head"], [["<b>"]]))
    True
    """
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    explanation = table.explain()
    caption = f'<p class="soft">{escape(explanation)}</p>' if explanation else ""
    title = f"<p><b>{escape(table.title)}</b></p>" if table.title else ""
    if not table.header:
        return title
    return f'{title}<div class="rows"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{caption}'
