"""The verdict of a run follows its numbers: which method, how sure, at what cost, and what is open."""

from dataclasses import replace

import numpy as np
import pytest
from scored import column, hand_made

from vitrail.evaluation.scoring.cost import Cost
from vitrail.evaluation.scoring.verdict import reach_verdict

UP, DOWN = column("m.up"), column("m.down", "lower")
NUM_IMAGES = 40


def scores(means, costs=None, columns=(UP, DOWN), num_images=NUM_IMAGES):
    """Scores with these means of up and down, and a spread of 1 over images that is not shared by methods."""
    generator = np.random.default_rng(0)
    values = {
        name: (np.array(each) + generator.uniform(-1, 1, (num_images, len(columns)))).tolist() for name, each in means.items()
    }
    made = hand_made(values, columns)
    for name in made.methods:
        made.cost[name] = Cost(float((costs or {}).get(name, 3)), 0.01)
    return made


def test_the_best_method_is_named_with_its_reasons():
    verdict = reach_verdict(scores({"a": [5, -5], "b": [2, -2], "random": [0, 0]}))
    assert verdict.method == "a"
    assert str(verdict).startswith(
        "Use a for model: it has the best mean rank of 2 methods over 2 measures on 40 images. It is significantly better than random on "
        "both measures. Against b, the next one, it is significantly better on 2 of 2 measures. An explanation by a costs 3.0 forward "
        "passes (10 ms here)."
    )


def test_methods_that_are_not_better_than_random_are_not_recommended():
    verdict = reach_verdict(scores({"a": [0, 0], "b": [-3, 3], "random": [0, 0]}))
    assert verdict.method is None
    assert verdict.sentences[0].startswith(
        "Do not rely on these maps of model: on 40 images, no method is significantly better than random on both measures "
        "(paired tests, corrected for the number of methods)."
    )
    assert verdict.sentences[1:3] == (
        "Significantly worse than random: b on m.up, m.down.",
        "a has the best mean rank so far: score more images (a higher --limit) to find out whether it is better than random.",
    )


def test_methods_that_are_better_than_random_on_some_measures_are_named():
    verdict = reach_verdict(scores({"a": [5, 0], "b": [-3, 3], "random": [0, 0]}))
    assert verdict.method is None
    assert verdict.sentences[1:3] == (
        "On m.up, 1 of 2 methods is (a); on m.down, none is.",
        "Significantly worse than random: b on m.up, m.down.",
    )


def test_the_best_rank_gives_way_to_a_method_that_beats_it():
    """Mean ranks ignore how large and how sure differences are: `a` is a little better twice, `b` is better by far once."""
    values = scores({"a": [0] * 3, "b": [0] * 3, "random": [0] * 3}, columns=(UP, DOWN, column("m.other")))
    swings = np.where(np.arange(NUM_IMAGES) % 2 == 0, 1.2, -1)  # Of a small mean, and not significant.
    values.values[0] = np.stack([5 + swings, -5 - swings, np.full(NUM_IMAGES, 2)], 1)
    values.values[1] = [5, -5, 8]
    values.values[2] = 0
    verdict = reach_verdict(values)
    assert verdict.method == "b"
    assert str(verdict).startswith(
        "Use b for model: a has the better mean rank over 3 measures on 40 images, but b is significantly better than it on m.other, and "
        "not significantly worse on any measure. It is significantly better than random on all 3 measures. An explanation by b"
    )


def test_too_few_images_are_not_blamed_on_the_maps():
    verdict = reach_verdict(scores({"a": [5, -5], "b": [3, -3], "random": [0, 0]}, num_images=4))
    assert verdict.method is None
    assert verdict.sentences[0] == (
        "No verdict: 4 images are too few to show that a method is better than random: the 5% level needs 7 or more."
    )


def test_a_better_rank_does_not_help_a_method_that_is_not_better_than_random():
    values = scores({"lucky": [0, 0], "steady": [0, 0], "random": [0, 0]})
    numbers = np.zeros((3, NUM_IMAGES, 2))
    numbers[0, :, :] = (
        np.array([[1, -1]]) * np.where(np.arange(NUM_IMAGES) == 0, 100, 0)[:, None]
    )  # One image decides its mean.
    numbers[1, :, :] = [0.5, -0.5]
    values.values[...] = numbers
    verdict = reach_verdict(values)
    assert verdict.method == "steady"
    assert verdict.sentences[0] == (
        "Use steady for model: it has the best mean rank among the methods that are significantly better than random on more than half "
        "of 2 measures, on 40 images."
    )
    # The difference between significant and not significant need not be significant.
    assert verdict.sentences[2] == (
        "lucky has the best mean rank of all, but is significantly better than random on none of 2 measures; the two are not "
        "distinguishable on any measure: more images may decide."
    )
    assert "next one" not in str(verdict)


