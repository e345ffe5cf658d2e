"""Check that names and prose use one word for one thing; see docs/glossary.md.

Run by `make lint`. Each rule is a pattern and what to write in its place. Names are checked in the source and the tests, prose in
docstrings, comments, messages, and the documentation.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]

NAMES = {
    r"(?i)answered|with_answers|answer_of|needs_answers": "ground_truth, mask, or box",
    r"(?i)(^|_)told|(^|_)said($|_)|so_far|carry_out|own_luck|_of_all$|_of_one_size": "a verb with an object",
    r"(?i)(^|_)(desk|shelf|doors|surroundings|strangers?|visitors?)($|_)": "service, model pool, allowlist, environment, client",
    r"(?i)readout|(^|_)attending": "pooling_weights, intercept_attention",
    r"starting_layer": "starting_block",
    r"^(Started|Wanted|Origin)$": "LoadReport, ModelSpec, BuildSpec",
}

PROSE = {
    r"\b(go(es|ing)?|gone|went) on\b": "resume, continue, or happen",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\bluck\b": "random numbers, or seed",
    r"\b(strangers?|visitors?)\b": "clients or users",
    r"\bthe kit\b": "Gradio",
    r"\banswered (task|image)s?\b|\bknown answers?\b|\bgenerated tasks?\b": "synthetic data set, ground truth",
    r"\b(is|are|was|were|be|been) told\b|\bsaid to be\b|\band said so\b": "say who reports what",
    r"\bleft out and said\b|\bcarr(y|ies|ied) out\b": "skip with a warning; run",
}

BRITISH = (
    r"(?i)(colour|grey|normalis|randomis|optimis|initialis|linearis|labelled|labelling|centre[ds]?\b|behaviour|neighbour|recognis|summaris|quantis|"
    r"parametris|serialis|generalis|visualis|organis|minimis|maximis|penalis|regularis|standardis|tokenis|analyse|modelled|favour|artefact|licence)"
)

CODE = ("src", "tests", "benchmarks", "scripts")
PAGES = ("README.md", "CONTRIBUTING.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")))
EXEMPT = {Path("scripts/check_words.py"), Path("docs/glossary.md")}


def read_names(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of every name that a file defines."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name


def read_prose(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of every comment and string of a file."""
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in kinds:
            for offset, line in enumerate(token.string.splitlines()):
                yield token.start[0] + offset, line


def find_faults(path: Path) -> Iterator[str]:
    """Yield a line for every forbidden word of a file."""
    source = (ROOT / path).read_text(encoding="utf-8")
    is_code = path.suffix == ".py"
    if is_code:
        for number, name in read_names(source):
            for pattern, better in NAMES.items():
                if re.search(pattern, name):
                    yield f"{path}:{number}: name {name!r}; write {better}"
    # Tests may quote what others write; their own prose is in their names.
    prose = (
        read_prose(source) if is_code and path.parts[0] != "tests" else enumerate(source.splitlines(), 1) if not is_code else ()
    )
    for number, line in prose:
        for pattern, better in PROSE.items():
            if match := re.search(pattern, line):
                yield f"{path}:{number}: {match[0]!r}; write {better}"
        if match := re.search(BRITISH, line):
            yield f"{path}:{number}: {match[0]!r}; use American spelling"


def main() -> int:
    """Print every fault; return 1 if there is one."""
    code = [path.relative_to(ROOT) for folder in CODE for path in sorted((ROOT / folder).rglob("*.py"))]
    faults = [fault for path in (*code, *map(Path, PAGES)) if path not in EXEMPT for fault in find_faults(path)]
    sys.stdout.write("".join(f"{fault}\n" for fault in faults))
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
