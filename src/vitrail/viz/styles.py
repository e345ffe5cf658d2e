"""One color, dash pattern and marker per method in every picture, which readers with color blindness can tell apart."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vitrail.metrics.statistics import CONTROL

COLORS = ("#0072b2", "#e69f00", "#b30000", "#56b4e9", "#332288", "#785ef0", "#601a4a")
"""Colors that differ from each other, and from the gray of the control, by 24 units of CIELAB or more to all readers, also to those with
deuteranopia or protanopia, who see neither green nor pink apart from gray."""

DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (8, 1.5, 1, 1.5, 1, 1.5)), (0, (5, 1.5, 1.5, 1.5)), (0, (8, 2)))
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">")
"""Numbers of colors, dashes and markers have no common factor, so that no two of the first 35 methods look alike."""


FAMILIAR = (
    *("hit", "chefer", "attention", "rollout", "grad-cam", "rise", "input-x-gradient"),
    *("intr", "mutex", "shapley", "occlusion", "integrated-gradients", "legrad", "attcat"),
)
"""Methods in the order of the positions of their styles, so that a method looks alike in most reports; those often seen together differ."""


@dataclass(frozen=True)
class Style:
    """How a method is drawn.

    Attributes:
        color: A color of matplotlib.
        dashes: A line style of matplotlib.
        marker: A marker of matplotlib.
    """

    color: str
    dashes: Any
    marker: str


CONTROL_STYLE = Style("0.45", (0, (1, 1.5)), ".")
"""The only dotted line: without red and green, gray looks like the green of methods."""


def is_control(name: str) -> bool:
    """Return whether a method, or a "model/method", is the control."""
    return name.split("/")[-1] == CONTROL


def method_styles(names: Iterable[str]) -> dict[str, Style]:
    """Choose a style for every method; the control is gray and dotted.

    Methods of several models ("model/method") share the color of their method, and differ in dashes and marker by model.

    Args:
        names: Names of all methods of a report.
    """
    names = list(names)
    positions = _choose_positions(dict.fromkeys(name.split("/")[-1] for name in names if not is_control(name)))
    models = list(dict.fromkeys(name.rpartition("/")[0] for name in names))
    styles = dict[str, Style]()
    for name in names:
        model, _, method = name.rpartition("/")
        if is_control(name):
            styles[name] = CONTROL_STYLE
            continue
        position, shift = positions[method], models.index(model)
        styles[name] = Style(
            COLORS[position % len(COLORS)], DASHES[(position + shift) % len(DASHES)], MARKERS[(position + shift) % len(MARKERS)]
        )
    return styles


def _choose_positions(methods: Iterable[str]) -> dict[str, int]:
    """Give every method the position of a style: its own, unless its color is taken while others are free."""
    positions, colors = dict[str, int](), set[int]()
    familiar = {name: position for position, name in enumerate(FAMILIAR)}
    for method in sorted(methods, key=lambda name: familiar.get(name, len(FAMILIAR))):
        own = familiar.get(method, len(FAMILIAR))
        candidates = [own, *range(len(COLORS) * len(DASHES))]
        if len(colors) < len(COLORS):
            candidates = [each for each in candidates if each % len(COLORS) not in colors]
        taken = set(positions.values())
        positions[method] = next((each for each in candidates if each not in taken), own)
        colors.add(positions[method] % len(COLORS))
    return positions
