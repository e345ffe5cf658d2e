"""Methods beside each other: names, columns, controls, ranks and comparisons of numbers made by hand; and how they are said."""

import numpy as np
import pytest
from scored import column, hand_made

from vitrail.core.errors import InvalidInputError
from vitrail.evaluation.scoring.table import Table
from vitrail.evaluation.scoring.text import (
    align_columns,
    comparison_cells,
    describe_undefined,
    metric_cells,
    metric_names,
    overview_cells,
    rank_cells,
    table_lines,
    warning_lines,
)
from vitrail.metrics.statistics import UnprovenMethod

NAN = float("nan")
UP, DOWN, SIZE = column("m.up"), column("m.down", "lower"), column("m.size", None)


def table(values, columns=(UP,), **fields):
    return Table.from_scores([hand_made(values, columns, **fields)])


def test_one_model_keeps_the_names_of_its_methods():
    found = table({"a": [[1.0]], "random": [[0.0]]})
    assert found.methods == ["a", "random"]
    assert found.names == ["m.up"]
    assert found.controls == {"a": "random"}
    assert found.cost["random"].passes == 2.0


def test_several_models_have_their_names_before_their_methods_and_all_columns():
    first = hand_made({"a": [[1, 2]], "random": [[3, 4]]}, (UP, DOWN), "one")
    second = hand_made({"a": [[5, 6]], "b": [[7, 8]]}, (SIZE, UP), "two")
    third = hand_made({"b": [[9]], "random": [[0]]}, (DOWN,), "three")
    found = Table.from_scores([first, second, third])
    assert found.methods == ["one/a", "one/random", "two/a", "two/b", "three/b", "three/random"]
    assert found.names == ["m.up", "m.down", "m.size"]
    expected = [[1, 2, NAN], [3, 4, NAN], [6, NAN, 5], [8, NAN, 7], [NAN, 9, NAN], [NAN, 0, NAN]]
    np.testing.assert_array_equal(np.concatenate(list(found.values.values())), expected)
    # The second model has no control, and is not held against that of another.
    assert found.controls == {"one/a": "one/random", "three/b": "three/random"}
    assert found.cost["two/b"] == second.cost["b"]


@pytest.mark.parametrize("places", [[0, 2], [1, 0], [0, 1, 2]])
def test_different_images_are_refused(places):
    first = hand_made({"a": [[1.0], [2.0]]}, (UP,), "one")
    second = hand_made({"a": [[1.0]] * len(places)}, (UP,), "two", places)
    with pytest.raises(InvalidInputError, match="same images"):
        Table.from_scores([first, second])


def test_different_files_at_the_same_places_are_refused():
    first = hand_made({"a": [[1.0], [2.0]]}, (UP,), "one")
    second = hand_made({"a": [[1.0], [2.0]]}, (UP,), "two")
    second.paths[:] = ["elsewhere/0.png", "elsewhere/1.png"]
    with pytest.raises(InvalidInputError, match="same images"):
        Table.from_scores([first, second])


def test_models_of_the_same_name_do_not_overwrite_each_other():
    """Refused, or told apart."""
    first, second = (hand_made({"a": [[value]]}, (UP,), "same") for value in (1.0, 2.0))
    try:
        found = Table.from_scores([first, second])
    except InvalidInputError:
        return
    assert sorted(each[0, 0] for each in found.values.values()) == [1.0, 2.0]


def test_ranks_follow_the_directions():
    """Means of up: 2, 1, 2, undefined; of down: 1, 3, 2, 2."""
    values = {
        "a": [[1, 0, 5], [3, 2, 5]],
        "b": [[1, 3, 9], [1, 3, 9]],
        "c": [[2, 2, 1], [NAN, 2, 1]],
        "random": [[NAN, 2, 0], [NAN, 2, 0]],
    }
    found = table(values, (UP, DOWN, SIZE))
    np.testing.assert_array_equal(found.ranks, [[1.5, 1, NAN], [3, 4, NAN], [1.5, 2.5, NAN], [NAN, 2.5, NAN]])
    np.testing.assert_array_equal(found.mean_ranks, [1, 4, 2.5, 2.5])


