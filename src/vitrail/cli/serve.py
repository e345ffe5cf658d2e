"""`vitrail serve`: run the web page."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Annotated

import typer

from vitrail.cli.options import DEFAULT_MODEL
from vitrail.core.errors import InvalidInputError


def serve(
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Models to offer, comma-separated; see vitrail explain --help (default: all bundled models).",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 accepts other machines.")] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Further host name that browsers may use; repeatable. Others are refused.",
            show_default=False,
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
    max_megabytes: Annotated[float, typer.Option(min=0.001, help="Maximum size of an upload.")] = 20.0,
    max_megapixels: Annotated[float, typer.Option(min=0.001, help="Maximum size of a photo.")] = 50.0,
    max_waiting: Annotated[int, typer.Option(min=1, help="Maximum number of waiting requests; others are refused.")] = 32,
    max_models: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of models in memory.", show_default=False)
    ] = None,
) -> None:
    """Serve a web page that explains photos by the models and methods you choose. Fully offline."""
    from vitrail.adapters import bundled_models  # noqa: PLC0415 (heavy)
    from vitrail.app.environment import LOOPBACKS  # noqa: PLC0415
    from vitrail.app.limits import MEGABYTE, Limits  # noqa: PLC0415
    from vitrail.app.server import serving  # noqa: PLC0415

    # The default model comes first.
    bundled = sorted((f"vitrail:{name}" for name in bundled_models()), key=lambda name: (name != DEFAULT_MODEL, name))
    names = bundled if model is None else [name.strip() for name in model.split(",")]
    if not all(names):
        raise InvalidInputError(f"expected names of models, separated by commas, got {model!r}")
    limits = Limits(
        num_bytes=round(max_megabytes * MEGABYTE), num_pixels=round(max_megapixels * MEGABYTE), num_waiting=max_waiting
    )
    with _interrupt_on_signals() as received:
        try:
            with serving(names, host, port, limits, max_models, allow_host or ()) as running:
                typer.echo(f"serving {', '.join(names)} at {running.url} (stop by Ctrl+C)")
                if host not in LOOPBACKS:
                    typer.echo("warning: other machines can reach this page without a password", err=True)
                running.wait()
        except KeyboardInterrupt:
            _exit_now(received)


@contextmanager
def _interrupt_on_signals() -> Iterator[list[int]]:
    """Raise KeyboardInterrupt in the block on the first Ctrl+C or SIGTERM; yield a list that then holds the signal's number."""
    received = list[int]()

    def end(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for signal_number in before:
            # Not SIG_IGN: Python prints a message when a signal that is already pending is ignored.
            signal.signal(signal_number, lambda number, frame: None)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, end)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit_now(received: Sequence[int]) -> None:
    with suppress(OSError):  # The terminal may be closed.
        typer.echo("stopped", err=True)
        sys.stdout.flush()
        sys.stderr.flush()
    # The interpreter would wait for busy threads of Gradio, perhaps for minutes; their results are not needed.
    os._exit(128 + (received or [signal.SIGINT])[0])
