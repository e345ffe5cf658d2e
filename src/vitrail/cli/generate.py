"""`vitrail generate`: images whose deciding pixels are known."""

from pathlib import Path
from typing import Annotated

import typer

from vitrail.cli.options import OutOption, synthetic_options


def generate(
    task: Annotated[str, typer.Argument(help="What to draw; `vitrail list` names the tasks.")],
    out: OutOption = Path("vitrail-task"),
    train: Annotated[int, typer.Option(min=0, help="Images for training.")] = 10_000,
    val: Annotated[int, typer.Option(min=0, help="Images for validation.")] = 1_000,
    test: Annotated[int, typer.Option(min=0, help="Images for testing.")] = 1_000,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="An option of the task, e.g. size=64 or num_classes=5; may be repeated.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other images.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes that draw; the images are the same.")] = 0,
) -> None:
    """Draw a data set that tells, for every image, which of its pixels decide the class; as a folder that `train` and `test` read."""
    options = synthetic_options(option)
    from vitrail.datasets.synthetic.base import ANSWER  # noqa: PLC0415 (heavy)
    from vitrail.datasets.synthetic.generation import DESCRIPTION_FILE, write_synthetic  # noqa: PLC0415
    from vitrail.datasets.synthetic.names import make_synthetic  # noqa: PLC0415
    from vitrail.viz.ground_truth import MAX_PAIRS, GroundTruthExample, ground_truth_sheet  # noqa: PLC0415

    drawn = make_synthetic(task, seed=seed, **options)
    counts = {split: count for split, count in (("train", train), ("val", val), ("test", test)) if count}
    write_synthetic(drawn, out, counts, workers)
    split, count = next(iter(counts.items()))
    first = [drawn.draw(split, index) for index in range(min(count, MAX_PAIRS))]
    names = drawn.class_names
    ground_truth_sheet(
        [GroundTruthExample(sample.image, sample.masks[ANSWER], names[sample.label]) for sample in first], out / "sheet.png"
    )
    height, width = drawn.image_size
    typer.echo(f"{task}: {len(names)} classes, images of {width}x{height} pixels")
    for split, count in counts.items():
        typer.echo(f"  {split:<5} {count} images in {out / split}")
    typer.echo(f"wrote the ground_truth to {out / 'masks'}, and {DESCRIPTION_FILE} and sheet.png to {out}")