def test_mean_ranks_are_over_the_measures_that_all_methods_share():
    """A rank among few methods would be better than the same one among many; where nothing is shared, it is over what there is."""
    values = {"a": [[3, NAN], [3, NAN]], "b": [[2, 5], [2, 5]], "c": [[1, 6], [1, 6]]}
    assert table(values, (UP, DOWN)).mean_ranks.tolist() == [1, 2, 3]
    assert table({**values, "greedy": [[NAN, 9], [NAN, 9]]}, (UP, DOWN)).mean_ranks[:3].tolist() == [1, 2, 3]
    values["c"] = [[NAN, 6], [NAN, 6]]
    assert table(values, (UP, DOWN)).mean_ranks.tolist() == [1, 1.5, 2]


def test_intervals_are_around_the_means_of_what_is_defined():
    found = table({"a": [[1, NAN], [2, NAN], [3, 7], [NAN, NAN]]}, (UP, DOWN)).intervals["a"]
    np.testing.assert_array_equal(found.mean, [2, 7])
    np.testing.assert_array_equal(found.count, [3, 1])
    assert 1 <= found.low[0] < 2 < found.high[0] <= 3
    assert found.low[1] == found.high[1] == 7


def test_comparisons_are_paired_and_corrected_over_the_pairs():
    """Six images whose differences have one sign: of 64 choices of signs 2 are as far, p = 1/32; of three pairs, times 3."""
    steps = np.arange(1.0, 7.0)
    values = {"a": 3 * steps, "b": 2 * steps, "c": steps}
    found = table({name: np.stack([each, each], 1) for name, each in values.items()}, (UP, SIZE))
    assert [(each.measure, each.first, each.second) for each in found.comparisons] == [
        ("m.up", "a", "b"),
        ("m.up", "a", "c"),
        ("m.up", "b", "c"),
    ]
    assert [each.difference for each in found.comparisons] == pytest.approx([3.5, 7, 3.5])
    assert [each.p for each in found.comparisons] == pytest.approx([1 / 32] * 3)
    assert [each.p_adjusted for each in found.comparisons] == pytest.approx([3 / 32] * 3)
    assert {each.count for each in found.comparisons} == {6}


def test_nothing_is_compared_with_nothing():
    assert table({"a": [[1.0]]}).comparisons == []
    assert table({"a": [[1.0]], "b": [[2.0]]}, (SIZE,)).comparisons == []


def test_methods_are_compared_with_the_control_of_their_model():
    """Six images: the smallest p is 1/32. The better half of what is better is proven, by the measure's own direction."""
    low, high = (np.full((6, 1), value) + np.arange(6)[:, None] / 100 for value in (0.0, 1.0))
    noise = low + np.array([[0.1], [-0.1], [0.1], [-0.1], [0.1], [-0.1]])
    up = np.concatenate([high, high, high], 1)  # good at up, bad at down
    first = hand_made({"up": up, "random": np.concatenate([low, low, low], 1)}, (UP, DOWN, SIZE), "one")
    second = hand_made({"noise": noise, "random": low}, (UP,), "two")
    third = hand_made({"alone": low}, (UP,), "three")
    found = [(each.method, each.measure) for each in Table.from_scores([first, second, third]).unproven]
    assert found == [("one/up", "m.down"), ("two/noise", "m.up")]


def test_a_measure_that_the_control_lacks_gives_no_warning():
    values = {"a": [[1.0, 0.0]] * 8, "b": [[1.0, NAN]] * 8, "random": [[0.0, NAN]] * 8}
    assert table(values, (UP, DOWN)).unproven == []


def test_an_undefined_method_is_not_better_than_random():
    [found] = table({"a": [[NAN]] * 8, "random": [[0.0]] * 8}).unproven
    assert (found.method, found.measure) == ("a", "m.up")
    assert np.isnan(found.difference)


