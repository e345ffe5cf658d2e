"""Plain words: every method has them, the model's confidence is said, shares never vanish, and chance is compared with."""

from dataclasses import replace

import pytest
import torch
from app_requests import explain_bird, load_model, make_curves

from vitrail.app.chance import compare_with_chance
from vitrail.app.explain_request import list_usable_methods
from vitrail.app.number_format import format_output, format_percent, format_relevance, format_signed
from vitrail.app.plain_words import (
    METHODS,
    describe_blocks,
    describe_colors,
    describe_confidence,
    describe_hint,
    describe_model,
    is_unsure,
    list_method_choices,
)
from vitrail.evaluation.scoring.ceiling import CEILING
from vitrail.explainers import EXPLAINERS


def with_logits(side, logits, target=None):
    explanation = side.row.explanations[0]
    targets = explanation.targets if target is None else torch.tensor([target])
    changed = replace(explanation, logits=logits, targets=targets)
    names = explanation.class_names
    probabilities = logits[0].softmax(-1)
    classes = [(names[i], float(probabilities[i])) for i in probabilities.argsort(descending=True)]
    return replace(side, row=replace(side.row, explanations=[changed]), classes=classes)


def test_every_method_has_words_of_its_own():
    assert set(METHODS) == set(EXPLAINERS) - {CEILING}
    assert len({words.label for words in METHODS.values()}) == len(METHODS)
    # Labels fit into the column, and use none of the terms.
    for words in METHODS.values():
        assert len(words.label) <= 36
        assert not any(term in words.label.lower() for term in ("gradient", "logit", "attention", "token", "shapley"))
        assert words.sentence.endswith(".")
    assert list_method_choices(list_usable_methods(load_model("hit-birds")))[0] == (
        f"{METHODS['hit'].label} (start here)",
        "hit",
    )


def test_one_method_is_recommended_and_hints_tell_the_others_apart():
    choices = list_method_choices(["hit", "rollout", "hit-rollout", "attention"])
    assert [method for label, method in choices if "(start here)" in label] == ["hit"]
    assert list_method_choices(["occlusion"]) == [(METHODS["occlusion"].label, "occlusion")]
    hints = [describe_hint(method) for method in METHODS]
    assert len(set(hints)) == len(METHODS)
    assert describe_hint("rollout").startswith(METHODS["rollout"].sentence)
    assert describe_hint("rollout").endswith("Technical name: rollout.")
    # The first sentences of docstrings are for engineers.
    assert not any(word in hint for hint in hints for word in ("head", "logit", "token", "linear", "block"))


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.183, "18.3%"), (-0.183, "−18.3%"), (0.0, "0.0%"), (1.0, "100.0%"), (1.054, "105.4%"),
        (0.0004, "< 0.1%"), (-1e-9, "> −0.1%"),
        (0.0005, "0.1%"), (0.99951, "> 99.9%"), (0.9994, "99.9%"),
    ],
)  # fmt: skip
def test_shares_do_not_vanish(share, text):
    assert format_percent(share) == text


@pytest.mark.parametrize("share", [1.0, 0.99999, 0.99951])
def test_no_model_is_completely_sure(share):
    assert format_output(share, "softmax") == "more than 99.9%"
    assert format_output(1 - share, "sigmoid") == "less than 0.1%"
    assert format_output(0.5, "softmax") == "50.0%"
    assert format_output(share, "none") != format_output(share, "softmax")


def test_numbers_have_sign_and_share():
    assert format_signed(0.173, -0.9454) == "+0.173 (−18.3%)"
    assert format_signed(-2.0) == "−2.00"
    assert format_signed(1.0, 0.0) == "+1.00"
    assert format_signed(1.0, 1e-6) == "+1.00"  # A million per cent means nothing.
    # As many figures everywhere.
    assert [format_relevance(value) for value in (0.0170, 0.01749, -123.4, 0.0, 2e-9)] == [
        "0.0170",
        "0.0175",
        "−123",
        "0",
        "2.00e−09",
    ]


def test_doubt_is_a_warning():
    side = explain_bird("hit-birds", "hit")
    assert describe_confidence(side).startswith(f"The model answers {side.target} and is 9")
    assert not is_unsure(side)
    doubtful = with_logits(side, torch.linspace(0, 1, 9)[None], target=8)
    assert is_unsure(doubtful)
    assert describe_confidence(doubtful).startswith("The model is not sure: its best guess, spot-breasted finch, gets only ")
    assert "You asked" not in describe_confidence(doubtful)
    asked = with_logits(side, torch.linspace(0, 1, 9)[None], target=0)
    assert "You asked about bar-winged finch, which gets " in describe_confidence(asked)


def test_independent_classes_and_plain_numbers():
    side = explain_bird("hit-birds", "hit")
    one = side.row.explanations[0]
    sigmoid = replace(
        side, row=replace(side.row, explanations=[replace(one, output="sigmoid", logits=torch.full((1, 9), -3.0))])
    )
    assert describe_confidence(sigmoid).startswith(f"The model does not see {side.target} in this photo (4.7")
    numbers = replace(side, row=replace(side.row, explanations=[replace(one, output="none")]))
    assert describe_confidence(numbers) == ""


