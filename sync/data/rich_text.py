"""The text of HTML, as CiviCRM's rich text editor stores it: one line, in time that grows with its length. Pure."""

import re
from html import unescape

BREAKS = frozenset({
    "address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "figure", "footer", "h1", "h2",
    "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol", "p", "pre", "section", "table", "td",
    "th", "tr", "ul",
})  # fmt: skip
"""Elements that are not in the same line as what is before or after them."""
HIDDEN = ("script", "style")
_TAG = re.compile(r"<(/?)([a-z][a-z0-9]*|[!?])", re.IGNORECASE | re.ASCII)
_END = {name: re.compile(rf"</{name}[^<>]*>", re.IGNORECASE | re.ASCII) for name in HIDDEN}


def text_of(html: str) -> str:
    """What a reader sees of *html*; text without any markup stays as it is, but for white space."""
    parts: list[str] = []
    at = 0
    while (start := html.find("<", at)) >= 0:
        parts.append(html[at:start])
        tag = _TAG.match(html, start)
        if tag is None:
            parts.append("<")
            at = start + 1
            continue
        name = tag[2].lower()
        at = _after(html, "-->" if html.startswith("<!--", start) else ">", start)
        if name in BREAKS:
            parts.append(" ")
        if name in HIDDEN and not tag[1]:
            end = _END[name].search(html, at)
            at = end.end() if end else len(html)
    parts.append(html[at:])
    return " ".join(unescape("".join(parts)).split())


def _after(html: str, what: str, start: int) -> int:
    """The place after the next *what*; the end where there is none."""
    found = html.find(what, start)
    return found + len(what) if found >= 0 else len(html)