# Words.


def test_columns_are_aligned():
    lines = align_columns(["", "up", "a long name"], [["random", "1.0", "-"], ["a", "-10.25", "3"]])
    assert lines == [f"{'':6}  {'up':>6}  a long name", f"random  {'1.0':>6}  {'-':>11}", f"{'a':6}  -10.25  {'3':>11}"]
    assert align_columns(["x"], []) == ["x"]


def test_rows_of_a_metric_show_direction_and_interval():
    values = {"a": [[0.5, 123.0, 0.0], [0.5, 123.0, 0.0]], "random": [[NAN, 12.5, 2e-4], [NAN, 12.5, 2e-4]]}
    found = table(values, (UP, DOWN, SIZE))
    head, rows = metric_cells(found, "m")
    assert head == ["", "up", "down", "size"]
    assert rows == [
        ["better", "higher", "lower", ""],
        ["a", "0.500 ±0.000", "123.0 ±0.0", "0.000 ±0.000"],
        ["random", "-", "12.50 ±0.00", "2.0e-04 ±0e+00"],
    ]


def test_half_of_the_interval_is_printed_after_the_mean():
    found = table({"a": np.arange(40.0)[:, None]})
    _, [_, [_, message]] = metric_cells(found, "m")
    interval = found.intervals["a"]
    assert message == f"19.50 ±{(interval.high[0] - interval.low[0]) / 2:.2f}"
    assert 2 < (interval.high[0] - interval.low[0]) / 2 < 5  # 1.96 x 11.5 / sqrt(40) = 3.6


def test_means_report_how_many_images_they_exclude():
    columns = (UP, DOWN, SIZE, column("n.up"))
    whole = [1.0, 2.0, 3.0, 4.0]
    found = table({"a": [[1, NAN, NAN, 1], [NAN, 2, NAN, 1], whole], "random": [[1, NAN, 3, 1], whole, whole]}, columns)
    assert describe_undefined(found, "m") == [
        "up: undefined for 1 of 3 images with a; the mean leaves these out",
        "down: undefined for 1 of 3 images; the mean leaves these out",
        "size: undefined for 2 of 3 images with a; the mean leaves these out",
    ]
    assert describe_undefined(found, "n") == []


def test_differences_are_those_of_the_given_method_from_the_others_of_its_model():
    generator = np.random.default_rng(0)
    methods = {"a": 3.0, "b": 1.0, "random": 0.0}
    one, two = (
        hand_made({name: [[mean + shift + noise] for noise in generator.uniform(-0.1, 0.1, 30)] for name, mean in methods.items()},
                  (column("m.up"),), model)
        for model, shift in (("one", 0.0), ("two", 1.0))
    )  # fmt: skip
    _, rows = comparison_cells(one.table, ["b"])
    assert [row[1] for row in rows] == ["b - a", "b - random"]
    assert [float(row[2]) for row in rows] == pytest.approx([-2, 1], abs=0.1)
    for row, entry in zip(rows, ("a", "random"), strict=True):
        [found] = [each for each in one.table.comparisons if {each.first, each.second} == {"b", entry}]
        low, high = map(float, row[3].strip("[]").split(","))
        assert low < float(row[2]) < high
        assert sorted(map(abs, (low, high))) == pytest.approx(sorted(map(abs, (found.low, found.high))), abs=1e-3)
        assert row[4] == "< 0.001"
    _, rows = comparison_cells(Table.from_scores([one, two]), ["one/a", "two/a"])
    assert [row[1] for row in rows] == [
        "one/a - one/b", "one/a - one/random", "two/a - two/b", "two/a - two/random", "one/a - two/a",
    ]  # fmt: skip