def test_what_a_model_knows():
    assert describe_model(["cat", "dog"], "softmax") == (
        "The model knows 2 classes: cat, dog. It always names one of them, no matter what the photo shows."
    )
    assert "10, 11 and 988 more." in describe_model([str(number) for number in range(1000)], "softmax")
    long = describe_model([f"shark {i}, {'x' * 60}" for i in range(1000)], "softmax")
    assert "shark 1, " in long
    assert "; and 998 more." in long
    assert describe_model(["tumor"], "sigmoid") == "The model knows 1 class: tumor."
    assert "numbers" in describe_model([], "embedding")


def test_colors_in_words():
    assert (
        describe_colors("hit", True, "color", "cat") == "Orange patches count in favor of cat, blue patches count against it."
    )
    assert describe_colors("hit", True, "gray", "cat") == "White patches count in favor of cat, black patches count against it."
    assert "in favor of the class below the picture," in describe_colors("hit", True, "color", "cat", "dog")
    assert describe_colors("hit", True, "color", "cat", "cat") == describe_colors("hit", True, "color", "cat")
    assert "yellow" in describe_colors("rollout", False, "color", "cat")
    assert "brighter" in describe_colors("rollout", False, "gray", "cat")
    # Nothing counts for random numbers.
    assert describe_colors("random", False, "color", "cat") == "The closer a patch is to yellow, the higher its random number."


def test_blocks_of_one_color_are_explained():
    coarse = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert describe_blocks(coarse) == "It tells blocks of 2 by 2 patches apart, not single patches."
    assert describe_blocks(coarse[:, :2]) == "It tells blocks of 2 by 2 patches apart, not single patches."
    assert describe_blocks(torch.arange(16.0).view(4, 4)) == describe_blocks(torch.ones(4, 4)) == ""


def test_a_method_that_loses_to_chance_is_named():
    curves = {"hit": make_curves(0.8, 0.1), "rollout": make_curves(0.4, 0.6), "random": make_curves(0.5, 0.5)}
    [loses, better] = compare_with_chance(curves)
    assert loses == (
        f"{quote('rollout')} (rollout) is better than chance on none of the 4 curves for this photo, and worse on 4. "
        "Do not rely on this picture.",
        True,
    )
    assert better == (f"{quote('hit')} (hit) is better than chance on all 4 curves for this photo.", False)
    assert compare_with_chance({"hit": curves["hit"]}) == []
    assert compare_with_chance({"random": curves["random"]}) == []


@pytest.mark.parametrize(
    ("areas", "words"),
    [
        ((0.9, 0.9, 0.6, 0.4), "is better than chance on 3 of the 4 curves for this photo, and worse on 1."),
        ((0.5, 0.9, 0.4, 0.4), "is better than chance on 3 of the 4 curves for this photo."),
        # Far above chance once does not make up for three curves below it.
        ((0.99, 0.45, 0.55, 0.55), "is better than chance on 1 of the 4 curves for this photo, and worse on 3. Do not"),
        ((0.9, 0.9, 0.6, 0.6), "is better than chance on 2 of the 4 curves for this photo, and worse on 2. Do not"),
        # Differences that do not matter count as neither.
        (
            (0.9, 0.504, 0.1, 0.496),
            "on 2 of the 4 curves for this photo. On 2 of the 4, the order of patches hardly matters, so they cannot tell methods apart.",
        ),
        ((0.504, 0.9, 0.1, 0.1), "on 3 of the 4 curves for this photo. On 1 of the 4, the order"),
        (
            (0.504, 0.504, 0.496, 0.496),
            "none of the 4 curves for this photo. On 4 of the 4, the order of patches hardly matters, so",
        ),
        ((0.496, 0.9, 0.1, 0.1), "is better than chance on 3 of the 4 curves for this photo."),
    ],
)
def test_curves_are_counted_one_by_one(areas, words):
    names = ("insertion_zero", "insertion_blur", "deletion_zero", "deletion_blur")
    flat = make_curves(0.5, 0.5)
    heights = torch.tensor([areas[names.index(name)] for name in flat.names])
    curves = replace(flat, scores=heights[None, :, None].expand(1, -1, 5))
    [sentence] = compare_with_chance({"grad-cam": curves, "random": make_curves(0.5, 0.5)})
    assert words in sentence.text
    assert sentence.loses == ("Do not" in sentence.text)


def test_numbers_without_probabilities_are_compared_by_their_range():
    chance = make_curves(50.0, 50.0)
    assert (
        "none of the 4 curves"
        in compare_with_chance({"hit": chance, "random": replace(chance, ends=chance.scores[..., :2])})[0].text
    )
    wide = replace(chance, ends=torch.tensor([[[0.0, 100.0]] * 4]))
    assert "none of the 4 curves" in compare_with_chance({"hit": make_curves(50.4, 49.6), "random": wide})[0].text
    assert "all 4 curves" in compare_with_chance({"hit": make_curves(50.6, 49.4), "random": wide})[0].text


def test_undefined_curves_say_nothing():
    assert compare_with_chance({"hit": make_curves(float("nan"), 0.1), "random": make_curves(0.5, 0.5)}) == []


def quote(method):
    return f"\N{LEFT DOUBLE QUOTATION MARK}{METHODS[method].label}\N{RIGHT DOUBLE QUOTATION MARK}"
