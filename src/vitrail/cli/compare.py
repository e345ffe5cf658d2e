"""`vitrail compare`: score the methods of several models side by side."""

from pathlib import Path
from typing import Annotated

import typer

from vitrail.cli.options import MODEL, DataOptions, OutputOptions, SpeedOptions
from vitrail.cli.parsing import parse_names
from vitrail.cli.printing import print_scores
from vitrail.cli.scoring_options import ScoredMethodOptions, ScoringOptions, score_options
from vitrail.core.errors import InvalidInputError

OUT = OutputOptions(Path("vitrail-compare"))


def compare(
    data: Annotated[Path, typer.Argument(help="Photo, folder of photos, or folder with one subfolder per class.")],
    model: Annotated[
        str,
        typer.Option("--model", "-m", help="Models, comma-separated; see vitrail explain --help.", rich_help_panel=MODEL),
    ],
    images: DataOptions,
    methods: ScoredMethodOptions,
    scoring: ScoringOptions,
    speed: SpeedOptions,
    output: OutputOptions = OUT,
) -> None:
    """Score several models on the same images; write one table and page of all methods. Interrupted runs resume."""
    names = [name.strip() for name in model.split(",")]
    if len(set(names)) < len(names) or not all(names):
        raise InvalidInputError(f"expected models separated by commas, each once, got {model!r}")
    options = score_options(methods, scoring, images, output, speed)
    metrics, protocols = parse_names(scoring.metric) or [], parse_names(scoring.protocol)
    from vitrail import api  # noqa: PLC0415 (heavy)
    from vitrail.core.distributed import process_group, rank  # noqa: PLC0415
    from vitrail.evaluation.scoring.plan import create_plan  # noqa: PLC0415

    plan = create_plan(protocols, metrics, scoring.options, scoring.steps, scoring.order)
    with process_group():
        table = api.compare(
            *(names, data, methods.names, protocols, metrics, images.limit, scoring.target),
            options=scoring.options,
            **options,
        )
        if rank():
            return
    print_scores(table, plan.changes())
    typer.echo(
        f"wrote index.html, images.csv, comparisons.csv, summary.json and pictures to {output.out}, and the results of each model to "
        f"{output.out / 'models'}"
    )
