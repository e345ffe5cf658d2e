"""docs/architecture.md describes the tree that is there."""

import importlib
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "vitrail"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROOMS = {path.name + "/" if path.is_dir() else path.name for path in SOURCE.iterdir()}
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


def test_the_functions_on_the_way_exist():
    paths = {
        name
        for row in re.findall(r"^\| [a-z ,]+ \| (`.*) \|$", PAGE, flags=re.MULTILINE)
        for name in re.findall(r"`([\w.]+)`", row)
    }
    assert len(paths) > 25
    for path in paths:
        parts = path.split(".")
        module = next(
            ".".join(parts[:end])
            for end in range(len(parts), 0, -1)
            if (SOURCE / "/".join(parts[:end])).with_suffix(".py").is_file()
        )
        value = importlib.import_module(f"vitrail.{module}")
        for name in path.removeprefix(f"{module}.").split("."):
            value = getattr(value, name)
        assert callable(value), path
