"""The program `vitrail`: its commands, logging, and exit codes."""

import atexit
import gc
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
from vitrail.cli.bash_words import join_bash_words
from vitrail.cli.compare import compare
from vitrail.cli.demo import demo
from vitrail.cli.explain import explain
from vitrail.cli.export import export
from vitrail.cli.flags import PlainGroup
from vitrail.cli.generate import generate
from vitrail.cli.groups import expand_groups
from vitrail.cli.layers import layers
from vitrail.cli.listing import list_everything
from vitrail.cli.network_errors import describe_network_error
from vitrail.cli.queries import queries
from vitrail.cli.recipe import recipe
from vitrail.cli.recommend import recommend
from vitrail.cli.repeated_options import OnceCommand
from vitrail.cli.score import score
from vitrail.cli.serve import serve
from vitrail.cli.shared_options import Quiet, set_log_level, share_options
from vitrail.cli.test import test
from vitrail.cli.train import train
from vitrail.core.command import running
from vitrail.core.distributed import started_together
from vitrail.core.errors import InvalidInputError, VitrailError
from vitrail.core.interrupts import WORD, Stop, stoppable
from vitrail.core.peers import reports_first

INTERRUPTED = 130
"""Exit code of typer after a KeyboardInterrupt, for any signal."""

FAILED = 2
"""Exit code of errors that the user can fix."""

DISTRIBUTED = ("explain", "queries", "score", "compare", "recommend", "layers", "test", "train")
"""Commands that share their work among the processes of torchrun."""

OUT_OF_MEMORY = ("out of memory", "can't allocate memory")

app = typer.Typer(
    name="vitrail",
    cls=PlainGroup,
    help="Explain the decisions of Vision Transformers, and measure how faithful the explanations are.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _refuse_processes(name: str, command: Callable[..., None]) -> Callable[..., None]:
    """Make a command refuse to run as several processes, each of which would do all of the work."""

    @wraps(command)
    def run(*args: Any, **options: Any) -> None:
        if (count := started_together()) > 1:
            raise InvalidInputError(
                f"expected one process, got {count}: vitrail {name} cannot share its work; start it without torchrun or srun "
                f"({', '.join(DISTRIBUTED)} share it)"
            )
        command(*args, **options)

    return run


for name, command in (
    ("explain", explain),
    ("queries", queries),
    ("score", score),
    ("compare", compare),
    ("recommend", recommend),
    ("layers", layers),
    ("test", test),
    ("train", train),
    ("export", export),
    ("generate", generate),
    ("list", list_everything),
    ("recipe", recipe),
    ("demo", demo),
    ("serve", serve),
):
    # The demo replaces its own results; the server has none.
    shared = share_options(expand_groups(command), has_result=name != "serve", numbered=name != "demo")
    app.command(name, cls=OnceCommand)(shared if name in DISTRIBUTED else _refuse_processes(name, shared))


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
    quiet: Quiet = False,
) -> None:
    """Set up logging for every command."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("vitrail")
    log.handlers, log.propagate = [handler], False
    set_log_level(quiet)


def main() -> None:
    """Run the program.

    Errors that the user can fix print one message and exit with code 2. Signals print "stopped" and exit with 128 plus their number (130
    after Ctrl+C, 143 after SIGTERM). Of several processes, one prints.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # File and class names need not be encodable.
    if started_together() > 1:
        # Before torch is imported: it would log a page of addresses when another process ends.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    join_bash_words()
    atexit.register(_end_quickly)
    try:
        with stoppable() as stop:
            _run(stop)
    except VitrailError as error:  # Of other processes, raised outside of the command.
        _end(f"error: {error}", FAILED)


def _run(stop: Stop) -> None:
    try:
        with running(sys.argv[1:]):
            app()
    except VitrailError as error:
        stop.ending = True
        _end(f"error: {error}", FAILED)
    except BaseException as error:
        stop.ending = True
        # typer turns a KeyboardInterrupt into an exit code, and a stop may make other calls fail.
        interrupted = isinstance(error, KeyboardInterrupt) or (isinstance(error, SystemExit) and error.code == INTERRUPTED)
        if interrupted or stop.number is not None:
            _end(WORD, stop.exit_code)
        # torch raises a RuntimeError when it is out of memory.
        if not isinstance(error, MemoryError) and not (
            isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)
        ):
            fault = describe_network_error(error) if isinstance(error, Exception) else None
            if fault is None:
                raise
            _end(f"error: the network fails: {fault}; make sure that it classifies batches of images, and one image", FAILED)
        _end(
            f"error: out of memory: {str(error).splitlines()[0] if str(error) else 'no memory left'}; use a smaller --batch-size or "
            "--image-size, or reduce the work by --method-option",
            FAILED,
        )


def _end_quickly() -> None:
    """Spare Python the last search for garbage, which takes a third of a second in all of torch."""
    if "triton" not in sys.modules:  # It reports on standard error what is not collected.
        gc.freeze()


def _end(message: str, code: int) -> NoReturn:
    """Print a message, unless another process of this run has printed one, and exit."""
    if reports_first():
        with suppress(OSError):  # The terminal may be closed.
            typer.echo(message, err=True)
    sys.exit(code)
