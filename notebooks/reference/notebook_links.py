"""Links of notebooks to pages and other notebooks, which lead to their sources, lead to the pages of the site."""

import re
from typing import Any

SOURCE = re.compile(r'(<a\b[^>]* href="(?!https?:)[^"#]+)\.(?:md|ipynb)(?=["#])')


def on_page_content(content: str, **_: Any) -> str:
    """
    >>> on_page_content('<a href="concepts/results.md#speed">')
    '<a href="concepts/results.html#speed">'
    """
    return SOURCE.sub(r"\1.html", content)
