"""`vitrail export`: write a model in another format."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vitrail.cli.completion import complete_models
from vitrail.cli.model_options import LoadOptions, load_model
from vitrail.cli.options import Overwrite
from vitrail.cli.results import print_result
from vitrail.core.errors import InvalidInputError, OutputError


def export(
    model: Annotated[
        str,
        typer.Argument(
            help="Any --model of the other commands, such as runs/train/best.safetensors.", autocompletion=complete_models
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Output file, or output folder for Hugging Face.")],
    options: LoadOptions,
    half: Annotated[bool, typer.Option("--half", help="Store half precision: half the size.")] = False,
    format: Annotated[  # noqa: A002 (the name of the option)
        Literal["vitrail", "huggingface"],
        typer.Option(help="A safetensors file for vitrail.load, or a folder for from_pretrained of transformers."),
    ] = "vitrail",
    overwrite: Overwrite = False,
) -> None:
    """Write a model with its class names and preprocessing, for vitrail or for Hugging Face."""
    if format == "huggingface" and half:
        raise InvalidInputError("expected --half with --format vitrail, got it with --format huggingface; leave it out")
    if format == "vitrail" and out.exists() and (out.is_dir() or not overwrite):
        remedy = "choose a file" if out.is_dir() else "choose another --out, or add --overwrite to replace it"
        raise OutputError(f"{out} exists; {remedy}")
    from vitrail.adapters import export_huggingface, save  # noqa: PLC0415 (heavy)
    from vitrail.core.files import output_folder  # noqa: PLC0415

    classifier = load_model(model, "cpu", options.keywords)
    if format == "huggingface":
        export_huggingface(classifier, out, overwrite=overwrite)
    else:
        output_folder(out.parent)
        save(classifier, out, half=half)
    content = {"model": classifier.name, "format": format, "out": str(out)}
    print_result(lambda: content, lambda: typer.echo(f"wrote {classifier.name} to {out}"))
