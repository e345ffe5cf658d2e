"""CSV files that a spreadsheet opens without computing anything, and that are read back unchanged."""

import csv

import pytest

from vitrail.core.csv_io import read_csv, write_csv

FORMULAS = ["=1+1", "+1+1|x", "-a.png", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "=", "+", "=HYPERLINK(...)", "＝1", "--", "-1-1"]
PLAIN = ["a.png", "", "it's", "'tis", "a=b", "-", "-1.5", "+1", "-inf", "1e-5", "-1e-05", " x"]


def raw(path):
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_are_marked_as_texts(tmp_path, text):
    write_csv(tmp_path / "a.csv", ["image", text], [[text, -1.5]])
    assert raw(tmp_path / "a.csv") == [["image", f"'{text}"], [f"'{text}", "-1.5"]]


@pytest.mark.parametrize("text", PLAIN)
def test_other_texts_are_unchanged(tmp_path, text):
    write_csv(tmp_path / "a.csv", ["image", "number"], [[text, -1.5]])
    assert raw(tmp_path / "a.csv") == [["image", "number"], [text, "-1.5"]]


@pytest.mark.parametrize("text", [*FORMULAS, *PLAIN, "'=1", "''=1", "'-", "b\udce9d.png"])
def test_reading_returns_what_was_written(tmp_path, text):
    write_csv(tmp_path / "a.csv", ["image", "=reason"], [[text, "x"]])
    assert read_csv(tmp_path / "a.csv") == [{"image": text, "=reason": "x"}]


@pytest.mark.parametrize("name", ["\ud800", "half \udfff", "b\udce9 \ud83d"])
def test_half_surrogate_pairs_are_escaped(tmp_path, name):
    write_csv(tmp_path / "a.csv", ["class"], [[name]])
    [row] = read_csv(tmp_path / "a.csv")
    assert row["class"] == name.encode("utf-8", "backslashreplace").decode()
