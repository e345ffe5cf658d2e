"""`vitrail serve`: run the web page."""

from functools import partial
from typing import Annotated

import typer

from vitrail.cli.model_options import DEFAULT_MODEL, ModelsOptions
from vitrail.cli.signals import exit_now, interrupt_on_signals


def serve(
    model: ModelsOptions,
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
    from vitrail.api.loading import load  # noqa: PLC0415
    from vitrail.app.environment import LOOPBACKS  # noqa: PLC0415
    from vitrail.app.limits import MEGABYTE, Limits  # noqa: PLC0415
    from vitrail.app.server import serving  # noqa: PLC0415

    # The default model comes first.
    bundled = sorted((f"vitrail:{name}" for name in bundled_models()), key=lambda name: (name != DEFAULT_MODEL, name))
    names = model.names or bundled
    limits = Limits(
        num_bytes=round(max_megabytes * MEGABYTE), num_pixels=round(max_megapixels * MEGABYTE), num_waiting=max_waiting
    )
    with interrupt_on_signals() as received:
        try:
            with serving(names, host, port, limits, max_models, allow_host or (), partial(load, **model.keywords)) as running:
                typer.echo(f"serving {', '.join(names)} at {running.url} (stop by Ctrl+C)")
                if host not in LOOPBACKS:
                    typer.echo("warning: other machines can reach this page without a password", err=True)
                running.wait()
        except KeyboardInterrupt:
            exit_now(received)
