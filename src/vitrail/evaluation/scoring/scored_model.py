"""A scored model, and what a report says about a run of one or several."""

from collections.abc import Sequence
from typing import NamedTuple

from vitrail.evaluation.scoring.citation import Setup, list_changed_options
from vitrail.evaluation.scoring.scores import Scores
from vitrail.evaluation.scoring.selection import LABEL, Selection
from vitrail.explainers import Explainer


class ScoredModel(NamedTuple):
    """What a report says of a model.

    Attributes:
        scores: The numbers.
        captions: Captions of its contact sheets, by file name.
        is_limited: Whether the limit left out images.
        description: The input and the weights in words.
    """

    scores: Scores
    captions: dict[str, str]
    is_limited: bool
    description: str


def describe_setup(scored: Sequence[ScoredModel], explainers: Sequence[Explainer], selection: Selection, source: str) -> Setup:
    """Describe a run for the paragraph of its report.

    Args:
        scored: The models.
        explainers: The methods of all models.
        selection: Which images were scored.
        source: Where the images come from, in words.
    """
    target = selection.explained
    words = "the predictions" if target is None else "the labels' classes" if target == LABEL else f"the class {target}"
    images = selection.describe_in_words(source, any(model.is_limited for model in scored))
    models = {model.scores.model: model.description for model in scored}
    return Setup(images, words, list_changed_options(explainers), models)
