"""`vitrail`: one program, one command a question."""

import logging
import sys
from io import TextIOWrapper
from typing import Annotated

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
from vitrail.distributed import started_rank
from vitrail.errors import VitrailError

INTERRUPTED = 130
"""Exit code after Ctrl+C."""

OUT_OF_MEMORY = ("out of memory", "can't allocate memory")

app = typer.Typer(
    name="vitrail",
    help="Show why a Vision Transformer decided, and measure whether that is true.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

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
    app.command(name)(command)


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
    """Run the program; errors that a user can mend end in one message and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # Names of files and classes need not be text.
    try:
        app()
    except VitrailError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:  # torch's own kind of a MemoryError is a RuntimeError.
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        typer.echo(
            f"error: out of memory: {str(error).splitlines()[0] if str(error) else 'nothing is left'}; choose a smaller --batch-size or "
            "--image-size, or less work by --method-option",
            err=True,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
        sys.exit(INTERRUPTED)
    except SystemExit as end:
        # What runs the commands has made this of a KeyboardInterrupt.
        if end.code == INTERRUPTED:
            typer.echo("stopped", err=True)
        raise
