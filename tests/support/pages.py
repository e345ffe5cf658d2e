"""Pages of the documentation, taken apart."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def below(text: str, heading: str) -> str:
    """What stands below a heading, up to the next one."""
    return re.split(r"^#+ ", text.split(f"\n{heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def tables(text: str) -> list[list[list[str]]]:
    """The rows of every table, cell by cell; the first one is its head."""
    found = re.findall(r"^(\|.*\n)\|[ \-|]+\|\n((?:\|.*(?:\n|$))*)", text, flags=re.MULTILINE)
    return [[_cells(line) for line in (head + body).splitlines()] for head, body in found]


def rows(text: str, heading: str) -> list[list[str]]:
    """The rows of the tables below a heading, without their heads."""
    return [row for table in tables(below(text, heading)) for row in table[1:]]


def names(cell: str) -> list[str]:
    """What is set as code."""
    return re.findall(r"`(.+?)`", cell)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """The words behind `vitrail` of every line of shell that has it; `torchrun ... -m vitrail` counts."""
    lines = "".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
    split = [shlex.split(line) for line in lines]
    return [words[words.index("vitrail") + 1 :] for words in split if "vitrail" in words]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line[1:-1].split("|")]
