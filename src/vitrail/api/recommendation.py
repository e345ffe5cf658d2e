"""Recommend a method for a model, by scoring a sample of images."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from vitrail.adapters import Classifier
from vitrail.api.models import Model, as_classifier, as_list, make_capable_explainers, make_explainers
from vitrail.api.scores import ScoreOptions, make_run, score
from vitrail.core.errors import InvalidInputError
from vitrail.evaluation import Scores
from vitrail.evaluation.scoring.cost import count_passes_of_first
from vitrail.evaluation.scoring.verdict import Verdict, reach_verdict
from vitrail.explainers import EXPLAINERS, usable_methods
from vitrail.metrics import Protocol
from vitrail.metrics.base import check_outputs
from vitrail.metrics.statistics import CONTROL

SLOW = ("rise", "shapley")
"""Methods that are tried only if they are named: each explanation takes up to thousands of passes."""

LEFT_OUT = "usually the slowest; name it to try it"
INCAPABLE = "cannot explain the model"

DEFAULT_LIMIT = 100


@dataclass(frozen=True, eq=False, repr=False)
class Recommendation:
    """The recommended method, and the scores behind it.

    Attributes:
        verdict: Which method, and why.
        scores: The scores of all tried methods.
        not_tried: Methods that were not tried although their cost is within the budget, with the reason.
        over_budget: Methods that were not tried, since they cost more than the budget, with their forward passes.
    """

    verdict: Verdict
    scores: Scores
    not_tried: Mapping[str, str]
    over_budget: Mapping[str, float]

    @property
    def method(self) -> str | None:
        """The method to use; None if no method is shown to be better than random."""
        return self.verdict.method

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why, how sure, at what cost, what was not shown, and what was not tried."""
        by_reason = dict[str, list[str]]()
        for name, reason in self.not_tried.items():
            by_reason.setdefault(reason, []).append(name)
        costs = ", ".join(f"{name} ({passes:.1f} passes)" for name, passes in self.over_budget.items())
        return (
            *self.verdict.sentences,
            *(f"Not tried ({reason}): {', '.join(names)}." for reason, names in by_reason.items()),
            *([f"Not tried, since they cost more than the budget: {costs}."] if costs else []),
            *(
                ["These images chose the method, so its scores on them are too good: report those on other images."]
                if self.method
                else []
            ),
        )

    def __repr__(self) -> str:
        return "\n".join(self.reasons)


def recommend(
    model: Model,
    data: str | Path,
    methods: str | Iterable[str] | None = None,
    budget: float | None = None,
    protocol: str | Protocol | Iterable[str] | None = None,
    metrics: str | Iterable[str] = (),
    **more: Unpack[ScoreOptions],
) -> Recommendation:
    """Score methods on a sample of images and recommend one.

    Arguments that are not listed are those of `vitrail.score`, but `limit` is 100 images if it is not given.

    Args:
        data: Images that the model was not trained on.
        methods: Names of the methods to try; those that cannot explain the model are skipped with a warning. If None, all that can
            explain it without further training, except the slow `rise` and `shapley`.
        budget: Largest number of forward passes that an explanation may cost; None for any. Methods that cost more are not scored.

    Raises:
        InvalidInputError: The budget is not a positive number, or less than every method costs.
        UnsupportedModelError: None of the named methods can explain the model.
        VitrailError: As for `vitrail.score`.
    """
    if budget is not None and not budget > 0:
        raise InvalidInputError(f"expected a budget above 0 forward passes, got {budget}")
    classifier = as_classifier(model, more.get("device"))
    check_outputs(classifier)
    tried, not_tried = _choose_methods(classifier, methods, more)
    more.setdefault("limit", DEFAULT_LIMIT)
    costs = {} if budget is None else _count_passes(classifier, data, tried, protocol, metrics, more)
    # Rounded as in the report: chefer, which costs 2.02 passes of a small network, is within a budget of 2.
    over_budget = {name: passes for name, passes in costs.items() if budget is not None and round(passes, 1) > budget}
    if over_budget and len(over_budget) == len(tried):
        cheapest = min(over_budget, key=over_budget.__getitem__)
        raise InvalidInputError(
            f"expected a budget of at least {over_budget[cheapest]:.1f} forward passes, the cost of {cheapest}, the cheapest method, "
            f"got {budget:g}"
        )
    affordable = [name for name in tried if name not in over_budget]
    more["method_options"] = {
        name: given
        for name, given in (more.get("method_options") or {}).items()
        if name not in over_budget and not_tried.get(name) != INCAPABLE
    }
    scores = score(classifier, data, [*affordable, CONTROL], protocol, metrics, **more)
    return Recommendation(reach_verdict(scores), scores, not_tried, over_budget)


def _choose_methods(
    classifier: Classifier, methods: str | Iterable[str] | None, more: ScoreOptions
) -> tuple[list[str], dict[str, str]]:
    """Return the methods to try, without the control, and those that are not tried, with the reason."""
    if methods is None:
        usable = [name for name in usable_methods(classifier) if not EXPLAINERS[name].is_control]
        return [name for name in usable if name not in SLOW], {name: LEFT_OUT for name in usable if name in SLOW}
    named = [name for name in as_list(methods) if name != CONTROL]
    if not named:
        return [], {}
    options = {name: given for name, given in (more.get("method_options") or {}).items() if name in named}
    capable = make_capable_explainers(classifier, named, options, more.get("precision", "full"))
    tried = [explainer.name for explainer in capable]
    return tried, {name: INCAPABLE for name in named if name not in tried}


def _count_passes(
    classifier: Classifier,
    data: str | Path,
    methods: Sequence[str],
    protocol: str | Protocol | Iterable[str] | None,
    metrics: str | Iterable[str],
    more: ScoreOptions,
) -> dict[str, float]:
    """Count what every method costs on the first image, before any is scored."""
    images = make_run(data, protocol, metrics, more).read_images(classifier)
    # Options may be those of the control, or of a method that cannot explain the model.
    options = {name: given for name, given in (more.get("method_options") or {}).items() if name in methods}
    explainers = make_explainers(classifier, methods, options, more.get("precision", "full"))
    return dict(zip(methods, count_passes_of_first(classifier, images, explainers), strict=True))
