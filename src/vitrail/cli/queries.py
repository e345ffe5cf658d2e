"""`vitrail queries`: where an INTR looked for its classes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitrail.cli.options import (
    DeviceOption,
    ImageSizeOption,
    LimitOption,
    ModelArgOption,
    ModelOption,
    OutOption,
    OverwriteOption,
    load_model,
    report_unreadable,
)
from vitrail.core.errors import InvalidInputError

if TYPE_CHECKING:
    from vitrail.runs.query_photos import PhotoQueries


def queries(
    photos: Annotated[list[Path] | None, typer.Argument(help="Photos, or folders of photos.", show_default=False)] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Instead of photos: a folder of images, flat or with a folder per class, which then tells the true classes.",
            show_default=False,
        ),
    ] = None,
    true_class: Annotated[
        str | None,
        typer.Option(
            "--class",
            help="True class of the photos, by name or number; of a folder with class folders, only the images of this one are taken.",
            show_default=False,
        ),
    ] = None,
    top: Annotated[
        int, typer.Option(min=1, help="How many classes to compare: the true one, and the most probable others.")
    ] = 5,
    model: ModelOption = None,
    model_arg: ModelArgOption = None,
    image_size: ImageSizeOption = None,
    layer: Annotated[int, typer.Option(help="Of the decoder, from 0; from behind if negative.")] = -1,
    limit: LimitOption = None,
    out: OutOption = Path("vitrail-queries"),
    overwrite: OverwriteOption = False,
    device: DeviceOption = None,
) -> None:
    """Show where an INTR looked for the classes it takes a photo for: a sheet per photo, with every head, and the raw maps."""
    if bool(photos) == (data is not None):
        raise InvalidInputError(f"expected photos, or a folder by --data, got {'both' if photos else 'neither'}")
    if data is None and limit is not None:
        raise InvalidInputError("expected --limit together with --data, got photos")
    if model is None:
        raise InvalidInputError("expected an INTR by --model, such as the folder of its training run, got none")
    from vitrail.core.files import growing_folder  # noqa: PLC0415
    from vitrail.explainers.intr import INTRQueries  # noqa: PLC0415 (heavy)
    from vitrail.runs.photo_list import folder_photos, named_photos, refuse_replacing  # noqa: PLC0415
    from vitrail.runs.query_photos import query_photos  # noqa: PLC0415

    # The folder is claimed before the work, so that a bad one is told at once.
    with growing_folder(out, overwrite) as folder:
        explainer = INTRQueries(load_model(model, device, model_arg, image_size), layer=layer)
        if data is None:
            asked = named_photos(photos or [], explainer.model, true_class)
        else:
            asked, classifier = folder_photos(data, explainer.model, true_class, limit)
            explainer = replace(explainer, model=classifier)
        refuse_replacing(asked, out, data)
        found, unreadable = query_photos(explainer, asked, folder, top)
    report_unreadable(unreadable)
    if data is None:
        _print_photos(found)
    _print_sum(found, explainer.model.name, out)


def _print_photos(found: "Sequence[PhotoQueries]") -> None:
    for one in found:
        notes = [(each, one.note(each.index)) for each in one.classes]
        classes = ", ".join(f"{each.name} {each.probability:.1%}{f' ({note})' if note else ''}" for each, note in notes)
        typer.echo(f"{one.photo.path}: {classes}")


def _print_sum(found: "Sequence[PhotoQueries]", model: str, out: Path) -> None:
    known = [one for one in found if one.true_class is not None]
    right = sum(one.true_class == one.predicted for one in known)
    told = f", the true class predicted in {right} of {len(known)}" if known else ""
    typer.echo(f"{model}: {len(found)} photo(s){told}")
    both = ", queries.png of them together" if len(found) > 1 else ""
    typer.echo(f"wrote a sheet and the maps (.safetensors) of every photo{both}, and queries.json to {out}")
