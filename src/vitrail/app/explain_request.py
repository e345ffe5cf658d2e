"""What a visitor asks, and what the answer is: pure functions of a model and a question."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from PIL import Image
from torch import Tensor

from vitrail.adapters import Classifier
from vitrail.api import default_method, make_explainers
from vitrail.app.components import Parts, list_components
from vitrail.core.errors import InvalidInputError, VitrailError
from vitrail.core.outputs import ranking
from vitrail.core.types import Images
from vitrail.explainers import EXPLAINERS, make_explainer
from vitrail.explanation import Explanation
from vitrail.runs.explain_images import explain_images
from vitrail.viz.sheet import SheetRow

TOP = 5
LARGEST_SIDE = 1024
"""Pixels: as large as a photo is kept for its pictures."""

PREDICTED = "what the model sees"
"""In place of a target: the most probable class."""


@dataclass(frozen=True)
class ExplainRequest:
    """One question: why is this photo of that class?

    Attributes:
        photo: Upright, at its own size.
        methods: Names, each once.
        target: Name or number of a class; None for the predicted one.
        title: What the photo is called.
    """

    photo: Image.Image
    methods: tuple[str, ...]
    target: str | None = None
    title: str = "photo"


@dataclass(frozen=True, eq=False)
class ExplainResult:
    """The answer to one question.

    Attributes:
        row: A smaller copy of the photo, what the model saw of it, and an explanation a method.
        image: What the model ate, one image, on the CPU.
        parts: By method what its map is made of, where it has parts.
        classes: Every class, by the word that `ExplainRequest.target` takes for it, and its probability; the most probable first.
        offered: The name under which the model is on offer, where it is.
    """

    row: SheetRow
    image: Images
    parts: Mapping[str, Parts] = field(default_factory=dict)
    classes: Sequence[tuple[str, float]] = ()
    offered: str = ""

    @property
    def explanations(self) -> Mapping[str, Explanation]:
        """By method."""
        return {one.method: one for one in self.row.explanations}

    @property
    def target(self) -> str:
        """The name of the explained class."""
        one = self.row.explanations[0]
        return one.class_name(int(one.targets[0]))

    @property
    def probability(self) -> float:
        """Of the explained class."""
        one = self.row.explanations[0]
        return float(one.probabilities[0, int(one.targets[0])])

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.row.explanations[0].model


def answer(classifier: Classifier, asked: ExplainRequest) -> ExplainResult:
    """Explain one photo by some methods.

    The same question has the same answer, whoever asked before.

    Raises:
        VitrailError: No method or one twice, one that cannot explain the model, or a class that there is not.
    """
    if not asked.methods or len(set(asked.methods)) < len(asked.methods):
        raise InvalidInputError(
            f"expected at least one method, each once, got {', '.join(asked.methods) or 'none'}; choose from the list"
        )
    explainers = make_explainers(classifier, asked.methods)
    image = classifier.preprocessing(asked.photo)
    target = None if asked.target is None else classifier.class_index(asked.target)
    found, parts = list[Explanation](), dict[str, Parts]()
    for explainer in explainers:
        [one] = explain_images(explainer, [image], [asked.title], target)
        images = image[None].to(classifier.device, classifier.dtype)
        part = list_components(explainer, images, one)
        if part is not None:
            parts[explainer.name] = part
        found.append(on_cpu(one))
    box = classifier.preprocessing.visible_box(asked.photo.height, asked.photo.width)
    row = SheetRow(asked.photo, box, found, asked.title).reduced(LARGEST_SIDE)
    return ExplainResult(row, image[None].cpu(), parts, _ranked(found[0]))


def methods_for(classifier: Classifier) -> list[str]:
    """Methods that can explain a model as it is: its own first, the control last; gates only where they were trained for it."""
    first = default_method(classifier)
    able = [name for name in EXPLAINERS if _usable(name, classifier)]
    return sorted(able, key=lambda name: (name != first, name == "random", name))


def class_words(classifier: Classifier) -> list[str]:
    """A word for every class that `ExplainRequest.target` takes: its name, or its number where it has none or shares it."""
    names = [classifier.class_name(index) for index in range(classifier.num_classes)]
    return _words(names, bool(classifier.class_names))


def summarize(method: str) -> str:
    """What a method does, in a sentence."""
    return (EXPLAINERS[method].__doc__ or "").strip().splitlines()[0].replace("`", "").removeprefix("Abstract: ")


def on_cpu(explanation: Explanation) -> Explanation:
    """The same, held by no accelerator."""
    tensors = {name: value.cpu() for name, value in vars(explanation).items() if isinstance(value, Tensor)}
    return replace(explanation, **tensors)  # type: ignore[arg-type]


def _usable(name: str, classifier: Classifier) -> bool:
    if EXPLAINERS[name].refusal(classifier):
        return False
    if not EXPLAINERS[name].needs_training:
        return True
    try:
        make_explainer(name, classifier)
    except VitrailError:
        return False
    return True


def _ranked(explanation: Explanation) -> list[tuple[str, float]]:
    probabilities = explanation.probabilities[0]
    names = [explanation.class_name(index) for index in range(len(probabilities))]
    words = _words(names, bool(explanation.class_names))
    order = torch.argsort(ranking(explanation.logits[0], explanation.output), descending=True, stable=True).tolist()
    return [(words[index], float(probabilities[index])) for index in order]


def _words(names: Sequence[str], named: bool) -> list[str]:
    counts = Counter(names)
    # A name that is a number would be read as an index.
    plain = (named and counts[name] == 1 and not name.removeprefix("-").isdecimal() for name in names)
    return [name if is_plain else str(index) for index, (name, is_plain) in enumerate(zip(names, plain, strict=True))]
