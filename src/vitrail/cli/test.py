"""`vitrail test`: how often a model is right."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitrail.cli.export import exported
from vitrail.cli.options import (
    BatchOption,
    DeviceOption,
    ImageSizeOption,
    LimitOption,
    ModelArgOption,
    ModelOption,
    OverwriteOption,
    WorkersOption,
    data_options,
    load_model,
    report_unreadable,
)
from vitrail.core.errors import InvalidInputError
from vitrail.core.json_io import json_text

if TYPE_CHECKING:
    from vitrail.adapters import Preprocessing
    from vitrail.datasets.dataset import LabeledImages


def test(
    data: Annotated[
        Path,
        typer.Argument(
            help="Folder with one sub-folder per class, or one that holds such a folder named test or val; with --data-set, its root."
        ),
    ],
    model: ModelOption = None,
    model_arg: ModelArgOption = None,
    image_size: ImageSizeOption = None,
    data_set: Annotated[
        str | None, typer.Option("--data-set", help="A data set by its name; see vitrail list data.", show_default=False)
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Of --data-set; test if not given, or val where it has no test.", show_default=False)
    ] = None,
    data_option: Annotated[
        list[str] | None,
        typer.Option("--data-option", metavar="KEY=VALUE", help="Of --data-set; may be repeated.", show_default=False),
    ] = None,
    limit: LimitOption = None,
    batch_size: BatchOption = 64,
    workers: WorkersOption = 0,
    device: DeviceOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Also write accuracy.json into this folder.", show_default=False)
    ] = None,
    overwrite: OverwriteOption = False,
    export: Annotated[
        Path | None,
        typer.Option(
            "--export",
            help="Of a Hugging Face model: also write it into this folder, for from_pretrained of transformers.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Print top-1 and top-5 accuracy and the mean confidence; under torchrun, on many devices."""
    from vitrail.core.distributed import process_group, rank  # noqa: PLC0415
    from vitrail.core.files import results_folder, write_text  # noqa: PLC0415
    from vitrail.evaluation import evaluate  # noqa: PLC0415

    if export is not None and export == out:
        raise InvalidInputError(f"expected --export in a folder of its own, such as {out / 'model'}, got that of --out")
    with process_group(), ExitStack() as folders:
        classifier = load_model(model, device, model_arg, image_size)
        images = _read(data, data_set, split, data_option, classifier.preprocessing).spread(limit)
        first = rank() == 0
        # The folders are claimed before the work, so that a bad one is told at once.
        folder = folders.enter_context(results_folder(out, overwrite)) if first and out is not None else None
        if first and export is not None:
            folders.enter_context(exported(classifier, export, overwrite))
        result = evaluate(classifier, images, batch_size, workers)
        if not first:
            return
        report_unreadable(result.unreadable)
        typer.echo(
            f"{classifier.name} on {result.num_images} images: top-1 {result.top1:.2%}, top-5 {result.top5:.2%}, "
            f"mean confidence {result.confidence:.3f}"
        )
        if folder is not None:
            figures = {
                "model": classifier.name,
                "top1": result.top1,
                "top5": result.top5,
                "mean_confidence": result.confidence,
                "num_images": result.num_images,
                "unreadable": [file._asdict() for file in result.unreadable],
            }
            write_text(folder / "accuracy.json", json_text(figures, indent=2))


def _read(
    root: Path, name: str | None, split: str | None, options: list[str] | None, preprocessing: "Preprocessing"
) -> "LabeledImages":
    """The images to test on: of a data set by its name, else of a folder."""
    if name is None:
        if split is not None or options:
            raise InvalidInputError("expected --split and --data-option together with --data-set, got no --data-set")
        from vitrail.datasets.folder import ImageFolder, split_folder  # noqa: PLC0415 (heavy)

        return ImageFolder.scan(split_folder(root, ["test", "val"]), preprocessing)
    from vitrail.datasets.named import DATA, read_data  # noqa: PLC0415 (heavy)

    given = data_options(options)
    splits = DATA[name].splits or ("test",)
    if name == "folder" and split is None:
        # An option that names a folder is taken at its word.
        splits = tuple(each for each in ("test", "val") if each in given or (root / each).is_dir())
        if not splits:
            raise InvalidInputError(
                f"expected a folder test or val in {root}, found neither; name another by --split, or leave out --data-set to test on all "
                "there is"
            )
    return read_data(name, root, split or ("test" if "test" in splits else "val"), preprocessing, **given)
