"""Tables that every page about an explained photo shares: classes, strongest patches, AUC."""

from collections.abc import Mapping, Sequence

from vitrail.core.outputs import Output, format_share, format_value, value_name
from vitrail.explanation import Explanation
from vitrail.metrics import Curves
from vitrail.viz.report import Table


def class_table(classes: Sequence[tuple[str, float]], output: Output = "softmax") -> Table:
    """Tabulate classes with their probabilities or values."""
    return Table(["class", value_name(output)], [[name, format_value(value, output, digits=2)] for name, value in classes])


def patch_table(explanation: Explanation, count: int) -> Table:
    """Tabulate the strongest patches of a single image; with their share of the logit if the method accounts for all of it.

    Args:
        explanation: Of a single image.
        count: Number of patches.
    """
    logit, is_sum = float(explanation.target_logits()[0]), explanation.bias is not None
    rows: list[list[str | float]] = [
        [f"row {row}, column {col}", value, *([format_share(value, logit) or "-"] if is_sum else [])]
        for row, col, value in explanation.strongest_patches(0, count)
    ]
    return Table(["patch", "relevance", *(["share of the logit"] if is_sum else [])], rows)


MAX_COLUMNS = 4
"""Methods in a table of AUCs, above which there is a row per method."""


def auc_table(curves: Mapping[str, Curves], normalized: bool = True) -> Table:
    """Tabulate mean AUCs: a row per curve, a column per method; the other way around if there are many methods.

    Args:
        curves: Curves of every method, all of one protocol.
        normalized: Whether to add the AUCs of the normalized curves.
    """
    summaries = {method: measured.summary() for method, measured in curves.items()}
    better = {curve.name: curve.better for curve in next(iter(curves.values())).protocol.curves}
    names = [name for name in next(iter(summaries.values())) if normalized or name in better]
    rows: list[list[str | float]] = [
        [
            f"{name} ({better[name.removeprefix('normalized_')]} is better)",
            *(summary[name] for summary in summaries.values()),
        ]
        for name in names
    ]
    if len(summaries) <= MAX_COLUMNS:
        return Table(["AUC", *summaries], rows)
    head, *columns = zip(*rows, strict=True)
    return Table(["AUC", *map(str, head)], [[method, *aucs] for method, aucs in zip(summaries, columns, strict=True)])