def test_measures_that_are_undefined_alike_share_a_line():
    columns = tuple(column(f"m.{name}") for name in "uvwxyz")
    found = table({"a": [[NAN] * 6, [1.0] * 6]}, columns)
    assert describe_undefined(found, "m") == ["u, v, w, x and 2 more: undefined for 1 of 2 images; the mean leaves these out"]
    several = table({"a": [[NAN], [1.0], [1.0]], "b": [[NAN], [NAN], [1.0]], "c": [[NAN]] * 3}, (UP,))
    assert describe_undefined(several, "m") == [
        "up: undefined for 1 of 3 images with a, 2 of 3 images with b; the mean leaves these out"
    ]


def test_metrics_are_named_once_in_their_order():
    assert metric_names(table({"a": [[1, 2, 3]]}, (UP, column("other"), DOWN))) == ["m", "other"]


def test_the_overview_begins_with_the_best():
    values = {"bad": [[1.0, 9.0]], "good": [[3.0, 1.0]], "unknown": [[NAN, NAN]], "random": [[2.0, 1.0]]}
    head, rows = overview_cells(table(values, (UP, DOWN)))
    assert head == ["", "mean rank", "passes", "ms per image"]
    assert rows == [
        ["good", "1.25", "2.00", "4.0"],
        ["random", "1.75", "4.00", "8.0"],
        ["bad", "3.00", "1.00", "2.0"],
        ["unknown", "-", "3.00", "6.0"],
    ]


def test_the_rank_table_has_the_measures_with_a_direction():
    found = table({"a": [[1, 2, 3]], "b": [[1, 1, NAN]]}, (UP, SIZE, DOWN))
    assert rank_cells(found) == (["", "a", "b"], [["m.up", "1.5", "1.5"], ["m.down", "-", "-"]])


def test_many_methods_run_down_the_page():
    found = table({"a": [[1, 2]], "b": [[1, 1]], "c": [[0, 0]]}, (UP, SIZE))
    assert rank_cells(found) == (["", "m.up"], [["a", "1.5"], ["b", "1.5"], ["c", "3.0"]])


def test_a_method_gets_one_warning():
    def unproven(method, *measures):
        return [UnprovenMethod(method, measure, 0.0, 1.0) for measure in measures]

    assert warning_lines([], 3, 2) == []
    assert warning_lines([*unproven("a", "x"), *unproven("b", "x", "y"), *unproven("a", "z")], 7, 2) == [
        "a is not significantly better than random on x, z",
        "b is not significantly better than random on x, y",
    ]
    assert warning_lines(unproven("a", *"vwxyz"), 7, 2) == [
        "a is not significantly better than random on v, w, x, y and 1 more"
    ]
    assert warning_lines(unproven("a", *"vwxy"), 7, 2) == ["a is not significantly better than random on v, w, x, y"]
    worse = [UnprovenMethod("a", "x", -1.0, 0.01, significantly_worse=True), *unproven("a", "y")]
    assert warning_lines(worse, 7, 2) == [
        "a is significantly worse than random on x",
        "a is not significantly better than random on y",
    ]
    too_few = "images are too few to show that a method is better than random: the 5% level needs"
    assert warning_lines(unproven("a", "x"), 5, 1) == [f"5 {too_few} 6 or more"]
    assert warning_lines(unproven("a", "x"), 6, 3) == [f"6 {too_few} 7 or more"]  # Holm multiplies by three.
    assert warning_lines(unproven("a", "x"), 1, 1) == [f"1 {too_few.replace('images are', 'image is')} 6 or more"]


def test_scores_show_their_table():
    scores = hand_made({"a": [[1.0], [2.0]], "random": [[0.0], [1.0]]}, (UP,), "one")
    shown = repr(scores).splitlines()
    assert shown[0] == "one, 2 images"
    assert shown[1:] == list(table_lines(scores.table, {}))
    assert str(Table.from_scores([scores])) == repr(scores)
    assert repr(hand_made({"a": np.zeros((2, 0)).tolist()}, (), "one")) == "one, 2 images, without a measure that is defined"
