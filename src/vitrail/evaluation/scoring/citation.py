"""What was done, as a paragraph for a paper."""

from vitrail.evaluation.scoring.table import Table
from vitrail.explainers import EXPLAINERS
from vitrail.metrics import METRICS
from vitrail.metrics.statistics import CONTROL
from vitrail.metrics.statistics.resampling import EXACT_IMAGES, MAX_RESAMPLED
from vitrail.version import __version__


def describe_methods_for_citation(table: Table) -> str:
    """Write the paragraph: methods with their papers, images, protocols with their sources, statistics and version."""
    first = table.scores[0]
    methods = list(dict.fromkeys(method for scores in table.scores for method in scores.methods))
    explained = [f"{name} ({EXPLAINERS[name].paper})" if _has_paper(name) else name for name in methods if name != CONTROL]
    if CONTROL in methods:
        explained.append("random relevance as the control")
    models = ", ".join(scores.model for scores in table.scores)
    sentences = [f"We explained {models} by {_join(explained)}, on {table.num_images:,} images."]
    sentences += [
        f"Insertion and deletion follow the protocol {name}: {protocol.description.rstrip('.')} ({protocol.source})."
        for name, protocol in first.protocols.items()
    ]
    others = [name for name in dict.fromkeys(column.metric for column in first.columns) if name in METRICS]
    if others:
        sentences.append(f"We also measured {_join(others)}.")
    sentences.append(_describe_statistics(table))
    sentences.append(f"Computed with vitrail {__version__}.")
    return " ".join(sentences)


def _describe_statistics(table: Table) -> str:
    if table.num_images > MAX_RESAMPLED:
        return "Intervals (95%) and paired tests use the normal approximation; p-values are Holm-corrected within a measure."
    test = "exact sign-flip tests" if table.num_images <= EXACT_IMAGES else "sign-flip tests"
    return f"Intervals are 95% bootstrap intervals over images; methods are compared by paired {test}, Holm-corrected within a measure."


def _has_paper(name: str) -> bool:
    return name in EXPLAINERS and bool(EXPLAINERS[name].paper)


def _join(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
