"""Options that several commands share."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vitrail.adapters import Classifier
    from vitrail.data.folders import Unreadable

logger = logging.getLogger("vitrail")

DEFAULT_MODEL = "vitrail:hit-cifar10"

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="vitrail:<bundled>, timm:<model>, hit:<hub repository or file>, or a local file or folder.",
        show_default=False,
    ),
]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace results of the same name.")]
DeviceOption = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the fastest there is if not given.", show_default=False)
]
BatchOption = Annotated[int, typer.Option(min=1, help="Images per batch.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="At most so many images, evenly spread.", show_default=False)]
WorkersOption = Annotated[int, typer.Option(min=0, help="Processes that read images.")]


def load_model(name: str | None, device: str | None) -> "Classifier":
    """Load the named model, or the bundled one and say so."""
    from vitrail.adapters import load  # noqa: PLC0415 (heavy)

    if name is None:
        logger.info("using the bundled %s; name your own by --model, e.g. --model timm:vit_base_patch16_224", DEFAULT_MODEL)
    return load(DEFAULT_MODEL if name is None else name, device=device)


def report_unreadable(unreadable: "list[Unreadable]") -> None:
    """Say which files were skipped."""
    for file in unreadable[:10]:
        typer.echo(f"skipped: {file.reason}", err=True)
    if unreadable:
        typer.echo(f"{len(unreadable)} unreadable file(s) were skipped", err=True)
