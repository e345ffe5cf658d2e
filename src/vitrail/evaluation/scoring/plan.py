"""What is to be measured: protocols and metrics by name, and the columns that they fill."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from vitrail.core.errors import InvalidInputError
from vitrail.metrics import METRICS, PROTOCOLS, ImageMetric, InsertionDeletion, Measure, Protocol

ALWAYS = "completeness"
"""Of every explanation that says it accounts for the whole logit: it costs nothing."""


@dataclass(frozen=True)
class Column:
    """One number per image and method.

    Attributes:
        name: Metric and measure, "hit.insertion_zero"; of a metric with one measure, its name alone.
        metric: Name of the metric or protocol.
        measure: What it is.
    """

    name: str
    metric: str
    measure: Measure


@dataclass(frozen=True, eq=False)
class Plan:
    """What is to be measured of every image and method.

    Attributes:
        metrics: By name; protocols among them.
        options: The options of every metric, as they were resolved.
    """

    metrics: Mapping[str, ImageMetric]
    options: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(
        cls,
        protocols: Sequence[str] | Mapping[str, Protocol] = (),
        metrics: Sequence[str] = (),
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> "Plan":
        """Build a plan from names.

        Args:
            protocols: Names of protocols; or protocols under names of the user's own.
            metrics: Names of metrics.
            options: Per metric, its options; texts and numbers are brought to the option's type.

        Raises:
            UnknownNameError: No such protocol or metric.
            InvalidInputError: Nothing to measure, a name twice, or an option that does not fit.
        """
        chosen = protocols if isinstance(protocols, Mapping) else {name: PROTOCOLS[name] for name in protocols}
        named = [*(protocols if isinstance(protocols, Mapping) else list(protocols)), *metrics]
        if not named or len(set(named)) < len(named):
            raise InvalidInputError(
                f"expected at least one protocol or metric, each once, under different names, got {', '.join(named) or 'none'}"
            )
        options = options or {}
        if unknown := [name for name in options if name not in metrics]:
            raise InvalidInputError(
                f"expected options of {' or '.join(metrics) or 'no metric'}, got options of {unknown[0]!r}, which is not asked for"
            )
        made: dict[str, ImageMetric] = {name: InsertionDeletion(protocol) for name, protocol in chosen.items()}
        resolved: dict[str, Mapping[str, Any]] = {name: asdict(protocol) for name, protocol in chosen.items()}
        for name in metrics:
            given = _resolved(name, options.get(name, {}))
            made[name], resolved[name] = METRICS[name](**given), given
        if ALWAYS not in made:
            made[ALWAYS], resolved[ALWAYS] = METRICS[ALWAYS](), {}
        return cls(made, resolved)

    @property
    def columns(self) -> tuple[Column, ...]:
        """What is measured, in the order of all arrays and tables."""
        return tuple(
            Column(name if measure.name.replace("_", "-") == name else f"{name}.{measure.name}", name, measure)
            for name, metric in self.metrics.items()
            for measure in metric.measures
        )

    @property
    def protocols(self) -> dict[str, Protocol]:
        """The protocols among the metrics."""
        return {name: each.protocol for name, each in self.metrics.items() if isinstance(each, InsertionDeletion)}

    @property
    def needs_ground_truth(self) -> list[str]:
        """The metrics that compare maps with what is known to decide."""
        return [name for name, metric in self.metrics.items() if metric.needs_ground_truth]


def metric_options(name: str) -> dict[str, Any]:
    """The options of a metric and their defaults.

    Raises:
        UnknownNameError: No such metric.
    """
    return {
        option.name: option.default
        for option in inspect.signature(METRICS[name].__init__).parameters.values()
        if option.kind in (option.POSITIONAL_OR_KEYWORD, option.KEYWORD_ONLY) and option.name != "self"
    }


def _resolved(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a metric: those that are given, brought to their types, and the defaults."""
    found, types = metric_options(name), get_type_hints(METRICS[name].__init__)
    for key, value in given.items():
        if key not in found:
            raise InvalidInputError(f"metric {name!r} has no option {key}; its options: {', '.join(found) or 'none'}")
        try:
            adapter = TypeAdapter(types.get(key, Any), config=ConfigDict(arbitrary_types_allowed=True))
            found[key] = adapter.validate_python(value)
        except ValidationError as error:
            raise InvalidInputError(f"cannot use {value!r} for {name}.{key}: {error.errors()[0]['msg']}") from error
    return found
