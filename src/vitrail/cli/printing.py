"""Print results: scores, explanations, skipped files."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vitrail.cli.results import print_result, read_result
from vitrail.core.listing import count_nouns

if TYPE_CHECKING:
    from vitrail.datasets.dataset import Unreadable
    from vitrail.evaluation.estimate import Estimate
    from vitrail.evaluation.scoring.table import Table
    from vitrail.explanation import Explanation
    from vitrail.runs.explain_files import FolderResults
    from vitrail.runs.query_results import PhotoQueries

MAX_FILES = 10
COMPLETENESS = "largest |sum of parts - logit| / largest |logit|"


def print_unreadable(unreadable: "Sequence[Unreadable]") -> None:
    """Print which files were skipped."""
    for file in unreadable[:MAX_FILES]:
        reason = file.reason if file.path in file.reason else f"{file.path}: {file.reason}"
        typer.echo(f"skipped: {reason}", err=True)
    if unreadable:
        typer.echo(f"skipped {count_nouns(len(unreadable), 'unreadable file')}", err=True)


def print_estimates(estimates: "Sequence[Estimate]") -> None:
    """Print what a run will cost, for every model."""
    print_result(
        lambda: [asdict(estimate) for estimate in estimates],
        lambda: typer.echo("\n".join(line for estimate in estimates for line in estimate.lines())),
    )


def print_scores(table: "Table", changes: Mapping[str, str]) -> None:
    """Print means, ranks and costs, and the effect of reduced precision.

    Args:
        changes: By protocol, where it differs from the published one.
    """
    from vitrail.evaluation.scoring.text import table_lines  # noqa: PLC0415 (heavy)

    typer.echo(f"{', '.join(scores.model for scores in table.scores)}, {count_nouns(table.num_images, 'image')}")
    for line in table_lines(table, changes):
        typer.echo(line)
    for scores in table.scores:
        if scores.effect is not None:
            effect = ", ".join(f"{name} {value:.1e}" for name, value in scores.effect.items())
            typer.echo(f"{scores.model}: mean effect of reduced precision on the first batch: {effect}")


def print_warnings(table: "Table") -> list[str]:
    """Print skipped files, and which methods are not better than random; return the latter. With `--json` too: it is standard error."""
    from vitrail.evaluation.scoring.text import warning_lines  # noqa: PLC0415 (heavy)

    print_unreadable(table.scores[0].unreadable)
    lines = warning_lines(table.unproven, table.num_images, table.num_compared)
    for line in lines:
        typer.echo(f"warning: {line}", err=True)
    return lines


def read_scores(out: Path, table: "Table", warnings: Sequence[str]) -> dict[str, object]:
    """Return the summary that a command has written, with its warnings and the verdict on each model, which says times."""
    from vitrail.evaluation.scoring.verdict import reach_verdict  # noqa: PLC0415 (heavy)

    verdicts = {scores.model: reach_verdict(scores) for scores in table.scores}
    described = {model: {"method": each.method, "sentences": each.sentences} for model, each in verdicts.items()}
    return {**read_result(out, "summary.json"), "warnings": warnings, "verdicts": described}


def print_folder(results: "FolderResults", model: str, out: Path) -> None:
    """Print the summary of an explained folder."""
    before = f", {results.num_before} of them by an earlier run" if results.num_before else ""
    typer.echo(f"{model}: {count_nouns(results.num_images, 'image')} explained by {', '.join(results.methods)}{before}")
    for name, error in results.completeness.items():
        typer.echo(f"completeness error of {name}: {error:.1e} ({COMPLETENESS})")
    written = "shards and pictures" if results.in_shards else "contact_sheet.png and a folder per method"
    typer.echo(f"wrote images.csv, run.json, {written} to {out}")


def print_explanations(explanations: "Mapping[str, Sequence[Explanation]]", top: int, out: Path) -> None:
    """Print model and methods, and the top classes and the strongest patches of every photo.

    Args:
        explanations: By method, the explanations of all photos, or one per photo.
        top: Number of classes and patches.
        out: Where the results are.
    """
    from vitrail.core.outputs import format_value  # noqa: PLC0415 (heavy)
    from vitrail.runs.explain_photos import EXPLANATIONS, SHEET  # noqa: PLC0415 (heavy)
    from vitrail.viz.sheet import MAX_ROWS  # noqa: PLC0415

    several = len(explanations) > 1
    per_photo = {name: [photo for saved in files for photo in saved] for name, files in explanations.items()}
    first = next(iter(per_photo.values()))
    typer.echo(f"{first[0].model or 'model'}: {count_nouns(len(first), 'photo')} explained by {', '.join(per_photo)}")
    for i, explanation in enumerate(first):
        named = explanation.top_classes(0, top)
        classes = ", ".join(f"{name} {format_value(value, explanation.output)}" for name, value in named)
        typer.echo(f"{explanation.sources[0]}: {classes or 'an embedding, without classes'}")
        for name, method_values in per_photo.items():
            typer.echo(f"  {f'{name}: ' if several else ''}{describe_explanation(method_values[i], top)}")
    for name, files in explanations.items():
        errors = [error for saved in files if (error := saved.completeness_error()) is not None]
        if errors:
            typer.echo(f"completeness error{f' of {name}' if several else ''}: {max(errors):.1e} ({COMPLETENESS})")
    # Photos with different grids are saved one by one.
    separate = len(next(iter(explanations.values()))) > 1
    arrays = ".npz and .json per photo" if separate else f"{EXPLANATIONS}.npz and .json"
    cut = f" (of the first {MAX_ROWS})" if len(first) > MAX_ROWS else ""
    if several:
        typer.echo(
            f"wrote {SHEET}.png{cut}, and {count_nouns(len(first), 'picture')}, {arrays} per method ({', '.join(explanations)}) to {out}"
        )
    else:
        typer.echo(f"wrote {count_nouns(len(first), 'picture')}, {SHEET}.png{cut}, {arrays} to {out}")


def describe_explanation(explanation: "Explanation", top: int) -> str:
    """Describe the explanation of one photo in a line: the logit and its parts if it is complete, and the strongest patches."""
    from vitrail.core.outputs import format_share, has_probabilities  # noqa: PLC0415 (heavy)

    target, logit = explanation.target_name(), float(explanation.target_logits()[0])
    patches, ties = explanation.strongest_patches(0, top), len(explanation.ties(0, top))
    tied = f"; {ties} more may be as strong, within the error of sampling" if ties else ""
    if explanation.bias is None:
        num_values = explanation.relevance.unique().numel()
        if num_values == 1 < explanation.relevance.numel():
            return f"relevance for {target} is {patches[0][2]:.3g} everywhere: the method found nothing to show"
        parts = ", ".join(f"row {row} column {col} {value:.3g}" for row, col, value in patches)
        return f"relevance for {target}; strongest patches: {parts}{tied}"
    shares = [share and f" ({share})" for share in (format_share(value, logit) for _, _, value in patches)]
    parts = ", ".join(
        f"row {row} column {col} {value:+.3f}{share}" for (row, col, value), share in zip(patches, shares, strict=True)
    )
    bias = float(explanation.bias[0])
    number = "logit" if has_probabilities(explanation.output) else "value"
    return (
        f"{number} of {target} {logit:+.3f} = patches {logit - bias:+.3f} and constants {bias:+.3f}; "
        f"strongest patches: {parts}{tied}"
    )


def print_queries(results: "Sequence[PhotoQueries]", model: str, out: Path, one_by_one: bool) -> None:
    """Print the classes shown for photos.

    Args:
        one_by_one: Whether to print a line per photo.
    """
    for result in results if one_by_one else ():
        notes = [(queried, result.describe_class(queried.index)) for queried in result.classes]
        classes = ", ".join(f"{each.name} {each.format_value()}{f' ({note})' if note else ''}" for each, note in notes)
        typer.echo(f"{result.photo.path}: {classes}")
    known = [result for result in results if result.true_class is not None]
    right = sum(result.true_class == result.predicted for result in known)
    accuracy = f", the true class predicted in {right} of {len(known)}" if known else ""
    typer.echo(f"{model}: {count_nouns(len(results), 'photo')}{accuracy}")
    overview = ", queries.png of all photos" if len(results) > 1 else ""
    typer.echo(f"wrote a sheet and the maps (.safetensors) of every photo{overview}, and queries.json to {out}")