def test_the_verdict_names_measures_where_the_recommended_method_is_worse_than_random():
    up = [column(f"m.up{i}") for i in range(3)]
    verdict = reach_verdict(scores({"a": [5, 5, -5], "random": [0, 0, 0]}, columns=up))
    assert verdict.method == "a"
    assert (
        verdict.sentences[1] == "It is significantly better than random on 2 of 3 measures, and significantly worse on m.up2."
    )


def test_indistinguishable_methods_are_reported():
    verdict = reach_verdict(scores({"a": [5, -5], "b": [5, -5], "random": [0, 0]}))
    assert "It is not distinguishable from" in str(verdict)


def test_of_methods_with_the_same_rank_the_cheapest_is_named():
    verdict = reach_verdict(scores({"a": [5, -4], "b": [4, -5], "random": [0, 0]}, {"a": 10, "b": 1}))
    assert verdict.method == "b"
    assert verdict.sentences[0].endswith(
        "the best mean rank of 2 methods over 2 measures on 40 images, shared with a, and costs the least."
    )


def test_a_cheaper_method_that_loses_nothing_is_named():
    verdict = reach_verdict(scores({"a": [5.15, -5.15], "b": [5, -5], "random": [0, 0]}, {"a": 10, "b": 1}))
    assert verdict.method == "a"
    assert "b costs one forward pass (10 ms here), and is not significantly worse on any measure." in verdict.sentences


def test_a_cheaper_method_is_named_with_what_it_loses():
    verdict = reach_verdict(scores({"a": [5, -5], "b": [4, -5], "random": [0, 0]}, {"a": 10, "b": 1}))
    assert "b costs one forward pass (10 ms here), and is significantly worse on 1 of 2 measures (m.up)." in verdict.sentences


def test_a_runner_up_that_differs_on_some_measures_is_compared_on_each():
    verdict = reach_verdict(scores({"a": [5, -5], "b": [4, -5], "random": [0, 0]}))
    assert (
        "Against b, the next one, it is significantly better on 1 of 2 measures (m.up) and not distinguishable on 1."
        in verdict.sentences
    )


@pytest.mark.parametrize(
    ("methods", "columns"), [({"random": [0]}, (UP,)), ({"a": [1], "random": [0]}, (column("m.size", None),))]
)
def test_without_methods_or_directions_there_is_no_verdict(methods, columns):
    verdict = reach_verdict(scores(methods, columns=columns))
    assert verdict.method is None
    assert verdict.sentences[0].startswith("No verdict: ")


def test_a_missing_control_is_reported():
    assert "Whether it is better than random is unknown" in str(reach_verdict(scores({"a": [5, -5], "b": [2, -2]})))


def test_few_images_are_reported():
    assert "8 images are few" in str(reach_verdict(scores({"a": [5, -5], "random": [0, 0]}, num_images=8)))
    assert "few" not in str(reach_verdict(scores({"a": [5, -5], "random": [0, 0]})))


def test_measures_that_depend_on_the_scale_of_maps_have_no_say():
    """`b` is better on the sum of relevance on the object only because its maps are sparse."""
    mass = column("m.mass")
    mass = replace(mass, measure=replace(mass.measure, depends_on_scale=True))
    made = scores({"a": [5, -5, -9], "b": [2, -2, 9], "random": [0, 0, 0]}, columns=(UP, DOWN, mass))
    verdict = reach_verdict(made)
    assert verdict.method == "a"
    assert "over 2 measures" in verdict.sentences[0]
    assert "mass" not in str(verdict)
    assert made.table.mean_ranks.tolist() == [1, 2, 3]
    assert all(entry.measure != "m.mass" for entry in made.table.unproven)


def test_measures_that_the_control_lacks_do_not_count():
    made = scores({"a": [5, -5], "b": [2, -2], "random": [0, 0]})
    made.values[list(made.methods).index("random"), :, 1] = np.nan
    verdict = reach_verdict(made)
    assert "over 1 measure on 40 images" in verdict.sentences[0]
    assert "It is significantly better than random on the measure." in verdict.sentences
