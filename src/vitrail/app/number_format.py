"""Numbers on the page: shares in percent, and numbers with their sign and share."""

from math import floor, isnan, log10

from vitrail.core.outputs import SMALLEST_SHARE, Output, format_value, has_probabilities

MINUS = "\N{MINUS SIGN}"

MAX_SHARE = 10.0
"""Larger shares of a logit near zero mean nothing."""


def format_output(value: float, output: Output) -> str:
    """Format a number of a model: a probability in percent, which never is complete, any other value with four figures."""
    if not has_probabilities(output):
        return format_value(value, output)
    # Rounding makes a probability 0 or 1, but no model is completely sure.
    return (
        "more than 99.9%"
        if value > 1 - SMALLEST_SHARE
        else "less than 0.1%"
        if value < SMALLEST_SHARE
        else format_percent(value)
    )


def format_percent(share: float) -> str:
    """Format a share in percent with one digit, which neither hides a small share nor makes a large one complete."""
    if 0 < abs(share) < SMALLEST_SHARE:
        return "< 0.1%" if share > 0 else f"> {MINUS}0.1%"
    if 1 - SMALLEST_SHARE < share < 1:
        return "> 99.9%"
    return f"{100 * share:.1f}%".replace("-", MINUS)


def format_signed(value: float, whole: float | None = None) -> str:
    """Format a number with its sign and its share of a whole: "+0.173 (18.3%)".

    Args:
        value: The number.
        whole: What it is a share of; None for no share.
    """
    share = value / whole if whole else float("inf")
    return (
        ("+" if value >= 0 else "")
        + format_relevance(value)
        + (f" ({format_percent(share)})" if abs(share) < MAX_SHARE else "")
    )


def format_sum(*values: float) -> list[str]:
    """Format numbers that add up: with their signs, and as many decimals that the largest one has four figures."""
    largest = max(map(abs, values))
    decimals = max(0, 3 - floor(log10(largest))) if largest else 0
    return [f"{value:+.{decimals}f}".replace("-", MINUS) for value in values]


def format_relevance(value: float) -> str:
    """Format a number with three figures, zeros at the end too, and a real minus sign; NaN is "undefined"."""
    # `#` keeps zeros, and a point after the last figure.
    text = "undefined" if isnan(value) else "0" if value == 0 else f"{value:#.3g}".removesuffix(".")
    return text.replace("-", MINUS)
