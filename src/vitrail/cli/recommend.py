"""`vitrail recommend`: choose a method for a model."""

from pathlib import Path
from typing import Annotated

import typer

from vitrail.cli.model_options import ModelOptions
from vitrail.cli.options import DataArgument, DataOptions, OutputOptions, SpeedOptions
from vitrail.cli.panels import METHODS, optional
from vitrail.cli.parsing import parse_names
from vitrail.cli.printing import print_scores, print_warnings
from vitrail.cli.results import print_result
from vitrail.cli.scoring_options import RecommendOptions, score_options
from vitrail.core.errors import InvalidInputError

OUT = OutputOptions(Path("vitrail-recommend"))


def recommend(
    data: DataArgument,
    model: ModelOptions,
    images: DataOptions,
    scoring: RecommendOptions,
    speed: SpeedOptions,
    budget: Annotated[
        float | None,
        optional(METHODS, help="Largest cost of an explanation, in forward passes; methods that cost more are not tried."),
    ] = None,
    output: OutputOptions = OUT,
) -> None:
    """Recommend a method: score all that can explain the model on a sample of images, and say which to use and why."""
    from vitrail import api  # noqa: PLC0415 (heavy)
    from vitrail.core.distributed import process_group, rank  # noqa: PLC0415

    if scoring.dry_run:
        raise InvalidInputError("expected no --dry-run for recommend; vitrail score --dry-run estimates methods by name")
    options = score_options(scoring, images, output, speed)
    metrics, protocols = parse_names(scoring.metric) or [], parse_names(scoring.protocol)
    if images.limit is None:
        options["limit"] = api.DEFAULT_LIMIT
    with process_group():
        asked = (data, scoring.names, budget, protocols, metrics)
        recommendation = api.recommend(model.load(speed.device), *asked, **options)
        if rank():
            return

    def print_text() -> None:
        print_scores(recommendation.scores.table, {})
        typer.echo(
            f"\n{recommendation}\nwrote index.html, images.csv, comparisons.csv, summary.json and pictures to {output.out}"
        )

    warnings = print_warnings(recommendation.scores.table)
    print_result(
        lambda: {
            "out": str(output.out),
            "model": recommendation.scores.model,
            "method": recommendation.method,
            "reasons": recommendation.reasons,
            "scores": recommendation.scores.means(),
            "not_tried": recommendation.not_tried,
            "over_budget": recommendation.over_budget,
            "warnings": warnings,
        },
        print_text,
    )
