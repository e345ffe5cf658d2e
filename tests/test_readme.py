"""What the README names exists; tests/docs runs its commands."""

import re
from pathlib import Path

import pytest

from vitrail.api import list_methods, list_protocols

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_method_is_named():
    for entry in list_methods():
        assert f"| `{entry['name']}` |" in README


def test_every_protocol_is_documented():
    page = (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8")
    for entry in list_protocols():
        assert f"| `{entry['name']}` |" in page


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 120


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
)
def test_linked_files_and_pictures_exist(page):
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!http)([^)#\s]+)[^)]*\)", text):
        assert (ROOT / page).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("target", ["demo", "test", "lint", "docs", "benchmark"])
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
