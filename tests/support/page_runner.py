"""Runs a page of the documentation: its commands and code in order, in the current folder, as a reader does."""

import ast
import io
import shlex
import shutil
import tokenize
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

from doc_pages import Block, fenced, shell_lines
from printed_numbers import check_comment, check_output

RUN = ("bash", "python")

SMALL = ("schedule.epochs=1", "data.batch_size=20", "data.num_workers=0", "engine.accelerator=cpu", "engine.loggers=[]")
"""Settings of a training run on a few images, for `tested with: train SMALL`."""


ROUGH = 0.2
"""Largest difference of numbers that depend on training, which rounds differently on every machine."""


@dataclass
class PageRunner:
    """What has been run of a page, and what it printed.

    Args:
        run_vitrail: Runs a command; returns exit code, standard output and standard error.
        drawn: Folder for synthetic data sets, which are drawn once for all pages.
    """

    run_vitrail: Callable[..., tuple[int, str, str]]
    drawn: Path
    printed: str = ""
    num_run: int = 0
    num_compared: int = 0
    not_run: list[str] = field(default_factory=list)
    names: dict[str, object] = field(default_factory=lambda: {"__name__": "page"})

    def run(self, text: str) -> None:
        for block in fenced(text):
            if "file" in block.asked:
                Path(block.asked["file"]).write_text(block.text, encoding="utf-8")
            elif block.asked.keys() & {"output", "roughly"}:
                tolerance = ROUGH if "roughly" in block.asked else 0.0
                ignored = block.asked.get("output", block.asked.get("roughly", "")).split(", ")
                self.num_compared += check_output(block.text, self.printed, ignored, tolerance)
                self.printed = ""
            elif "not run" in block.asked:
                assert block.asked["not run"], f"line {block.line}: expected a reason why it is not run"
                self.not_run.append(block.asked["not run"])
            elif block.language in RUN:
                try:
                    self._run_shell(block) if block.language == "bash" else self._run_python(block)
                except Exception as error:
                    error.add_note(f"in the block at line {block.line} of the page")
                    raise

    def _run_shell(self, block: Block) -> None:
        only, more = self._more(block.asked.get("tested with", ""))
        for words in shell_lines(block.text):
            program, *arguments = words
            assert program == "vitrail", f"{' '.join(words)}: only vitrail is run; mark the block <!-- not run: REASON -->"
            target = arguments[arguments.index(">") + 1] if ">" in arguments else None
            arguments = arguments[: arguments.index(">")] if target else arguments
            if only in (None, arguments[0]):
                arguments = [*_without(arguments, more), *more]
            printed = self._generate(arguments) if arguments[0] == "generate" else self._vitrail(*arguments)
            if target:
                Path(target).write_text(printed, encoding="utf-8")
            else:
                self.printed += printed
            self.num_run += 1

    @staticmethod
    def _more(asked: str) -> tuple[str | None, list[str]]:
        """Return what is appended to commands, and which command it is for, if not for all."""
        words = shlex.split(asked)
        only = words.pop(0) if words and not words[0].startswith("-") else None
        return only, [*SMALL] if words == ["SMALL"] else words

    def _vitrail(self, *arguments: str) -> str:
        code, out, err = self.run_vitrail(*arguments)
        assert code == 0, f"vitrail {shlex.join(arguments)} ended with code {code}: {err}"
        return out

    def _generate(self, arguments: list[str]) -> str:
        """Draw a data set, or copy it from an earlier page: the same command always draws the same images."""
        out = Path(arguments[arguments.index("--out") + 1])
        stored = self.drawn / "".join(letter if letter.isalnum() else "-" for letter in " ".join(arguments))
        if not stored.exists():
            printed = self._vitrail(*arguments)
            shutil.copytree(out, stored / "data")
            (stored / "printed").write_text(printed, encoding="utf-8")
            return printed
        assert not out.exists(), f"{out} exists already"
        shutil.copytree(stored / "data", out)
        return (stored / "printed").read_text(encoding="utf-8")

    def _run_python(self, block: Block) -> None:
        tokens = tokenize.generate_tokens(io.StringIO(block.text).readline)
        comments = {
            token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT and "print(" in token.line
        }
        for statement in ast.parse(block.text).body:
            with redirect_stdout(io.StringIO()) as captured:
                exec(compile(ast.Module([statement], []), f"line {block.line}", "exec"), self.names)
            lines = range(statement.lineno, (statement.end_lineno or statement.lineno) + 1)
            comment = " ".join(comments[line] for line in lines if line in comments)
            self.num_compared += check_comment(comment, captured.getvalue())
            self.printed += captured.getvalue()
        self.num_run += 1


def _without(arguments: list[str], more: list[str]) -> list[str]:
    """Return a command without the options that `more` sets."""
    taken = {
        index + ahead for index, word in enumerate(arguments) if word.startswith("--") and word in more for ahead in (0, 1)
    }
    return [word for index, word in enumerate(arguments) if index not in taken]
