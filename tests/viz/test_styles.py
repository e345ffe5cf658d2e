"""Methods look different from each other, the same in every picture, and the control is gray."""

import re
from importlib.resources import files
from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from vitrail.viz.styles import COLORS, CONTROL_STYLE, method_styles

SIGHT = {
    "full": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}
"""Machado, Oliveira & Fernandes 2009, severity 1, on linear RGB."""

STYLE_SHEETS = [files("vitrail") / folder / "templates" / name for folder, name in (("viz", "report.css"), ("app", "page.css"))]


def see(color, sight):
    """Return a color as a reader sees it, in CIELAB."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(SIGHT[sight]) @ linear, 0, 1)
    xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]] @ seen / [0.9505, 1.0, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHT)
def test_all_readers_see_different_colors(sight):
    seen = [see(color, sight) for color in (*COLORS, CONTROL_STYLE.color)]
    assert min(np.linalg.norm(one - other) for one, other in combinations(seen, 2)) > 24


def filter_color(color, css):
    """Apply a CSS filter, as browsers do: on sRGB, clipped after every step (Filter Effects Module)."""
    color = np.array(to_rgb(color))
    for name, value, degrees in re.findall(r"([\w-]+)\(([\d.]+)(deg)?\)", css):
        amount = float(value)
        if name == "invert":
            color = amount + color * (1 - 2 * amount)
        elif name == "hue-rotate":
            assert degrees
            gray, cos, sin = np.array([[0.213, 0.715, 0.072]] * 3), np.cos(np.radians(amount)), np.sin(np.radians(amount))
            turn = [[-0.213, -0.715, 0.928], [0.143, 0.140, -0.283], [-0.787, 0.715, 0.072]]
            color = (gray + cos * (np.eye(3) - gray) + sin * np.array(turn)) @ color
        else:
            color = color * amount if name == "brightness" else (color - 0.5) * amount + 0.5
        color = np.clip(color, 0, 1)
    return color


@pytest.mark.parametrize("sight", SIGHT)
def test_all_readers_see_different_colors_on_dark_pages(sight):
    filters = [re.search(r"\.vt-plot img { filter: (invert.*?); }", path.read_text()) for path in STYLE_SHEETS]
    assert len({found[1] for found in filters}) == 1
    colors = [filter_color(color, filters[0][1]) for color in (*COLORS, CONTROL_STYLE.color)]
    # Less than on light pages, since lightness is turned around: dashes and markers help.
    assert min(np.linalg.norm(see(one, sight) - see(other, sight)) for one, other in combinations(colors, 2)) > 13
    paper = filter_color("white", filters[0][1])
    assert max(paper) < 0.1
    assert min(np.linalg.norm(see(color, sight) - see(paper, sight)) for color in colors) > 50


def test_a_method_keeps_its_hue_on_dark_pages():
    """Else blue is one method on light pages and another on dark ones."""
    css = re.search(r"\.vt-plot img { filter: (invert.*?); }", STYLE_SHEETS[0].read_text())
    for color in COLORS:
        light, dark = (np.arctan2(*see(each, "full")[[2, 1]]) for each in (color, filter_color(color, css[1])))
        assert abs((np.degrees(light - dark) + 180) % 360 - 180) < 20


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
    longest = [6 if style.dashes == "-" else max(style.dashes[1]) for style in method_styles(map(str, range(35))).values()]
    assert min(longest) >= 2 * max(CONTROL_STYLE.dashes[1])


def test_a_method_looks_the_same_in_reports_of_other_methods():
    """Unless its color is taken by one that comes before it."""
    few, many = method_styles(["rollout", "hit"]), method_styles(["random", "chefer", "rollout", "attention", "hit", "legrad"])
    assert all(few[name] == many[name] for name in few)
    crowded = method_styles(["hit", "intr", "mutex", "chefer"])
    assert crowded["hit"] == few["hit"]
    assert len({style.color for style in crowded.values()}) == 4


def test_models_share_the_color_of_a_method_and_differ_in_dashes():
    styles = method_styles(["one/a", "one/b", "two/a", "two/b"])
    assert styles["one/a"].color == styles["two/a"].color != styles["one/b"].color
    assert styles["one/a"].dashes != styles["two/a"].dashes
