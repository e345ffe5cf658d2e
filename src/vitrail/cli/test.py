"""`vitrail test`: measure the accuracy of a model."""

from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitrail.cli.model_options import ModelOptions
from vitrail.cli.options import LARGE_BATCHES, DataOptions, Overwrite, SpeedOptions, TestDataArgument
from vitrail.cli.panels import OUTPUT, optional
from vitrail.cli.printing import print_unreadable
from vitrail.cli.results import print_result

if TYPE_CHECKING:
    from vitrail.evaluation import Evaluation

NUM_TOP = 5


def test(
    data: TestDataArgument,
    model: ModelOptions,
    images: DataOptions,
    out: Annotated[
        Path | None,
        optional(OUTPUT, "--out", "-o", help="Also write accuracy.json."),
    ] = None,
    export: Annotated[
        Path | None,
        optional(OUTPUT, "--export", help="Also write a Hugging Face model for from_pretrained of transformers."),
    ] = None,
    overwrite: Overwrite = False,
    speed: SpeedOptions = LARGE_BATCHES,
) -> None:
    """Measure top-1 and top-5 accuracy and the mean confidence."""
    from vitrail import api  # noqa: PLC0415 (heavy)
    from vitrail.core.distributed import process_group  # noqa: PLC0415
    from vitrail.evaluation.accuracy import describe_accuracy  # noqa: PLC0415

    with process_group():
        classifier = model.load(speed.device)

        def report(result: "Evaluation") -> None:
            print_unreadable(result.unreadable)
            top5 = f", top-5 {result.top5:.2%}" if classifier.num_classes > NUM_TOP else ""  # Else it is 100%.
            confidence = "" if isnan(result.confidence) else f", mean confidence {result.confidence:.3f}"
            print_result(
                lambda: describe_accuracy(classifier.name, result),
                lambda: typer.echo(
                    f"{classifier.name} on {result.num_images} images: top-1 {result.top1:.2%}{top5}{confidence}"
                ),
            )

        api.test(
            *(classifier, data, images.limit),
            **images.source,
            batch_size=speed.batch_size,
            num_workers=speed.workers,
            out=out,
            export=export,
            overwrite=overwrite,
            on_result=report,
        )
