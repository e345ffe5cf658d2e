"""What docs/data.md says is what there is."""

import json
import re
from pathlib import Path

import torch
from official_layouts import photo

from vitrail.datasets.named import DATA, list_data, read_data

PAGE = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")


def test_every_set_has_its_row_and_no_other():
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \| (.+?) \| (.*?) \|$", PAGE, flags=re.MULTILINE)
    assert [name for name, *_ in rows] == list(DATA)
    for (_, summary, splits, options), entry in zip(rows, list_data(), strict=True):
        assert summary == entry["summary"]
        assert splits == ("yours" if entry["splits"] is None else ", ".join(entry["splits"]))
        assert options == ", ".join(f"`{name}={json.dumps(default)}`" for name, default in entry["options"].items())


def test_every_set_has_its_layout():
    for entry in list_data():
        assert f"### {entry['name']}\n\n```text\n{entry['layout']}\n```\n" in PAGE


def test_every_set_says_what_to_do():
    for entry in list_data():
        assert re.match(r"(download|put|choose|write) ", entry["download"])
        assert not entry["summary"].endswith(".")


def test_one_of_your_own_as_the_page_shows_it(tmp_path, monkeypatch):
    monkeypatch.setattr(DATA, "_entries", dict(DATA._entries))
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL) if "@named_data" in block]
    exec(block, {})
    photo(tmp_path / "2023" / "healthy" / "1.png")
    scans = read_data("scans", tmp_path, "train", lambda image: torch.zeros(1), train_year="2023")
    assert scans.class_names == ["healthy"]
