"""Results as JSON values, for API clients."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from vitrail.app.explain_request import TOP, ExplainResult
from vitrail.core.outputs import value_name
from vitrail.metrics import Curves


def result_to_json(side: ExplainResult, parts: bool = False) -> dict[str, Any]:
    """Convert a result to JSON values for API clients.

    Args:
        side: The result.
        parts: Whether to add the parts of explanations.
    """
    first = side.row.explanations[0]
    maps = []
    for method, explanation in side.explanations.items():
        strongest = explanation.strongest_patches(0, TOP)
        entry: dict[str, Any] = {
            "method": method,
            "relevance": explanation.to("cpu").relevance[0].tolist(),
            "bias": None if explanation.bias is None else float(explanation.bias[0]),
            "strongest": [{"row": row, "col": col, "relevance": value} for row, col, value in strongest],
        }
        if parts and method in side.parts:
            entry["parts"] = [{"title": part.title, "relevance": part.relevance.tolist()} for part in side.parts[method].parts]
        maps.append(entry)
    return {
        "model": side.model,
        "target": side.target,
        "target_index": int(first.targets[0]),
        "logit": float(first.target_logits()[0]),
        value_name(side.output): side.probability,
        "top": [{"class": name, value_name(side.output): share} for name, share in side.classes[:TOP]],
        "maps": maps,
    }


def curves_to_json(curves: Mapping[str, Curves]) -> dict[str, Any]:
    """Convert curves by method, with their AUC, to JSON values for API clients."""
    return {
        method: {
            "fractions": measured.fractions.tolist(),
            "scores": dict(zip(measured.names, measured.scores[0].tolist(), strict=True)),
            # JSON has no NaN.
            "areas": {name: auc if isfinite(auc) else None for name, auc in measured.summary().items()},
        }
        for method, measured in curves.items()
    }
