"""docs/architecture.md describes the tree that is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROOMS = {path.name + "/" if path.is_dir() else path.name for path in (ROOT / "src" / "vitrail").iterdir()}
ROOMS -= {"__init__.py", "__main__.py", "__pycache__/", "py.typed"}


def test_the_table_of_rooms_lists_every_folder_and_file():
    (table,) = re.findall(r"## The rooms\n\n(.*?)\n\n", PAGE, flags=re.DOTALL)
    assert set(re.findall(r"^\| `([^`]+)`", table, flags=re.MULTILINE)) == ROOMS


def test_the_import_order_is_the_one_that_is_checked():
    (order,) = re.findall(r"```text\n(cli\n.*?)```", PAGE, flags=re.DOTALL)
    contract = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (layers,) = re.findall(r"layers = \[\n(.*?)\]", contract, flags=re.DOTALL)
    checked = [line.strip(' ",').replace("vitrail.", "").replace(" : version", "") for line in layers.splitlines()]
    assert order.split("\n")[:-1] == checked
