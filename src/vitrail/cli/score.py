"""`vitrail score`: measure how faithful explanations are."""

from pathlib import Path
from typing import Annotated

import typer

from vitrail.cli.model_options import ModelOptions
from vitrail.cli.options import DataArgument, DataOptions, OutputOptions, SpeedOptions
from vitrail.cli.panels import METRICS, optional
from vitrail.cli.parsing import parse_names
from vitrail.cli.printing import print_estimates, print_scores, print_warnings, read_scores
from vitrail.cli.results import print_result
from vitrail.cli.scoring_options import ScoringOptions, score_options

OUT = OutputOptions(Path("vitrail-score"))


def score(
    data: DataArgument,
    model: ModelOptions,
    images: DataOptions,
    scoring: ScoringOptions,
    speed: SpeedOptions,
    mosaic: Annotated[
        int | None,
        optional(METRICS, min=2, help="Grid pointing game: cells per side of mosaics of confidently classified images."),
    ] = None,
    output: OutputOptions = OUT,
) -> None:
    """Measure how faithful explanations are; write tables, pictures and a page. Interrupted runs resume."""
    options = score_options(scoring, images, output, speed)
    options["mosaic"] = mosaic
    metrics, protocols = parse_names(scoring.metric) or [], parse_names(scoring.protocol)
    from vitrail import api  # noqa: PLC0415 (heavy)
    from vitrail.core.distributed import process_group, rank  # noqa: PLC0415

    plan = scoring.create_plan(protocols, metrics)  # Before the model is loaded.
    with process_group():
        classifier = model.load(speed.device)
        if protocols is None and not metrics:
            protocols = [api.default_protocol(classifier)]
            plan = scoring.create_plan(protocols, metrics)
        if scoring.dry_run:
            print_estimates(api.estimate_scores([classifier], data, scoring.names, protocols, metrics, **options))
            return
        scores = api.score(classifier, data, scoring.names, protocols, metrics, **options)
        if rank():
            return

    def print_text() -> None:
        print_scores(scores.table, plan.changes())
        typer.echo(f"wrote index.html, images.csv, comparisons.csv, summary.json and pictures to {output.out}")

    warnings = print_warnings(scores.table)
    print_result(lambda: read_scores(output.out, scores.table, warnings), print_text)
