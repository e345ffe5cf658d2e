"""`vitrail generate`: draw synthetic images with ground truth."""

from pathlib import Path
from typing import Annotated

import typer

from vitrail.cli.completion import complete_synthetic
from vitrail.cli.parsing import parse_synthetic_options
from vitrail.cli.results import print_result


def generate(
    name: Annotated[
        str, typer.Argument(help="Synthetic data set; see vitrail list synthetic.", autocompletion=complete_synthetic)
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder.")] = Path("vitrail-task"),
    train: Annotated[int, typer.Option(min=0, help="Number of training images.")] = 10_000,
    val: Annotated[int, typer.Option(min=0, help="Number of validation images.")] = 1_000,
    test: Annotated[int, typer.Option(min=0, help="Number of test images.")] = 1_000,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="Option of the data set, e.g. size=64 or num_classes=5; repeatable.", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes that draw images.")] = 0,
) -> None:
    """Draw a synthetic data set with masks of the pixels that decide the class, as a folder for train, test and score."""
    options = parse_synthetic_options(option)
    from vitrail.datasets.synthetic.base import GROUND_TRUTH  # noqa: PLC0415 (heavy)
    from vitrail.datasets.synthetic.generation import DESCRIPTION_FILE, write_synthetic  # noqa: PLC0415
    from vitrail.datasets.synthetic.names import make_synthetic  # noqa: PLC0415
    from vitrail.viz.ground_truth import MAX_PAIRS, GroundTruthExample, ground_truth_sheet  # noqa: PLC0415

    dataset = make_synthetic(name, seed=seed, **options)
    counts = {split: count for split, count in (("train", train), ("val", val), ("test", test)) if count}
    write_synthetic(dataset, out, counts, workers)
    split, count = next(iter(counts.items()))
    samples = [dataset.draw(split, index) for index in range(min(count, MAX_PAIRS))]
    class_names = dataset.class_names
    ground_truth_sheet(
        [GroundTruthExample(sample.image, sample.masks[GROUND_TRUTH], class_names[sample.label]) for sample in samples],
        out / "sheet.png",
    )
    height, width = dataset.image_size

    def print_text() -> None:
        typer.echo(f"{name}: {len(class_names)} classes, images of {width}x{height} pixels")
        for split, count in counts.items():
            typer.echo(f"  {split:<5} {count} images in {out / split}")
        typer.echo(f"wrote the ground truth to {out / 'masks'}, and {DESCRIPTION_FILE} and sheet.png to {out}")

    content = {"name": name, "classes": list(class_names), "image_size": [height, width], "images": counts, "out": str(out)}
    print_result(lambda: content, print_text)
