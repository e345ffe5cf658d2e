"""What to measure: protocols and metrics by name, and the columns that they fill."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_type_hints

from vitrail.core.errors import InvalidInputError
from vitrail.core.options import convert_options
from vitrail.metrics import METRICS, PROTOCOLS, ImageMetric, InsertionDeletion, Measure, Protocol
from vitrail.metrics.protocols import describe_changes

ALWAYS = "completeness"
"""Measured for every explanation that accounts for the whole logit, since it costs nothing."""

DEFAULT_PROTOCOL = "hit"

CURVES = ("insertion", "deletion", "auc", "insertion-deletion", "perturbation")
"""What users call the areas that protocols measure."""


@dataclass(frozen=True)
class Column:
    """One number per image and method.

    Attributes:
        name: Metric and measure, "hit.insertion_zero"; for a metric with one measure, the name of the metric.
        metric: Name of the metric or protocol.
        measure: Direction, range and description.
    """

    name: str
    metric: str
    measure: Measure


@dataclass(frozen=True, eq=False)
class Plan:
    """The metrics to compute for every image and method.

    Attributes:
        metrics: Metrics by name, protocols among them.
        options: All options of every metric.
    """

    metrics: Mapping[str, ImageMetric]
    options: Mapping[str, Mapping[str, Any]]

    @classmethod
    def create(
        cls,
        protocols: Sequence[str] | Mapping[str, Protocol] = (),
        metrics: Sequence[str] = (),
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> "Plan":
        """Create a plan from names.

        Args:
            protocols: Names of protocols, or protocols of your own by name.
            options: Options by metric; texts and numbers are converted to the type of the option.

        Raises:
            UnknownNameError: No such protocol or metric.
            InvalidInputError: Nothing to measure, a name given twice, or an option that does not fit.
        """
        by_name = protocols if isinstance(protocols, Mapping) else {name: PROTOCOLS[name] for name in protocols}
        names = [*(protocols if isinstance(protocols, Mapping) else list(protocols)), *metrics]
        if not names or len(set(names)) < len(names):
            raise InvalidInputError(
                f"expected at least one protocol or metric, each once, under different names, got {', '.join(names) or 'none'}"
            )
        options = options or {}
        if unknown := [name for name in options if name not in metrics]:
            raise InvalidInputError(
                f"expected options of {' or '.join(metrics) or 'no metric'}, got options of {unknown[0]!r}, which is not among the metrics"
            )
        measured: dict[str, ImageMetric] = {name: InsertionDeletion(protocol) for name, protocol in by_name.items()}
        resolved: dict[str, Mapping[str, Any]] = {name: asdict(protocol) for name, protocol in by_name.items()}
        for name in metrics:
            resolved[name] = _resolve_options(name, options.get(name, {}))
            measured[name] = METRICS[name](**resolved[name])
        if ALWAYS not in measured:
            measured[ALWAYS], resolved[ALWAYS] = METRICS[ALWAYS](), {}
        return cls(measured, resolved)

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns, in the order of arrays and tables."""
        return tuple(
            Column(name if measure.name.replace("_", "-") == name else f"{name}.{measure.name}", name, measure)
            for name, metric in self.metrics.items()
            for measure in metric.measures
        )

    @property
    def protocols(self) -> dict[str, Protocol]:
        """The protocols among the metrics."""
        return {name: metric.protocol for name, metric in self.metrics.items() if isinstance(metric, InsertionDeletion)}

    @property
    def needs_ground_truth(self) -> list[str]:
        """Names of the metrics that compare relevance with ground truth."""
        return [name for name, metric in self.metrics.items() if metric.needs_ground_truth]

    def changes(self) -> dict[str, str]:
        """Describe where a protocol differs from the published one, by name of the protocol."""
        described = {name: describe_changes(name, protocol) for name, protocol in self.protocols.items()}
        return {
            name: f"changed, not comparable to published results: {'; '.join(words)}"
            for name, words in described.items()
            if words
        }


def create_plan(
    protocol: str | Protocol | Sequence[str] | None = None,
    metrics: str | Sequence[str] = (),
    options: Mapping[str, Mapping[str, Any]] | None = None,
    steps: int | None = None,
    order: Literal["most", "least"] | None = None,
    baseline: str | Sequence[str] | None = None,
) -> Plan:
    """Create a plan from what a user gives; the protocol "hit" if neither a protocol nor a metric is named.

    Args:
        protocol: Names of protocols, or a protocol of your own, which is then called "own".
        steps: Number of steps of all protocols (default: the protocol's); results are then not comparable to published ones.
        order: Which cells change first, for all protocols (default: the protocol's).
        baseline: What replaces cells or pixels, for all protocols (default: the protocol's).

    Raises:
        UnknownNameError: No such protocol or metric.
        InvalidInputError: A name given twice, a metric given as a protocol or the other way round, options that do not fit, or steps,
            an order or a baseline without a protocol.
    """
    metric_names = [metrics] if isinstance(metrics, str) else list(metrics)
    for name in metric_names:
        if name in PROTOCOLS and name not in METRICS:
            raise InvalidInputError(f"{name} is a protocol; give it by --protocol")
        if name in CURVES and name not in METRICS:
            raise InvalidInputError(
                f"{name} is measured by protocols; give one by --protocol instead of --metric {name}: {', '.join(PROTOCOLS)}"
            )
    if isinstance(protocol, Protocol):
        protocols = {"own": protocol}
    else:
        names = [protocol] if isinstance(protocol, str) else protocol
        names = list(names) if names is not None else [] if metric_names else [DEFAULT_PROTOCOL]
        if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise InvalidInputError(f"expected names of protocols, each once, or one protocol of your own, got {names}")
        for name in names:
            if name in METRICS and name not in PROTOCOLS:
                raise InvalidInputError(f"{name} is a metric; give it by --metric")
        protocols = {name: PROTOCOLS[name] for name in names}
    if (steps or order or baseline) and not protocols:
        raise InvalidInputError("expected --steps, --order and --baseline together with --protocol, got none")
    fields = {
        "num_steps": steps,
        "orders": (order,) if order else None,
        "baselines": (baseline,) if isinstance(baseline, str) else tuple(baseline) if baseline else None,
    }
    return Plan.create({name: chosen.changed(**fields) for name, chosen in protocols.items()}, metric_names, options)


def metric_options(name: str) -> dict[str, Any]:
    """Return the options of a metric and their defaults.

    Raises:
        UnknownNameError: No such metric.
    """
    return {
        option.name: option.default
        for constructor in _constructors(name)
        for option in inspect.signature(constructor).parameters.values()
        if option.kind in (option.POSITIONAL_OR_KEYWORD, option.KEYWORD_ONLY) and option.name != "self"
    }


def _resolve_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options of a metric: the given ones, converted to their types, and the defaults of others."""
    options = metric_options(name)
    types = {option: kind for constructor in _constructors(name) for option, kind in get_type_hints(constructor).items()}
    return options | convert_options(name, options, types, given)


def _constructors(name: str) -> list[Callable[..., None]]:
    """Return the constructors that take the options of a metric: those of its bases, then its own."""
    kinds = [kind for kind in reversed(METRICS[name].__mro__) if issubclass(kind, ImageMetric)]
    return [vars(kind)["__init__"] for kind in kinds if "__init__" in vars(kind)]
