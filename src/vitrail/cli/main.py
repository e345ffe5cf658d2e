"""`vitrail`: one program, one command a question."""

import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from io import TextIOWrapper
from typing import Annotated, Any, NoReturn

import typer

from vitrail import __version__
from vitrail.cli.compare import compare
from vitrail.cli.demo import demo
from vitrail.cli.explain import explain
from vitrail.cli.export import export
from vitrail.cli.generate import generate
from vitrail.cli.layers import layers
from vitrail.cli.listing import list_everything
from vitrail.cli.queries import queries
from vitrail.cli.score import score
from vitrail.cli.serve import serve
from vitrail.cli.test import test
from vitrail.cli.train import train
from vitrail.core.distributed import started_rank, started_together
from vitrail.core.errors import InvalidInputError, VitrailError
from vitrail.core.interrupts import WORD, Stop, stoppable
from vitrail.core.peers import speaks_first

INTERRUPTED = 130
"""Exit code of typer after a KeyboardInterrupt, whatever the signal was."""

FAILED = 2
"""Exit code of errors that a user can mend."""

TOGETHER = ("score", "compare", "layers", "test", "train")
"""Commands that share their work among several processes."""

OUT_OF_MEMORY = ("out of memory", "can't allocate memory")

app = typer.Typer(
    name="vitrail",
    help="Show why a Vision Transformer decided, and measure whether that is true.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _alone(name: str, command: Callable[..., None]) -> Callable[..., None]:
    """A command that refuses to be started as several processes, each of which would do all of the work."""

    @wraps(command)
    def run(*args: Any, **options: Any) -> None:
        if (count := started_together()) > 1:
            raise InvalidInputError(
                f"expected one process, got {count}: vitrail {name} does not share its work; start it without torchrun "
                f"({', '.join(TOGETHER)} can be started with it)"
            )
        command(*args, **options)

    return run


for name, command in (
    ("explain", explain),
    ("queries", queries),
    ("score", score),
    ("compare", compare),
    ("layers", layers),
    ("test", test),
    ("train", train),
    ("export", export),
    ("generate", generate),
    ("list", list_everything),
    ("demo", demo),
    ("serve", serve),
):
    app.command(name)(command if name in TOGETHER else _alone(name, command))


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"vitrail {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say only results and errors.")] = False,
) -> None:
    """Settings of every command."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("vitrail")
    log.handlers, log.propagate = [handler], False
    # Of several processes that work together, the first one speaks.
    log.setLevel(logging.ERROR if started_rank() else logging.WARNING if quiet else logging.INFO)


def main() -> None:
    """Run the program.

    Errors that a user can mend end in one message and exit code 2, signals in the word "stopped" and 128 plus their number (130 after
    Ctrl+C, 143 after SIGTERM). Of several processes that work together one speaks.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # Names of files and classes need not be text.
    if started_together() > 1:
        # Before torch is loaded, which would log a page of addresses when another process is gone.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        with stoppable() as stop:
            _run(stop)
    except VitrailError as error:  # Of what surrounds the program.
        _end(f"error: {error}", FAILED)


def _run(stop: Stop) -> None:
    try:
        app()
    except VitrailError as error:
        stop.ending = True
        _end(f"error: {error}", FAILED)
    except BaseException as error:
        stop.ending = True
        # What runs the commands has made an exit code of a KeyboardInterrupt, and a stop makes other things fail.
        interrupted = isinstance(error, KeyboardInterrupt) or (isinstance(error, SystemExit) and error.code == INTERRUPTED)
        if interrupted or stop.number is not None:
            _end(WORD, stop.exit_code)
        # torch's own kind of a MemoryError is a RuntimeError.
        if not isinstance(error, MemoryError) and not (
            isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)
        ):
            raise
        _end(
            f"error: out of memory: {str(error).splitlines()[0] if str(error) else 'nothing is left'}; choose a smaller --batch-size or "
            "--image-size, or less work by --method-option",
            FAILED,
        )


def _end(message: str, code: int) -> NoReturn:
    """Say one thing, unless another process of this run has said how it ended, and exit."""
    if speaks_first():
        with suppress(OSError):  # Nobody may be there to read it any more.
            typer.echo(message, err=True)
    sys.exit(code)
