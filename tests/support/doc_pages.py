"""Pages of the documentation: their tables, code blocks, commands, and what comments in them ask of the tests."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"((?:^<!--[^\n]*-->\n+)*)^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"<!-- (not run|tested with|file|output|roughly)(?:: (.*?))? -->")


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    Args:
        language: Its language, such as `bash`.
        text: What is in it.
        line: Number of its first line on the page.
        asked: What the invisible comments right above it ask, by name:
            `not run: REASON`, `tested with: ARGUMENTS` (appended to its commands), `file: NAME` (it is a file of the reader), or
            `output: IGNORED COLUMNS` (the blocks before it print it), or `roughly: IGNORED COLUMNS` (they print about this).
    """

    language: str
    text: str
    line: int
    asked: dict[str, str]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def fenced(text: str) -> Iterator[Block]:
    """Yield the code blocks of a page, in order."""
    for found in _FENCE.finditer(text):
        asked = {name: argument or "" for name, argument in _COMMENT.findall(found[1])}
        yield Block(found[2], found[3], text.count("\n", 0, found.start(3)) + 1, asked)


def given(text: str) -> list[str]:
    """Return the files that a page expects its reader to have, from the comment `given: a, b`."""
    return [name for names in re.findall(r"<!-- given: (.*?) -->", text) for name in names.split(", ")]


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
    return [block.text for block in fenced(text) if block.language == language]


def shell_lines(text: str) -> list[list[str]]:
    """Return the words of every command of a shell block."""
    split = [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines()]
    return [words for words in split if words]


def commands(text: str) -> list[list[str]]:
    """Return the arguments of every `vitrail` command; `torchrun ... -m vitrail` counts."""
    lines = [words for block in blocks(text, "bash") for words in shell_lines(block)]
    return [words[words.index("vitrail") + 1 :] for words in lines if "vitrail" in words]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line[1:-1].split("|")]
