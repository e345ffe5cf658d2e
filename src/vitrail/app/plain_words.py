"""Plain words for people who do not program: what methods do, what terms mean, and how sure the model is."""

from collections.abc import Sequence
from math import gcd
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from vitrail.app.explain_request import ExplainResult, class_title, summarize
from vitrail.app.number_format import format_output
from vitrail.core.outputs import Output, has_probabilities
from vitrail.metrics.statistics import CONTROL

SURE = 0.5
"""Probability below which the model is said not to be sure."""

ENLARGED = 4.0
"""How many times a photo may be enlarged for the model before that is said."""

SQUEEZED = 1.6
"""How far the proportions of a photo may change before that is said."""

MAX_CLASSES, MAX_LETTERS = 12, 160
"""Classes of a model that are named one by one, and letters of their names, at most."""


class MethodWords(NamedTuple):
    """A method in plain words.

    Attributes:
        label: What it shows, in a few words.
        sentence: What it does.
        of_class: Whether the numbers depend on the class.
    """

    label: str
    sentence: str
    of_class: bool = True


METHODS = {
    "attcat": MethodWords(
        "Where it looks, and what that does", "How much looking at a patch raises or lowers the score of the class."
    ),
    "attention": MethodWords(
        "Where the model looks last", "The patches that the model looks at in its last step; the same for every class.", False
    ),
    "chefer": MethodWords(
        "Where looking helps the class", "The patches that the model looks at, where looking raises the score of the class."
    ),
    "diffmask": MethodWords(
        "What must stay visible",
        "The patches that a trained helper leaves visible, since covering them could change the answer.",
    ),
    "grad-cam": MethodWords(
        "Regions that raise the score", "Regions whose features, late in the model, raise the score of the class."
    ),
    "hit": MethodWords(
        "What each patch adds",
        "How much each patch adds to the score of the class. All patches and a constant add up to that score exactly.",
    ),
    "hit-rollout": MethodWords(
        "Where the model looks, in total",
        "The patches that the model looks at, added up over all its steps; the same for every class.",
        False,
    ),
    "input-x-gradient": MethodWords("What small changes do", "How the score of the class reacts to small changes in a patch."),
    "integrated-gradients": MethodWords(
        "From blank to photo", "How much each patch changes the score of the class while the photo fades in from a blank one."
    ),
    "intr": MethodWords("Where it looks for the class", "The patches in which the model looks for signs of this class."),
    "legrad": MethodWords(
        "Where looking helps, at every step",
        "The patches where more attention would raise the score of the class, averaged over all steps of the model.",
    ),
    "mutex": MethodWords(
        "Cover groups of patches", "How probable the class is while a patch is visible and whole groups of others are covered."
    ),
    "occlusion": MethodWords(
        "Cover one spot at a time", "How much the score of the class drops when a small part of the photo is covered."
    ),
    "random": MethodWords("Pure chance, for comparison", "Random numbers. A useful method does better than this one.", False),
    "rise": MethodWords(
        "Cover random spots", "How probable the class is while a patch is visible and random other patches are covered."
    ),
    "rollout": MethodWords(
        "Where the model looks, step by step",
        "The patches that the model looks at, followed through all its steps; the same for every class.",
        False,
    ),
    "shapley": MethodWords(
        "Fair share of each patch",
        "How much a patch adds to the score of the class when it joins other patches, averaged over all possible orders.",
    ),
}
"""Plain words by method."""

TERMS = {
    "logit": "The score that the model computes for a class. The class with the highest score is the model's answer.",
    "patch": "The model cuts the photo into small tiles, called patches, and weighs each of them.",
    "relevance": "How much a patch counts for the class, according to this method.",
    "probability": "How sure the model is of a class, from 0 to 100%. It does not mean that the model is right that often.",
    "insertion": "Start with an empty photo and put the patches back one by one, the most important ones first.",
    "deletion": "Start with the whole photo and take the patches away one by one, the most important ones first.",
    "AUC": "Area under the curve: the average height of the curve.",
    "zero": "Removed patches become plain gray, the average color of the training photos.",
    "blur": "Removed patches are blurred.",
}
"""What technical terms mean, for tooltips."""


def describe_method(method: str) -> MethodWords:
    """Return a method in plain words; by its name and documentation if it has none."""
    return METHODS.get(method) or MethodWords(method, summarize(method))


def describe_term(method: str) -> str:
    """Return what the technical name of a method is for, with its definition, for tooltips."""
    return f"The technical name of this method, for use in reports. In technical words: {summarize(method)}"


def describe_hint(method: str) -> str:
    """Return what a method does, in plain words, and its technical name, for tooltips."""
    return f"{describe_method(method).sentence} Technical name: {method}."


def name_method(method: str) -> str:
    """Return the plain name of a method with its technical one; a method without plain words has the latter only."""
    return f"{METHODS[method].label} ({method})" if method in METHODS else method


