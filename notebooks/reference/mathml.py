"""Turns $formulas$ into MathML, which browsers draw by themselves: no script, nothing loaded from elsewhere."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

CODE = re.compile(r"(<(pre|code|script|style)\b.*?</\2>)", re.DOTALL)
FORMULA = re.compile(r"\$(?!\s)([^$<>]+)(?<!\s)\$(?!\d)")


def on_page_content(content: str, **_: Any) -> str:
    """The page with its formulas drawn, but for what is code; mkdocs calls this."""
    parts = CODE.split(content)  # prose, code, its tag, prose, ...
    prose = [FORMULA.sub(lambda found: convert(html.unescape(found[1])), part) for part in parts[::3]]
    code = [*parts[1::3], ""]
    return "".join(text for pair in zip(prose, code, strict=True) for text in pair)
