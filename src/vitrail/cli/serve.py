"""`vitrail serve`: the web page."""

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
            help="Models that visitors may choose from, separated by commas, named as everywhere; the bundled ones if not given.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Further host name that browsers may use for this server; may be repeated. Others are refused.",
            show_default=False,
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
    max_megabytes: Annotated[float, typer.Option(min=0.001, help="Largest file that may be uploaded.")] = 20.0,
    max_megapixels: Annotated[float, typer.Option(min=0.001, help="Largest photo that is opened.")] = 50.0,
    max_waiting: Annotated[int, typer.Option(min=1, help="Requests that wait at a time; more are turned away.")] = 32,
    max_models: Annotated[
        int | None, typer.Option(min=1, help="At most so many models stay in memory.", show_default=False)
    ] = None,
) -> None:
    """Serve a page: drop a photo, choose a model and methods, and see why. Fully offline."""
    from vitrail.adapters import bundled_models  # noqa: PLC0415 (heavy)
    from vitrail.app.environment import LOOPBACKS  # noqa: PLC0415
    from vitrail.app.server import serving  # noqa: PLC0415
    from vitrail.app.uploads import MEGABYTE, Limits  # noqa: PLC0415

    # The one that knows photos comes first.
    bundled = sorted((f"vitrail:{name}" for name in bundled_models()), key=lambda name: (name != DEFAULT_MODEL, name))
    names = bundled if model is None else [name.strip() for name in model.split(",")]
    if not all(names):
        raise InvalidInputError(f"expected names of models, separated by commas, got {model!r}")
    limits = Limits(
        num_bytes=round(max_megabytes * MEGABYTE), num_pixels=round(max_megapixels * MEGABYTE), num_waiting=max_waiting
    )
    with _ended_by_signals() as received:
        try:
            with serving(names, host, port, limits, max_models, allow_host or ()) as running:
                typer.echo(f"serving {', '.join(names)} at {running.url} (stop by Ctrl+C)")
                if host not in LOOPBACKS:
                    typer.echo("other machines can reach this page, and nobody is asked for a password", err=True)
                running.wait()
        except KeyboardInterrupt:
            _leave(received)


@contextmanager
def _ended_by_signals() -> Iterator[list[int]]:
    """Have Ctrl+C, and a service manager's SIGTERM, end the block once; yields the number of the signal, once it came."""
    received = list[int]()

    def end(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for each in before:
            # No SIG_IGN: Python writes a message if a signal of which it knows already is to be ignored.
            signal.signal(each, lambda number, frame: None)
        raise KeyboardInterrupt

    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    for each in before:
        signal.signal(each, end)
    try:
        yield received
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _leave(received: Sequence[int]) -> None:
    with suppress(OSError):  # Nobody may be there to read it any more.
        typer.echo("stopped", err=True)
        sys.stdout.flush()
        sys.stderr.flush()
    # The interpreter would wait for threads of the kit that are at work, perhaps for minutes; nothing of what they do is kept.
    os._exit(128 + (received or [signal.SIGINT])[0])
