"""What was done, as a paragraph for a paper."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from vitrail.evaluation.scoring.table import Table
from vitrail.evaluation.scoring.text import SMALL
from vitrail.explainers import EXPLAINERS, Explainer
from vitrail.explainers.random import RandomRelevance
from vitrail.metrics import METRICS
from vitrail.metrics.protocols import describe_changes
from vitrail.metrics.statistics import CONTROL
from vitrail.metrics.statistics.resampling import EXACT_IMAGES, MAX_RESAMPLED, NUM_RESAMPLES, NUM_SIGN_FLIPS
from vitrail.runs.manifest import describe_method
from vitrail.version import __version__

CURVES = "Insertion and deletion (Petsiuk et al. 2018, arXiv:1806.07421)"

MAX_NUMBERS = 10
"""Measures whose numbers the paragraph gives; the tables have all."""


@dataclass(frozen=True)
class Setup:
    """What a paragraph says about a run beyond its numbers.

    Attributes:
        images: How the images were chosen, after their number: "evenly spread over photos".
        target: Which class is explained.
        options: By method: its options that are not the defaults.
        models: By model: its input size and the fingerprint of its weights.
    """

    images: str = ""
    target: str = ""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)


def list_changed_options(explainers: Sequence[Explainer]) -> dict[str, dict[str, Any]]:
    """Return the options of every method that differ from its defaults, as a run records them."""
    changed = dict[str, dict[str, Any]]()
    for explainer in explainers:
        recorded = describe_method(explainer)
        defaults = {option.name: option.default for option in fields(explainer)}
        changed[explainer.name] = {
            name: recorded[name] for name, default in defaults.items() if name in recorded and recorded[name] != default
        }
    return changed


def describe_methods_for_citation(table: Table, setup: Setup | None = None) -> str:
    """Write the paragraph: methods with their papers and options, images, protocols, numbers beside the control's, statistics, version."""
    setup = setup or Setup()
    methods = list(dict.fromkeys(method for scores in table.scores for method in scores.methods))
    explained = [_describe_method(name, setup.options.get(name, {})) for name in methods if name != CONTROL]
    if CONTROL in methods:
        seed = setup.options.get(CONTROL, {}).get("seed", RandomRelevance.seed)
        explained.append(f"random relevance (seed {seed}) as the control")
    names = [scores.model for scores in table.scores]
    models = _join([f"{name} ({setup.models[name]})" if name in setup.models else name for name in names])
    what = f"{setup.target} of " if setup.target else ""
    images = f"{table.num_images:,} image{'s' if table.num_images > 1 else ''}{f', {setup.images}' if setup.images else ''}"
    sentences = [f"We explained {what}{models} by {_join(explained)}, on {images}."]
    for name, protocol in table.scores[0].protocols.items():
        changes = describe_changes(name, protocol)
        changed = f", but changed to {' and '.join(changes)}" if changes else ""
        description = protocol.description.rstrip(".")
        sentences.append(f"{CURVES} follow the protocol {name}: {description} ({protocol.source}){changed}.")
    others = [name for name in dict.fromkeys(column.metric for column in table.columns) if name in METRICS]
    if others:
        also = "also " if table.scores[0].protocols else ""
        sentences.append(f"We {also}measured {_join([_cite_metric(name) for name in others])}.")
    sentences += _list_numbers(table)
    sentences.append(_describe_statistics(table))
    sentences.append(f"Computed with vitrail {__version__} (cite it by its CITATION.cff).")
    return " ".join(sentences)


def _describe_method(name: str, options: Mapping[str, Any]) -> str:
    paper = EXPLAINERS[name].paper if name in EXPLAINERS else ""
    words = [*([paper] if paper else []), *(f"{option}={value}" for option, value in options.items())]
    return f"{name} ({'; '.join(words)})" if words else name


def _cite_metric(name: str) -> str:
    paper = METRICS[name].paper
    return f"{name} ({paper})" if paper else name


def _list_numbers(table: Table) -> list[str]:
    """Return the means of the first measures that have a direction, with their intervals, for every method."""
    columns = [i for i, column in enumerate(table.columns) if column.measure.better and "normalized_" not in column.name]
    sentences = []
    for i in columns[:MAX_NUMBERS]:
        numbers = [
            f"{name} {_format(intervals.mean[i])}"
            + (f" [{_format(intervals.low[i])}, {_format(intervals.high[i])}]" if intervals.count[i] > 1 else "")
            for name, intervals in table.intervals.items()
            if not np.isnan(intervals.mean[i])
        ]
        if numbers:
            sentences.append(f"{table.columns[i].name} ({table.columns[i].measure.better} is better): {', '.join(numbers)}.")
    if len(columns) > MAX_NUMBERS:
        sentences.append(f"These are the first {MAX_NUMBERS} of {len(columns)} measures.")
    return sentences


def _format(value: float) -> str:
    return f"{value:.1e}" if 0 < abs(value) < SMALL else f"{value:z.3f}"


def _describe_statistics(table: Table) -> str:
    if table.num_images < 2:
        return "One image has no interval, and no method can be tested on it."
    if table.num_images > MAX_RESAMPLED:
        return "Intervals (95%) and paired tests use the normal approximation; p-values are Holm-corrected within a measure."
    test = "exact sign-flip tests" if table.num_images <= EXACT_IMAGES else f"sign-flip tests ({NUM_SIGN_FLIPS:,} draws)"
    intervals = f"Intervals are 95% bootstrap intervals over images ({NUM_RESAMPLES:,} resamples)"
    if len(table.methods) < 2:
        return f"{intervals}."
    return f"{intervals}; methods are compared by paired {test}, Holm-corrected within a measure."


def _join(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
