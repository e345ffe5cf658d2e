"""Panels that compare methods, for all kinds of numbers and names."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from vitrail.viz.comparison import Panel, plot_panels
from vitrail.viz.styles import method_styles

NAN = float("nan")


def panel(values, title="drop (lower is better)"):
    arrays = {name: np.array(each, dtype=float) for name, each in values.items()}
    known = {name: each[~np.isnan(each)] for name, each in arrays.items()}
    means = {name: (each.mean(), each.min(), each.max()) if len(each) else (NAN, NAN, NAN) for name, each in known.items()}
    return Panel(title, arrays, {name: tuple(map(float, each)) for name, each in means.items()})


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """A function that draws panels to a file and returns the visible axes."""
    figures, original = [], Figure.savefig

    def savefig(self, *arguments, **options):
        figures.append(self)
        original(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)

    def draw(*panels):
        plot_panels(panels, tmp_path / "panels.png")
        with Image.open(tmp_path / "panels.png") as image:
            image.load()
            assert min(image.size) > 50
        assert [path.name for path in tmp_path.iterdir()] == ["panels.png"]
        return [axes for axes in figures[-1].axes if axes.get_visible()]

    return draw


def names(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def diamonds(axes):
    """Return the means by position."""
    return {line.get_ydata()[0]: line.get_xdata()[0] for line in axes.lines if line.get_marker() == "D"}


def test_means_are_drawn_at_their_methods_with_the_first_on_top(drawn):
    [axes] = drawn(panel({"a": [1, 2, 3], "b": [4, 5, 9], "random": [0, 1, 5]}))
    assert diamonds(axes) == {0: 2, 1: 6, 2: 2}
    assert names(axes) == ["a", "b", "random"]
    bottom, top = axes.get_ylim()
    assert bottom > top
    assert len(axes.patches) == 3
    [dotted] = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert set(dotted.get_xdata()) == {2}


def test_intervals_reach_from_low_to_high(drawn):
    means = {"a": (2.0, 1.5, 3.0)}
    [axes] = drawn(Panel("up", {"a": np.array([1.0, 2.0, 3.0])}, means))
    assert any(list(line.get_xdata()) == [1.5, 3.0] and list(line.get_ydata()) == [0, 0] for line in axes.lines)


def test_one_image_has_a_point(drawn):
    [axes] = drawn(panel({"a": [0.25], "random": [0.5]}))
    assert diamonds(axes) == {0: 0.25, 1: 0.5}


def test_methods_without_numbers_have_no_line_and_leave_the_colors_of_others(drawn):
    [axes] = drawn(panel({"a": [NAN, NAN, NAN], "b": [1, NAN, 3], "random": [NAN, NAN, NAN]}))
    assert diamonds(axes) == {0: 2}
    assert names(axes) == ["b"]
    assert {line.get_color() for line in axes.lines} == {method_styles(["a", "b"])["b"].color}
    assert not [line for line in axes.lines if line.get_linestyle() == ":"]  # The control has no mean.


def test_undefined_measure_is_drawn_empty(drawn):
    [axes] = drawn(panel({"a": [NAN], "b": [NAN]}))
    assert diamonds(axes) == {}


def test_hits_and_misses_have_no_box(drawn):
    hits, grades = drawn(panel({"a": [0, 1, 1, NAN], "b": [1, 1, 1, 1]}), panel({"a": [0, 1, 0.5, NAN], "b": [1, 1, 1, 1]}))
    assert len(hits.patches) == 0
    assert len(grades.patches) == 2
    assert diamonds(hits) == pytest.approx({0: 2 / 3, 1: 1})


def test_the_control_of_every_model_is_gray(drawn):
    [axes] = drawn(panel({"one/a": [1, 2, 3], "one/random": [1, 2, 4]}))
    colors = {line.get_ydata()[0]: line.get_color() for line in axes.lines if line.get_marker() == "D"}
    assert colors[1] == "0.45" != colors[0]


def test_every_model_has_the_line_of_its_own_control(drawn):
    [axes] = drawn(panel({"one/a": [1, 2], "one/random": [1, 3], "two/a": [5, 6], "two/random": [4, 4]}))
    dotted = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert [(set(line.get_xdata()), tuple(line.get_ydata())) for line in dotted] == [({2}, (-0.5, 1.5)), ({4}, (1.5, 3.5))]


@pytest.mark.parametrize("count", [1, 4, 5, 9])
def test_panels_are_broken_into_lines(count, drawn):
    panels = drawn(*[panel({"a": [1, 2, 3]}, f"measure {i}") for i in range(count)])
    assert [axes.get_title() for axes in panels] == [f"measure {i}" for i in range(count)]
    assert len({round(axes.get_position().y0, 2) for axes in panels}) == -(-count // 4)


def test_many_methods_make_the_picture_taller(drawn, tmp_path):
    drawn(panel({f"method {i}": [i, i + 1, i + 3] for i in range(3)}))
    few = Image.open(tmp_path / "panels.png").size
    [axes] = drawn(panel({f"method {i}": [i, i + 1, i + 3] for i in range(40)}))
    many = Image.open(tmp_path / "panels.png").size
    assert len(names(axes)) == 40
    assert many[1] > 4 * few[1]
    assert many[0] == few[0]


@pytest.mark.parametrize("name", ["$a$", "a$b", "$\\frac", "x_1^2", "ü/\\n"])
def test_names_are_no_formulas(name, drawn):
    """Matplotlib would fail on an unfinished formula."""
    [axes] = drawn(panel({name: [1, 2, 3]}))
    assert names(axes) == [name.replace("$", r"\$")]
