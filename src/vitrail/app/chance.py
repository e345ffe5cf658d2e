"""Whether an explanation of one photo does better than a random one, in plain words."""

from collections.abc import Mapping
from math import isfinite
from typing import NamedTuple

import torch

from vitrail.app.plain_words import describe_method
from vitrail.metrics import Curves
from vitrail.metrics.statistics import CONTROL

NEGLIGIBLE = 0.005
"""Difference of two areas that does not matter, as a share of the range of the scores."""


FLAT = 0.05
"""Range of a curve that tells nothing, likewise."""


class Comparison(NamedTuple):
    """A sentence about explanations and chance.

    Attributes:
        text: The sentence.
        loses: Whether it warns.
    """

    text: str
    loses: bool


def compare_with_chance(curves: Mapping[str, Curves]) -> list[Comparison]:
    """Say of every method on how many curves it does better than patches in random order; warn unless on more than it does worse on.

    Args:
        curves: By method, of one photo; without those of the control, or of any other method, there is nothing to say.
    """
    if CONTROL not in curves:
        return []
    chance = curves[CONTROL]
    gains = {method: _gains(measured, chance) for method, measured in curves.items() if method != CONTROL}
    sentences = [
        _compare(method, gain, _flat_curves(curves[method], chance)) for method, gain in gains.items() if isfinite(sum(gain))
    ]
    return sorted(sentences, key=lambda sentence: not sentence.loses)


def _gains(curves: Curves, chance: Curves) -> list[float]:
    """Return by how much the area under each curve is better than that of the control, as a share of the range of the scores."""
    own, control = curves.summary(), chance.summary()
    signs = {curve.name: 1 if curve.better == "higher" else -1 for curve in curves.protocol.curves}
    span = _range(curves, chance)
    return [sign * (own[name] - control[name]) / span for name, sign in signs.items()]


def _range(*measured: Curves) -> float:
    """Return the range of scores: 1 for probabilities, even where all curves are flat; else that of the measured numbers."""
    scores = torch.cat([values.flatten() for curves in measured for values in (curves.scores, curves.ends)])
    scores = scores[scores.isfinite()]
    low, high = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 1.0)
    return 1.0 if low >= 0 and high <= 1 else (high - low) or 1.0


def _flat_curves(curves: Curves, chance: Curves) -> list[bool]:
    """Return which curves hardly change, whichever patches come first: on these, no method can do better than chance."""
    scores = torch.cat([curves.scores[0], chance.scores[0]], -1)
    return ((scores.amax(-1) - scores.amin(-1)) / _range(curves, chance) <= FLAT).tolist()


def _compare(method: str, gains: list[float], flat: list[bool]) -> Comparison:
    num_better, num_worse = sum(gain > NEGLIGIBLE for gain in gains), sum(gain < -NEGLIGIBLE for gain in gains)
    total, loses = len(gains), num_better <= num_worse
    num_flat = sum(is_flat and abs(gain) <= NEGLIGIBLE for gain, is_flat in zip(gains, flat, strict=True))
    name = f"\N{LEFT DOUBLE QUOTATION MARK}{describe_method(method).label}\N{RIGHT DOUBLE QUOTATION MARK} ({method})"
    counted = {0: f"none of the {total} curves", total: f"all {total} curves"}.get(
        num_better, f"{num_better} of the {total} curves"
    )
    worse = f", and worse on {num_worse}" if num_worse else ""
    silent = (
        f" On {num_flat} of the {total}, the order of patches hardly matters, so they cannot tell methods apart."
        if num_flat
        else ""
    )
    advice = " Do not rely on this picture." if loses else ""
    return Comparison(f"{name} is better than chance on {counted} for this photo{worse}.{silent}{advice}", loses)
