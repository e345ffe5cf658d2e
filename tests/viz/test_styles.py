"""Methods look different from each other, the same in every picture, and the control is gray."""

import pytest

from vitrail.viz.styles import CONTROL_STYLE, method_styles


@pytest.mark.parametrize("count", [2, 7, 20, 35])
def test_no_two_methods_look_alike(count):
    styles = method_styles([f"method{i}" for i in range(count)])
    assert len({(style.color, style.dashes) for style in styles.values()}) == count


def test_the_control_is_gray_wherever_it_stands():
    for names in (["random", "a"], ["a", "random"], ["one/a", "one/random"]):
        styles = method_styles(names)
        assert [name for name in names if styles[name] == CONTROL_STYLE] == [name for name in names if name.endswith("random")]
        assert styles[next(name for name in names if name.endswith("a"))] == method_styles(["a"])["a"]


def test_only_the_control_is_dotted():
    # To readers with deuteranopia, its gray and the green of methods are the same color.
    longest = [6 if style.dashes == "-" else max(style.dashes[1]) for style in method_styles(map(str, range(35))).values()]
    assert min(longest) >= 2 * max(CONTROL_STYLE.dashes[1])


def test_models_share_the_color_of_a_method_and_differ_in_dashes():
    styles = method_styles(["one/a", "one/b", "two/a", "two/b"])
    assert styles["one/a"].color == styles["two/a"].color != styles["one/b"].color
    assert styles["one/a"].dashes != styles["two/a"].dashes
