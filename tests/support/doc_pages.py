"""Pages of the documentation: their tables, code blocks and commands."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def below(text: str, heading: str) -> str:
    """Return the text between a heading and the next one."""
    return re.split(r"^#+ ", text.split(f"\n{heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def tables(text: str) -> list[list[list[str]]]:
    """Return the rows of every table as lists of cells; the first row is the head."""
    matches = re.findall(r"^(\|.*\n)\|[ \-|]+\|\n((?:\|.*(?:\n|$))*)", text, flags=re.MULTILINE)
    return [[_cells(line) for line in (head + body).splitlines()] for head, body in matches]


def rows(text: str, heading: str) -> list[list[str]]:
    """Return the rows of the tables below a heading, without heads."""
    return [row for table in tables(below(text, heading)) for row in table[1:]]


def names(cell: str) -> list[str]:
    """Return the inline code of a cell."""
    return re.findall(r"`(.+?)`", cell)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """Return the arguments of every `vitrail` command; `torchrun ... -m vitrail` counts."""
    lines = "".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
    split = [shlex.split(line) for line in lines]
    return [words[words.index("vitrail") + 1 :] for words in split if "vitrail" in words]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line[1:-1].split("|")]
