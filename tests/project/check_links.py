"""Check the links of a built site: ``python tests/project/check_links.py site`` (called by ``make docs``).

Every ``href`` and ``src`` within the site must name a file of it, and every fragment an element of that page. Addresses
elsewhere are not asked for. Exit code 1 names the links that lead nowhere.
"""

import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links of a page, and the names that links can lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value is None:
                continue
            if name in ("href", "src") and tag != "base":
                self.links.append(value)
            elif name in ("id", "name"):
                self.names.add(value)


@cache
def read(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text("utf-8"))
    return page


def dead_links(site: Path) -> list[str]:
    """``page: link`` for every link within *site* that leads nowhere."""
    found = []
    for path in sorted(site.rglob("*.html")):
        for link in read(path).links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            base = site if parts.path.startswith("/") else path.parent
            target = (base / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            fragment = unquote(parts.fragment)
            if not target.is_file() or (
                fragment and target.suffix == ".html" and fragment not in {*read(target).names, "__skip", "_top"}
            ):
                found.append(f"{path.relative_to(site)}: {link}")
    return found


if __name__ == "__main__":
    dead = dead_links(Path(sys.argv[1]).resolve())
    print("\n".join(dead) or "every link leads somewhere")
    sys.exit(bool(dead))
