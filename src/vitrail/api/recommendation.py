"""Recommend a method for a model, by scoring a sample of images."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from vitrail.api.models import Model, as_classifier, as_list
from vitrail.api.scores import ScoreOptions, score
from vitrail.core.errors import InvalidInputError
from vitrail.evaluation import Scores
from vitrail.evaluation.scoring.verdict import Verdict, reach_verdict
from vitrail.explainers import EXPLAINERS, usable_methods
from vitrail.metrics import Protocol
from vitrail.metrics.statistics import CONTROL

SLOW = ("rise", "shapley")
"""Methods of hundreds of passes, which are tried only if they are named."""

DEFAULT_LIMIT = 100


@dataclass(frozen=True, eq=False)
class Recommendation:
    """The recommended method, and the scores behind it.

    Attributes:
        verdict: Which method, and why.
        scores: The scores of all tried methods.
        not_tried: Methods that could explain the model but were not tried, since they are slow.
    """

    verdict: Verdict
    scores: Scores
    not_tried: tuple[str, ...]

    @property
    def method(self) -> str | None:
        """The method to use; None if no method is shown to be better than random."""
        return self.verdict.method

    def __str__(self) -> str:
        slow = f" Not tried, since they take hundreds of passes: {', '.join(self.not_tried)}." if self.not_tried else ""
        return f"{self.verdict}{slow}"


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
        methods: Names of the methods to try; if None, all that can explain the model without further training, except slow ones.
        budget: Largest number of forward passes that an explanation may cost; None for any.

    Raises:
        InvalidInputError: The budget is not a positive number.
        VitrailError: As for `vitrail.score`.
    """
    if budget is not None and not budget > 0:
        raise InvalidInputError(f"expected a budget above 0 forward passes, got {budget}")
    classifier = as_classifier(model, more.get("device"))
    usable = [name for name in usable_methods(classifier) if not EXPLAINERS[name].is_control] if methods is None else []
    slow = tuple(name for name in usable if name in SLOW)
    tried = (
        [name for name in usable if name not in SLOW]
        if methods is None
        else [name for name in as_list(methods) if name != CONTROL]
    )
    more.setdefault("limit", DEFAULT_LIMIT)
    scores = score(classifier, data, [*tried, CONTROL], protocol, metrics, **more)
    return Recommendation(reach_verdict(scores, budget), scores, slow)
