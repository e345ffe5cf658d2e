"""`vitrail compare`: score the methods of several models side by side."""

from pathlib import Path
from typing import Annotated

import typer

from vitrail.cli.model_options import ModelsOptions
from vitrail.cli.options import DataArgument, DataOptions, OutputOptions, SpeedOptions
from vitrail.cli.panels import MODEL, optional
from vitrail.cli.parsing import parse_names
from vitrail.cli.printing import print_estimates, print_scores, print_warnings, read_scores
from vitrail.cli.results import print_result
from vitrail.cli.scoring_options import ScoringOptions, score_options
from vitrail.core.errors import InvalidInputError

OUT = OutputOptions(Path("vitrail-compare"))


def compare(
    data: DataArgument,
    model: ModelsOptions,
    images: DataOptions,
    scoring: ScoringOptions,
    speed: SpeedOptions,
    name: Annotated[
        str | None,
        optional(MODEL, help="Names of the models in results, comma-separated (default: those of the files, runs or sources)."),
    ] = None,
    output: OutputOptions = OUT,
) -> None:
    """Score several models on the same images; write one table and page of all methods. Interrupted runs resume."""
    names = model.names
    if names is None:
        raise InvalidInputError("expected models by --model, separated by commas, got none")
    shown = parse_names(name)
    if shown is not None and len(shown) != len(names):
        raise InvalidInputError(f"expected a different name for each of the {len(names)} models by --name, got {name!r}")
    options = score_options(scoring, images, output, speed)
    metrics, protocols = parse_names(scoring.metric) or [], parse_names(scoring.protocol)
    from vitrail import api  # noqa: PLC0415 (heavy)
    from vitrail.core.distributed import process_group, rank  # noqa: PLC0415

    plan = scoring.create_plan(protocols, metrics)
    with process_group():
        models = api.NamedModel.each(names, model.keywords, shown)
        if scoring.dry_run:
            print_estimates(api.estimate_scores(models, data, scoring.names, protocols, metrics, **options))
            return
        table = api.compare(models, data, scoring.names, protocols, metrics, **options)
        if rank():
            return

    def print_text() -> None:
        print_scores(table, plan.changes())
        typer.echo(
            f"wrote index.html, images.csv, comparisons.csv, summary.json and pictures to {output.out}, and the results of each model to "
            f"{output.out / 'models'}"
        )

    warnings = print_warnings(table)
    print_result(lambda: read_scores(output.out, table, warnings), print_text)
