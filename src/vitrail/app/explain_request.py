"""Requests of the page and their results, as pure functions of a model and a request."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image

from vitrail.adapters import Classifier
from vitrail.api import default_method, make_explainers
from vitrail.app.explanation_parts import ExplanationParts, split_explanation
from vitrail.core.errors import InvalidInputError
from vitrail.core.outputs import Output, decisions, ranking
from vitrail.core.progress import portion
from vitrail.core.types import Images
from vitrail.datasets.windowing import read_note
from vitrail.evaluation.scoring.ceiling import CEILING
from vitrail.explainers import EXPLAINERS, usable_methods
from vitrail.explanation import Explanation
from vitrail.metrics.statistics import CONTROL
from vitrail.runs.explain_images import explain_images
from vitrail.viz.sheet import SheetRow

TOP = 5
"""Number of most probable classes that are shown."""

MAX_SIDE = 1024
"""Pixels of the copy of a photo that is kept for its pictures."""

PREDICTED = "the model's answer"
"""Choice of the most probable class, in place of a target."""


@dataclass(frozen=True)
class ExplainRequest:
    """A photo to explain, for one class, by some methods.

    Attributes:
        photo: Upright, at its own size.
        methods: Names of methods, each once.
        target: Name or number of a class; None for the predicted class.
        title: Title of the photo.
    """

    photo: Image.Image
    methods: tuple[str, ...]
    target: str | None = None
    title: str = "photo"


@dataclass(frozen=True, eq=False)
class ExplainResult:
    """The result of one request.

    Attributes:
        row: A smaller copy of the photo, the part that the model sees, and one explanation per method.
        image: The input of the model, a batch of one, on the CPU.
        parts: Parts of the explanation, by method; only of methods that have parts.
        classes: Every class, as `ExplainRequest.target` takes it, with its probability; the most probable first.
        offered: Display name of the model, if the service offers it.
        note: How the samples of the photo were windowed; empty if they were not.
        size: Width and height of the photo itself in pixels; None for those of the copy.
    """

    row: SheetRow
    image: Images
    parts: Mapping[str, ExplanationParts] = field(default_factory=dict)
    classes: Sequence[tuple[str, float]] = ()
    offered: str = ""
    note: str = ""
    size: tuple[int, int] | None = None

    @property
    def explanations(self) -> Mapping[str, Explanation]:
        """Explanations by method."""
        return {explanation.method: explanation for explanation in self.row.explanations}

    @property
    def target(self) -> str:
        """Name of the explained class."""
        return self.row.explanations[0].target_name()

    @property
    def is_answer(self) -> bool:
        """Whether the explained class is the one that the model predicts."""
        explanation = self.row.explanations[0]
        return int(explanation.targets[0]) == int(decisions(explanation.logits)[0])

    @property
    def output(self) -> Output:
        """What the model's outputs mean."""
        return self.row.explanations[0].output

    @property
    def probability(self) -> float:
        """Probability of the explained class; its value, for outputs without probabilities."""
        explanation = self.row.explanations[0]
        return float(explanation.probabilities[0, int(explanation.targets[0])])

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.row.explanations[0].model


def answer_request(classifier: Classifier, request: ExplainRequest) -> ExplainResult:
    """Explain one photo by some methods; equal requests have equal results.

    Raises:
        VitrailError: No method, a method twice, a method that cannot explain the model, or an unknown class.
    """
    if not request.methods or len(set(request.methods)) < len(request.methods):
        raise InvalidInputError(
            f"expected at least one method, each once, got {', '.join(request.methods) or 'none'}; choose from the list"
        )
    explainers = make_explainers(classifier, request.methods)
    image = classifier.preprocessing(request.photo)
    target = None if request.target is None else classifier.class_index(request.target)
    explanations, parts = list[Explanation](), dict[str, ExplanationParts]()
    images = image[None].to(classifier.device, classifier.dtype)
    for i, explainer in enumerate(explainers):
        with portion(i, len(explainers)):
            [explanation] = explain_images(explainer, [image], [request.title], target)
            parts_of_explanation = split_explanation(explainer, images, explanation)
        if parts_of_explanation is not None:
            parts[explainer.name] = parts_of_explanation
        explanations.append(explanation.to("cpu"))
    box = classifier.preprocessing.visible_box(request.photo.height, request.photo.width)
    row = SheetRow(request.photo, box, explanations, request.title).reduced(MAX_SIDE)
    classes = _rank_classes(explanations[0])
    return ExplainResult(row, image[None].cpu(), parts, classes, note=read_note(request.photo), size=request.photo.size)


def explain_by_chance(classifier: Classifier, side: ExplainResult) -> Explanation:
    """Return the random explanation of the photo and class of a result, to compare with."""
    [explainer] = make_explainers(classifier, [CONTROL])
    target = int(side.row.explanations[0].targets[0])
    return explain_images(explainer, [side.image[0]], [side.row.title], target)[0].to("cpu")


def list_usable_methods(classifier: Classifier) -> list[str]:
    """List the methods that can explain a model as it is: its default method first, the control last; no searched ceiling."""
    first = default_method(classifier)
    usable = [name for name in usable_methods(classifier) if name != CEILING]
    return sorted(usable, key=lambda name: (name != first, name == CONTROL, name))


def carry_methods(chosen: Sequence[str], old_default: str, usable: Sequence[str]) -> list[str]:
    """Return the methods to choose after a change of the model: the chosen ones that it supports, or its default if users chose none.

    Args:
        chosen: Methods that are chosen.
        old_default: Default method of the model before.
        usable: Methods that can explain the new model, its default first.
    """
    kept = [] if list(chosen) == [old_default] else [method for method in usable if method in chosen]
    return kept or list(usable[:1])


def list_class_choices(classifier: Classifier) -> list[str]:
    """Return a text per class that `ExplainRequest.target` takes: its name, or its number if it has no unique name."""
    if classifier.output == "embedding":
        return []
    names = [classifier.class_name(index) for index in range(classifier.num_classes)]
    return _unique_choices(names, bool(classifier.class_names))


def class_title(side: ExplainResult, choice: str) -> str:
    """Return what a class of `ExplainResult.classes` is called."""
    return f"{side.row.explanations[0].class_name(int(choice))} (number {choice})" if choice.isdecimal() else choice


def summarize(method: str) -> str:
    """Return the first sentence of the documentation of a method."""
    return (EXPLAINERS[method].__doc__ or "").strip().splitlines()[0].replace("`", "").removeprefix("Abstract: ")


def _rank_classes(explanation: Explanation) -> list[tuple[str, float]]:
    if explanation.output == "embedding":
        return []
    probabilities = explanation.probabilities[0]
    names = [explanation.class_name(index) for index in range(len(probabilities))]
    choices = _unique_choices(names, bool(explanation.class_names))
    order = torch.argsort(ranking(explanation.logits[0], explanation.output), descending=True, stable=True).tolist()
    return [(choices[index], float(probabilities[index])) for index in order]


def _unique_choices(names: Sequence[str], named: bool) -> list[str]:
    counts = Counter(names)
    # A name that is a number would be read as an index.
    usable = (named and counts[name] == 1 and not name.removeprefix("-").isdecimal() for name in names)
    return [name if is_usable else str(index) for index, (name, is_usable) in enumerate(zip(names, usable, strict=True))]
