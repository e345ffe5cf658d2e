"""The forest plot shows how much better methods are than random, whatever the direction of a measure."""

import numpy as np
import pytest
from scored import column, hand_made

from vitrail.evaluation.scoring.report import _forest_panels
from vitrail.evaluation.scoring.table import Table

UP, DOWN = column("m.up"), column("m.down", "lower")


@pytest.mark.parametrize("names", [("a", "random"), ("random", "a")])
def test_differences_are_positive_where_a_method_is_better(names):
    numbers = {"a": [[3.0, 1.0], [5.0, 1.0]], "random": [[1.0, 4.0], [2.0, 2.0]]}
    table = Table.from_scores([hand_made({name: numbers[name] for name in names}, (UP, DOWN))])
    panels = _forest_panels(table)
    assert [panel.title for panel in panels] == ["m.up", "m.down"]
    assert [list(panel.differences) for panel in panels] == [["a"], ["a"]]
    for panel, expected in zip(panels, (2.5, 2.0), strict=True):
        mean, low, high = panel.differences["a"]
        assert mean == pytest.approx(expected)
        assert low <= mean <= high


def test_measures_that_the_control_lacks_have_no_panel():
    table = Table.from_scores([hand_made({"a": [[1.0, 2.0]], "random": [[0.0, np.nan]]}, (UP, DOWN))])
    assert [panel.title for panel in _forest_panels(table)] == ["m.up"]