def list_method_choices(methods: Sequence[str]) -> list[tuple[str, str]]:
    """Return the labels of methods with their names, as lists of choices take them; the first of several is recommended."""
    labels = [describe_method(method).label for method in methods]
    if len(labels) > 1:
        labels[0] += " (start here)"
    return list(zip(labels, methods, strict=True))


def describe_model(classes: Sequence[str], output: Output) -> str:
    """Say what a model can answer.

    Args:
        classes: A text per class.
        output: What its outputs mean.
    """
    if not has_probabilities(output):
        return "The model gives numbers, not the names of things."
    # Names of ImageNet are long, and have commas of their own.
    separator = "; " if any("," in name for name in classes) else ", "
    num_named = next(
        (i for i in range(1, len(classes)) if i == MAX_CLASSES or sum(map(len, classes[: i + 1])) > MAX_LETTERS), len(classes)
    )
    listed = separator.join(classes[:num_named]) + (
        f"{separator.strip() if separator == '; ' else ''} and {len(classes) - num_named:,} more"
        if num_named < len(classes)
        else ""
    )
    always = " It always names one of them, no matter what the photo shows." if output == "softmax" and len(classes) > 1 else ""
    noun = "class" if len(classes) == 1 else "classes"
    return f"The model knows {len(classes):,} {noun}: {listed}.{always}"


def describe_confidence(side: ExplainResult) -> str:
    """Say how sure the model is of its answer, and whether the explained class is its answer; empty without probabilities."""
    if not has_probabilities(side.output) or not side.classes:
        return ""
    share = format_output(side.probability, side.output)
    if side.output == "sigmoid":
        seen = "sees" if side.probability >= SURE else "does not see"
        return f"The model {seen} {side.target} in this photo ({share})."
    name, best = side.classes[0]
    answer, answer_share = class_title(side, name), format_output(best, side.output)
    if is_unsure(side):
        sure = f"The model is not sure: its best guess, {answer}, gets only {answer_share}. Treat the picture as a hint, nothing more."
    else:
        sure = (
            f"The model answers {answer} and is {answer_share} sure. It can still be wrong, and it always gives one of its "
            f"{len(side.classes):,} answers: if the photo shows none of them, ignore it."
        )
    return sure if side.is_answer else f"{sure} You asked about {side.target}, which gets {share}."


def is_unsure(side: ExplainResult) -> bool:
    """Return whether the most probable class of exclusive ones gets less than `SURE`."""
    return side.output == "softmax" and side.classes[0][1] < SURE


def describe_view(side: ExplainResult, *, cropped: bool) -> str:
    """Say what the model sees of the photo, and how it differs from what people see.

    Args:
        side: The result.
        cropped: Whether the model sees a part only, which is framed.
    """
    seen = "The model sees the framed part only" if cropped else "The model sees the whole photo"
    left, top, right, bottom = side.row.box
    # Of the photo itself: its copy may be too small where the photo is not.
    across, down = side.size or side.row.photo.size
    width, height = (right - left) * across / side.row.photo.width, (bottom - top) * down / side.row.photo.height
    rows, cols = side.image.shape[-2:]
    before, after = f"{round(width)}x{round(height)}", f"{cols}x{rows}"
    if before == after:
        return f"{seen}, at its own size of {after} pixels."
    wider, taller = cols / width, rows / height
    squeezed = max(wider / taller, taller / wider) >= SQUEEZED
    verb = "squeezed" if squeezed else "shrunk" if cols * rows < width * height else "enlarged"
    text = f"{seen}, {verb} from {before} to {after} pixels"
    if max(wider, taller) >= ENLARGED:
        return f"{text}; so few pixels do not tell much."
    return f"{text}; finer details are lost." if min(wider, taller) < 1 else f"{text}."


def describe_blocks(relevance: Float[Tensor, "rows cols"]) -> str:
    """Say how large the blocks of patches with the same number are; empty if patches differ one by one, or all are equal."""
    rows, cols = relevance.shape
    for side in range(gcd(rows, cols), 1, -1):
        if gcd(rows, cols) % side == 0 and side < max(rows, cols):
            blocks = relevance.unflatten(0, (-1, side)).unflatten(2, (-1, side))
            if bool((blocks == blocks[:, :1, :, :1]).all()) and bool((relevance != relevance[0, 0]).any()):
                return f"It tells blocks of {side} by {side} patches apart, not single patches."
    return ""


def describe_colors(method: str, signed: bool, palette: str, *targets: str) -> str:
    """Say what the colors of heatmaps mean.

    Args:
        method: Name of the method.
        signed: Whether patches can count against the class.
        palette: Of the heatmaps: "color" or "gray".
        targets: The explained class of every heatmap.
    """
    if not signed:
        place = "The closer a patch is to yellow" if palette == "color" else "The brighter a patch"
        return f"{place}, {'the higher its random number' if method == CONTROL else 'the more it counts'}."
    first, second = ("Orange", "blue") if palette == "color" else ("White", "black")
    explained = targets[0] if len(set(targets)) == 1 else "the class below the picture"
    return f"{first} patches count in favor of {explained}, {second} patches count against it."
