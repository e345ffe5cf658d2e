"""Plain words for people who do not program: what methods do, what terms mean, and how sure the model is."""

from collections.abc import Sequence
from typing import NamedTuple

from vitrail.app.explain_request import ExplainResult, class_title, summarize
from vitrail.app.number_format import format_output
from vitrail.core.outputs import Output, has_probabilities

SURE = 0.5
"""Probability below which the model is said not to be sure."""

MAX_CLASSES = 12
"""Classes of a model that are named one by one."""


class MethodWords(NamedTuple):
    """A method in plain words.

    Attributes:
        label: What it shows, in a few words.
        sentence: What it does.
    """

    label: str
    sentence: str


METHODS = {
    "attcat": MethodWords(
        "Where it looks, and to what effect", "How far looking at a patch raises or lowers the score of the class."
    ),
    "attention": MethodWords(
        "Where the model looks last", "Patches that the last step of the model looks at, whatever the class."
    ),
    "chefer": MethodWords(
        "Looks that help the class", "Patches that the model looks at, as far as that raises the score of the class."
    ),
    "diffmask": MethodWords(
        "What must stay visible", "Patches that a trained helper does not dare to cover, since the answer could change."
    ),
    "grad-cam": MethodWords(
        "Regions that raise the score", "Regions whose features raise the score of the class late in the model."
    ),
    "hit": MethodWords(
        "What each patch adds",
        "How much each patch adds to the score of the class. All patches and a constant add up to it exactly.",
    ),
    "hit-rollout": MethodWords(
        "Where the model looks, all steps", "Patches that the model looks at, added up over its steps, whatever the class."
    ),
    "input-x-gradient": MethodWords("What small changes do", "How the score of the class reacts to small changes of a patch."),
    "integrated-gradients": MethodWords(
        "From blank to photo", "How each patch moves the score of the class while the photo is faded in from a blank one."
    ),
    "intr": MethodWords("What the class looks for", "Patches in which the model looks for signs of this class."),
    "legrad": MethodWords(
        "Looks that help, at every step",
        "Patches whose attention would raise the score of the class, averaged over the steps of the model.",
    ),
    "mutex": MethodWords(
        "Cover groups of patches", "How probable the class stays when a patch is among the few that are visible."
    ),
    "occlusion": MethodWords(
        "Cover one place at a time", "How far the score of the class drops when a small window of the photo is covered."
    ),
    "random": MethodWords("Pure chance, to compare", "Random numbers. A method that is of use does better than this one."),
    "rise": MethodWords(
        "Cover places at random", "How probable the class is while a patch is visible and random others are covered."
    ),
    "rollout": MethodWords(
        "Where the model looks, step by step",
        "Patches that the model looks at, followed through all its steps, whatever the class.",
    ),
    "shapley": MethodWords(
        "Fair share of each patch",
        "What a patch adds to the score of the class when it joins others, on average over all orders.",
    ),
}
"""Plain words by method."""

TERMS = {
    "logit": "The score that the model computes for a class. The class with the highest score is its answer.",
    "patch": "The model cuts the photo into squares, the patches, and weighs each of them.",
    "relevance": "How much a patch counts for the class, by this method.",
    "probability": "How the model spreads 100 % over the classes that it knows. It is no promise to be right that often.",
    "insertion": "Start from an empty photo and put back the patches that count most, one by one.",
    "deletion": "Start from the photo and take away the patches that count most, one by one.",
    "AUC": "Area under the curve: the mean height of a curve.",
    "zero": "Removed patches become plain gray, the average color of the training photos.",
    "blur": "Removed patches become blurred.",
}
"""What technical terms mean, for tooltips."""


def describe_method(method: str) -> MethodWords:
    """Return a method in plain words; by its name and documentation if it has none."""
    return METHODS.get(method) or MethodWords(method, summarize(method))


def describe_term(method: str) -> str:
    """Return the technical name of a method with its definition, for tooltips."""
    return f"{method}: {summarize(method)}"


def list_method_choices(methods: Sequence[str]) -> list[tuple[str, str]]:
    """Return the labels of methods with their names, as lists of choices take them."""
    return [(describe_method(method).label, method) for method in methods]


def describe_model(classes: Sequence[str], output: Output) -> str:
    """Say what a model can answer.

    Args:
        classes: A text per class.
        output: What its outputs mean.
    """
    if not has_probabilities(output):
        return "This model gives numbers, not names of things."
    listed = ", ".join(classes[:MAX_CLASSES]) + (
        f" and {len(classes) - MAX_CLASSES:,} more" if len(classes) > MAX_CLASSES else ""
    )
    always = " and names one of them for every photo, whatever it shows" if output == "softmax" and len(classes) > 1 else ""
    noun = "class" if len(classes) == 1 else "classes"
    return f"It knows {len(classes):,} {noun}{always}: {listed}."


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
        sure = (
            f"The model is not sure: its best guess, {answer}, gets only {answer_share}. Take the picture as a hint, no more."
        )
    else:
        sure = f"The model answers {answer} and is {answer_share} sure, which is no promise to be right."
    return sure if side.is_answer else f"{sure} You asked about {side.target}, which gets {share}."


def is_unsure(side: ExplainResult) -> bool:
    """Return whether the most probable class of exclusive ones gets less than `SURE`."""
    return side.output == "softmax" and side.classes[0][1] < SURE


def describe_colors(signed: bool, palette: str, target: str) -> str:
    """Say what the colors of a heatmap mean.

    Args:
        signed: Whether patches can count against the class.
        palette: Of the heatmap: "color" or "gray".
        target: The explained class.
    """
    if not signed:
        return "The brighter a patch, the more it counts."
    first, second = ("Red", "blue") if palette == "color" else ("White", "black")
    return f"{first} patches speak for {target}, {second} ones against it."
