"""CSV files that a spreadsheet opens without computing anything, and that are read back unchanged."""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vitrail.core.files import atomic_write

FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""Beginnings of cells that a spreadsheet computes or splits."""


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file in one piece; `read_csv` returns the same texts.

    A text that a spreadsheet would take for a formula gets a leading apostrophe, which marks texts in spreadsheets. Numbers that are not
    defined (NaN) become empty cells.
    """
    # File names need not be UTF-8.
    with atomic_write(path) as partial, partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow([_escape(cell) for cell in head])
        writer.writerows([_escape(cell) for cell in row] for row in rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read a file of `write_csv`, one dictionary per row; missing cells are empty."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return [
            {_unescape(name): _unescape(cell or "") for name, cell in row.items() if name is not None}
            for row in csv.DictReader(file)
        ]


def _escape(cell: Any) -> Any:
    if not isinstance(cell, str):
        return "" if isinstance(cell, float) and math.isnan(cell) else cell
    try:
        cell.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # Half a surrogate pair, which JSON can hold and UTF-8 cannot.
        cell = cell.encode("utf-8", "backslashreplace").decode()
    return f"'{cell}" if _is_like_formula(cell) and cell != "-" and not _is_number(cell) else cell


def _unescape(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _is_like_formula(cell) else cell


def _is_like_formula(cell: str) -> bool:
    # Leading apostrophes are skipped: a text that has one of its own gets another, so that reading removes the right one.
    return cell.lstrip("'").startswith(FORMULA_PREFIXES)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
