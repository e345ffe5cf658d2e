"""docs/data.md and docs/data-layouts.md list the data sets as they are registered."""

import json
import re
from pathlib import Path

import torch
from official_layouts import photo

from vitrail.datasets.named import DATA, list_data
from vitrail.datasets.open import read_data

PAGE, LAYOUTS = (
    (Path(__file__).parents[3] / "docs" / name).read_text(encoding="utf-8") for name in ("data.md", "data-layouts.md")
)


def test_the_table_lists_every_data_set():
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \| (.+?) \| (.*?) \|$", PAGE, flags=re.MULTILINE)
    assert [name for name, *_ in rows] == list(DATA)
    for (_, summary, splits, options), entry in zip(rows, list_data(), strict=True):
        assert summary == entry["summary"]
        assert splits == ("yours" if entry["splits"] is None else ", ".join(entry["splits"]))
        assert options == ", ".join(f"`{name}={json.dumps(default)}`" for name, default in entry["options"].items())


def test_every_layout_is_listed():
    for entry in list_data():
        assert f"## {entry['name']}\n\n```text\n{entry['layout']}\n```\n" in LAYOUTS


def test_every_download_instruction_begins_with_a_verb():
    for entry in list_data():
        assert re.match(r"(download|put|choose|write) ", entry["download"])
        assert not entry["summary"].endswith(".")


def test_the_example_of_a_custom_data_set_works(tmp_path, monkeypatch):
    monkeypatch.setattr(DATA, "_entries", dict(DATA._entries))
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL) if "@named_data" in block]
    exec(block, {})
    photo(tmp_path / "2023" / "healthy" / "1.png")
    scans = read_data("scans", tmp_path, "train", lambda image: torch.zeros(1), train_year="2023")
    assert scans.class_names == ["healthy"]
