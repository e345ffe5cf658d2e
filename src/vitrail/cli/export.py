"""`vitrail export`: a model as a file or folder that others read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vitrail.cli.options import ModelArgOption, OverwriteOption, load_model
from vitrail.core.errors import InvalidInputError, OutputError

if TYPE_CHECKING:
    from vitrail.adapters import Classifier


def export(
    model: Annotated[str, typer.Argument(help="Any --model of the other commands, such as runs/train/best.safetensors.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file, or the folder for Hugging Face.")],
    model_arg: ModelArgOption = None,
    half: Annotated[bool, typer.Option("--half", help="Store half precision: a file of half the size.")] = False,
    format: Annotated[  # noqa: A002 (what the option is called)
        Literal["vitrail", "huggingface"],
        typer.Option(help="One safetensors file for vitrail.load, or a folder for from_pretrained of transformers."),
    ] = "vitrail",
    overwrite: OverwriteOption = False,
) -> None:
    """Write a model with its class names and preprocessing: one file for vitrail, or a folder for Hugging Face."""
    if format == "huggingface" and half:
        raise InvalidInputError("expected --half with --format vitrail, got it with --format huggingface; leave it out")
    if format == "vitrail" and out.exists() and (out.is_dir() or not overwrite):
        remedy = "choose a file" if out.is_dir() else "choose another --out, or add --overwrite to replace it"
        raise OutputError(f"{out} exists; {remedy}")
    from vitrail.adapters import export_huggingface, save  # noqa: PLC0415 (heavy)
    from vitrail.core.files import output_folder  # noqa: PLC0415

    classifier = load_model(model, "cpu", model_arg)
    if format == "huggingface":
        export_huggingface(classifier, out, overwrite=overwrite)
    else:
        output_folder(out.parent)
        save(classifier, out, half=half)
    typer.echo(f"wrote {classifier.name} to {out}")


@contextmanager
def exported(classifier: "Classifier", folder: Path | None, overwrite: bool) -> Iterator[None]:
    """Write a Hugging Face network into a folder, if one is given; it takes its place only when the block succeeds.

    Raises:
        UnsupportedModelError: Another network, or a preprocessing that transformers cannot do.
        OutputError: The folder holds something, or cannot be written.
    """
    if folder is None:
        yield
        return
    from vitrail.adapters import export_huggingface  # noqa: PLC0415 (heavy)
    from vitrail.core.files import results_folder  # noqa: PLC0415

    with results_folder(folder, overwrite) as partial:
        export_huggingface(classifier, partial)
        yield
