"""Whether an explanation of one photo does better than a random one, in plain words."""

from collections.abc import Mapping
from math import isfinite
from typing import NamedTuple

from vitrail.app.plain_words import describe_method
from vitrail.metrics import Curves
from vitrail.metrics.statistics import CONTROL


class Comparison(NamedTuple):
    """A sentence about explanations and chance.

    Attributes:
        text: The sentence.
        loses: Whether it warns.
    """

    text: str
    loses: bool


def compare_with_chance(curves: Mapping[str, Curves]) -> list[Comparison]:
    """Say which methods do no better than patches in random order, and which do.

    Args:
        curves: By method, of one photo; without those of the control, or of any other method, there is nothing to say.
    """
    if CONTROL not in curves:
        return []
    gains = {method: _gains(measured, curves[CONTROL]) for method, measured in curves.items() if method != CONTROL}
    sentences = [
        Comparison(
            f"\N{LEFT DOUBLE QUOTATION MARK}{describe_method(method).label}\N{RIGHT DOUBLE QUOTATION MARK} ({method}) does no better than "
            "chance on this photo: patches in random order change the model's answer just as much. Do not rely on this picture.",
            loses=True,
        )
        for method, gain in gains.items()
        if isfinite(sum(gain)) and sum(gain) <= 0
    ]
    if better := [_name(method, gain) for method, gain in gains.items() if sum(gain) > 0]:
        sentences.append(Comparison(f"Better than chance on this photo: {', '.join(better)}.", loses=False))
    return sentences


def _gains(curves: Curves, chance: Curves) -> list[float]:
    """Return by how much each AUC of the protocol is better than that of the control."""
    own, control = curves.summary(), chance.summary()
    signs = {curve.name: 1 if curve.better == "higher" else -1 for curve in curves.protocol.curves}
    return [sign * (own[name] - control[name]) for name, sign in signs.items()]


def _name(method: str, gains: list[float]) -> str:
    """Name a method that is better on average, and on how many curves it is if not on all."""
    num_better = sum(gain > 0 for gain in gains)
    return method if num_better == len(gains) else f"{method} (on {num_better} of {len(gains)} curves)"
