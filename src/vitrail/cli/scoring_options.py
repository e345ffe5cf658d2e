"""Options of `vitrail score` and `vitrail compare`, as parameter groups."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from vitrail.cli.completion import complete_methods, complete_metrics, complete_protocols
from vitrail.cli.options import DataOptions, DryRun, MethodOptions, OutputOptions, SpeedOptions
from vitrail.cli.panels import METHODS, METRICS, option, optional
from vitrail.cli.parsing import parse_names, parse_owned_keys

if TYPE_CHECKING:
    from vitrail.api import ScoreOptions
    from vitrail.evaluation.scoring.plan import Plan


@dataclass(frozen=True)
class MetricOptions:
    """What to measure."""

    dry_run: DryRun = False

    protocol: Annotated[
        str | None,
        optional(
            METRICS,
            help="Protocols of insertion and deletion, comma-separated (default without --metric: tokens for a ViT; hit for others, "
            "and for compare).",
            autocompletion=complete_protocols,
        ),
    ] = None
    metric: Annotated[
        str | None,
        optional(METRICS, help="Other metrics, comma-separated; see vitrail list.", autocompletion=complete_metrics),
    ] = None
    metric_option: Annotated[
        list[str] | None,
        optional(
            METRICS,
            "--metric-option",
            metavar="METRIC.OPTION=VALUE",
            help="Option of a metric, e.g. masks.threshold=0.3; repeatable.",
        ),
    ] = None
    steps: Annotated[
        int | None,
        optional(
            METRICS, min=1, help="Number of steps (default: the protocol's); results are then not comparable to published ones."
        ),
    ] = None
    order: Annotated[
        Literal["most", "least"] | None,
        optional(METRICS, help="Relevance of the cells that change first (default: the protocol's)."),
    ] = None
    baseline: Annotated[
        str | None,
        optional(METRICS, help="What replaces cells or pixels, e.g. zero,imputed; comma-separated (default: the protocol's)."),
    ] = None
    target: Annotated[
        str | None,
        optional(
            METRICS, help='Class to explain, by name or number; "label" for each image\'s label (default: predicted class).'
        ),
    ] = None
    ceiling: Annotated[
        int | None,
        optional(
            METRICS,
            min=1,
            help="Number of images on which to search for the best order of cells, a ceiling of every curve; takes very many passes.",
        ),
    ] = None
    ceiling_stride: Annotated[
        int | None,
        optional(
            METRICS, "--ceiling-stride", min=1, help="Cells that change at a step of this search (default: 1); more cost less."
        ),
    ] = None
    masks: Annotated[
        Path | None,
        optional(METRICS, help="Ground truth: folder of masks, laid out like DATA."),
    ] = None
    boxes: Annotated[bool, option(METRICS, "--boxes", help="Ground truth: boxes of the data set.")] = False

    @property
    def metric_options(self) -> dict[str, dict[str, Any]]:
        """Options by metric."""
        return parse_owned_keys(self.metric_option, "--metric-option", "masks.threshold=0.3")

    def create_plan(self, protocols: list[str] | None, metrics: list[str]) -> "Plan":
        """Create the plan of what to measure by `protocols` and `metrics`."""
        from vitrail.evaluation.scoring.plan import create_plan  # noqa: PLC0415 (heavy)

        return create_plan(protocols, metrics, self.metric_options, self.steps, self.order, parse_names(self.baseline))


@dataclass(frozen=True)
class ScoringOptions(MetricOptions, MethodOptions):
    """Which methods to score, and what to measure."""

    method: Annotated[
        str | None,
        optional(
            METHODS,
            help="Methods, comma-separated; include random as the control (default: random and one that fits the model, often chefer).",
            autocompletion=complete_methods,
        ),
    ] = None


@dataclass(frozen=True)
class RecommendOptions(ScoringOptions):
    """Which methods to try, and what to measure."""

    method: Annotated[
        str | None,
        optional(
            METHODS,
            help="Methods to try, comma-separated (default: all that can explain the model, except rise and shapley).",
            autocompletion=complete_methods,
        ),
    ] = None


def score_options(scoring: ScoringOptions, data: DataOptions, output: OutputOptions, speed: SpeedOptions) -> "ScoreOptions":
    """Collect the options that the commands that score share."""
    return {
        "limit": data.limit,
        "target": scoring.target,
        "options": scoring.metric_options,
        "method_options": scoring.options,
        "steps": scoring.steps,
        "order": scoring.order,
        "baseline": parse_names(scoring.baseline),
        "ceiling": scoring.ceiling or 0,
        "ceiling_stride": scoring.ceiling_stride or 1,
        "masks": scoring.masks,
        "boxes": scoring.boxes,
        "data_set": data.data_set,
        "split": data.split,
        "data_options": data.options,
        "out": output.out,
        "overwrite": output.overwrite,
        "batch_size": speed.batch_size,
        "num_workers": speed.workers,
        "precision": scoring.precision,
        "device": speed.device,
    }
