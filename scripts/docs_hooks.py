"""A hook of MkDocs: the page docs/changelog.md is CHANGELOG.md, which lies outside of docs/."""

from pathlib import Path
from typing import Any

CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return the changelog for its page, with links that begin at docs/; leave other pages as they are."""
    if page.file.src_uri != "changelog.md":
        return markdown
    return CHANGELOG.read_text(encoding="utf-8").replace("](docs/", "](")
