"""What a scoring run decides, in sentences: which method to use, how sure that is, what it costs, and what was not shown."""

from collections.abc import Sequence
from dataclasses import dataclass

from vitrail.core.listing import shorten_list
from vitrail.evaluation.scoring.scores import Scores
from vitrail.evaluation.scoring.table import Table
from vitrail.evaluation.scoring.text import MAX_NAMED, explain_too_few_images, group_unproven
from vitrail.evaluation.scoring.undecided import describe_undecided
from vitrail.explainers import EXPLAINERS
from vitrail.metrics import METRICS

LEVEL = 0.05
"""Significance level of all tests."""

ROUGH_INTERVALS = 20
"""Below this number of images, bootstrap intervals are too narrow."""

MUCH_CHEAPER = 2.0
"""How many times cheaper another method has to be to be worth a sentence."""


@dataclass(frozen=True)
class Verdict:
    """The conclusion of a scoring run for one model.

    Attributes:
        model: Name of the model.
        method: The method to use; None if no method is shown to be better than the control.
        sentences: Why, how sure, at what cost, and what was not shown.
    """

    model: str
    method: str | None
    sentences: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.sentences)


def reach_verdict(scores: Scores) -> Verdict:
    """Draw the conclusion of a scoring run.

    The method with the best mean rank is chosen among those that are significantly better than the control on most measures; of
    methods with the same rank, the cheapest. It gives way to one that beats it: that is significantly better on more measures than it
    is significantly worse on.
    """
    table = scores.table
    methods = [name for name in scores.methods if name not in EXPLAINERS or not EXPLAINERS[name].is_control]
    measures = [name for name, shared in zip(table.names, table.shared, strict=True) if shared]
    open_questions = _list_open_questions(scores)
    if not measures or not methods:
        missing = "no measure with a direction is defined for all methods" if methods else "only the control was scored"
        return Verdict(scores.model, None, (f"No verdict: {missing}.", *open_questions))
    unproven = {
        name: [entry.measure for entry in table.unproven if entry.method == name and entry.measure in measures]
        for name in methods
    }
    proven = [name for name in methods if 2 * len(unproven[name]) < len(measures)] if table.controls else methods
    ranks = dict(zip(table.methods, table.mean_ranks.tolist(), strict=True))
    order = sorted(methods, key=lambda name: (ranks[name], name not in proven, scores.cost[name].passes))
    if not proven and (too_few := explain_too_few_images(table.num_images, table.num_compared)):
        return Verdict(scores.model, None, (f"No verdict: {too_few}.", *open_questions))
    if not proven:
        most = f"more than half of the {len(measures)} measures" if len(measures) > 2 else _all_measures(measures)
        sentence = (
            f"Do not rely on these maps of {scores.model}: on {_count(scores)}, no method is significantly better than random on "
            f"{most} (paired tests, corrected for the number of methods)."
        )
        hints = describe_undecided(table, measures, unproven, order[0])
        return Verdict(scores.model, None, (sentence, *hints, *open_questions))
    first = next(name for name in order if name in proven)
    best = next((name for name in order if name in proven and _beats(table, name, first, measures)), first)
    tied = [name for name in order if ranks[name] == ranks[best] and name != best]
    reason = _recommend(scores, best, order, tied, measures) if best == first else _prefer(scores, best, first, measures)
    sentences = [reason, _compare_with_control(table, best, unproven[best], measures)]
    others = [name for name in order if name != best]
    if others and best == first:
        sentences.append(_compare_with_other(table, best, others[0], len(measures) - len(unproven[others[0]]), order, measures))
    sentences.append(f"An explanation by {best} costs {_cost(scores, best)}.")
    sentences += _name_cheaper(scores, best, others, measures)
    return Verdict(scores.model, best, (*sentences, *open_questions))


def _beats(table: Table, name: str, other: str, measures: Sequence[str]) -> bool:
    """Return whether a method is significantly better than another on more measures than it is significantly worse on."""
    better, worse = _list_differences(table, name, other, measures)
    return len(better) > len(worse)


def _prefer(scores: Scores, best: str, first: str, measures: Sequence[str]) -> str:
    better, worse = _list_differences(scores.table, best, first, measures)
    but = f"worse on {shorten_list(worse, MAX_NAMED)}" if worse else "not significantly worse on any measure"
    where = shorten_list(better, MAX_NAMED)
    return (
        f"Use {best} for {scores.model}: {first} has the better mean rank over {_measures(measures)} on {_count(scores)}, but {best} is "
        f"significantly better than it on {where}, and {but}."
    )


def _recommend(scores: Scores, best: str, order: Sequence[str], tied: Sequence[str], measures: Sequence[str]) -> str:
    if len(order) == 1:
        return f"{best} is the only method that was scored for {scores.model}, on {_count(scores)}."
    if best != order[0]:
        reason = (
            "it has the best mean rank among the methods that are significantly better than random on more than half of "
            f"{_measures(measures)}, on {_count(scores)}"
        )
    else:
        reason = f"it has the best mean rank of {len(order)} methods over {_measures(measures)} on {_count(scores)}"
        reason += f", shared with {shorten_list(tied, MAX_NAMED)}{_say_why(scores, best, tied)}" if tied else ""
    return f"Use {best} for {scores.model}: {reason}."


def _say_why(scores: Scores, best: str, tied: Sequence[str]) -> str:
    """Say that a method was preferred to those of the same mean rank for its cost, if that is so."""
    return ", and costs the least" if all(scores.cost[best].passes < scores.cost[name].passes for name in tied) else ""


def _compare_with_control(table: Table, best: str, unproven: Sequence[str], measures: Sequence[str]) -> str:
    if not table.controls:
        return "Whether it is better than random is unknown: add random to the methods."
    if not unproven:
        return f"It is significantly better than random on {_all_measures(measures)}."
    where = f"{len(measures) - len(unproven)} of {_measures(measures)}"
    worse, undecided = ([name for name in names if name in measures] for names in group_unproven(table.unproven)[best])
    parts = [f"not on {shorten_list(undecided, MAX_NAMED)}"] if undecided else []
    parts += [f"significantly worse on {shorten_list(worse, MAX_NAMED)}"] if worse else []
    return f"It is significantly better than random on {where}, and {' and '.join(parts)}."


def _compare_with_other(
    table: Table, best: str, other: str, num_better: int, order: Sequence[str], measures: Sequence[str]
) -> str:
    """Compare the recommended method with the next one, or with the one that ranks first but is not better than the control.

    Args:
        num_better: Number of measures on which the other method is significantly better than the control.
        order: Methods by their ranks.
    """
    better, worse = _list_differences(table, best, other, measures)
    first, it = other == order[0], best if other == order[0] else "it"
    # That one difference from random is significant and another is not does not mean that the two methods differ.
    start = (
        f"{other} has the best mean rank of all, but is significantly better than random on "
        f"{f'only {num_better}' if num_better else 'none'} of {_measures(measures)}"
    )
    if not better and not worse:
        unclear = "on any measure: more images may decide."
        if first:
            return f"{start}; the two are not distinguishable {unclear}"
        return f"It is not distinguishable from {other}, the next one, {unclear}"
    parts = [
        f"significantly {words} on {len(names)} of {_measures(measures)}{_name_some(names, measures)}"
        for words, names in (("better", better), ("worse", worse))
        if names
    ]
    if num_even := len(measures) - len(better) - len(worse):
        parts.append(f"not distinguishable on {num_even}")
    joined = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
    return f"{start}; against it, {it} is {joined}." if first else f"Against {other}, the next one, {it} is {joined}."


def _name_some(names: Sequence[str], measures: Sequence[str]) -> str:
    """Name measures in parentheses, unless they are all."""
    return "" if len(names) == len(measures) else f" ({shorten_list(names, MAX_NAMED)})"


def _name_cheaper(scores: Scores, best: str, others: Sequence[str], measures: Sequence[str]) -> list[str]:
    """Name the best of the much cheaper methods, and what it loses."""
    limit = scores.cost[best].passes / MUCH_CHEAPER
    cheaper = next((name for name in others if scores.cost[name].passes <= limit), None)
    if cheaper is None:
        return []
    _, worse = _list_differences(scores.table, cheaper, best, measures)
    where = f"{len(worse)} of {_measures(measures)}{_name_some(worse, measures)}" if worse else ""
    loss = f"is significantly worse on {where}" if worse else "is not significantly worse on any measure"
    return [f"{cheaper} costs {_cost(scores, cheaper)}, and {loss}."]


def _list_differences(table: Table, first: str, second: str, measures: Sequence[str]) -> tuple[list[str], list[str]]:
    """List the measures on which `first` is significantly better, and worse, than `second`."""
    directions = {column.name: column.measure.better for column in table.columns}
    better, worse = list[str](), list[str]()
    for entry in table.comparisons:
        if {entry.first, entry.second} != {first, second} or entry.measure not in measures or not entry.p_adjusted < LEVEL:
            continue
        gain = entry.difference if entry.first == first else -entry.difference
        (better if (gain > 0) == (directions[entry.measure] == "higher") else worse).append(entry.measure)
    return better, worse


def _list_open_questions(scores: Scores) -> list[str]:
    metrics = {column.metric for column in scores.columns}
    open_questions = list[str]()
    if len(scores) < ROUGH_INTERVALS:
        few = "One image tells little" if len(scores) == 1 else f"{_count(scores)} are few"
        open_questions.append(f"{few}: intervals are rough.")
    if not any(name in METRICS and METRICS[name].needs_ground_truth for name in metrics):
        open_questions.append(
            "Not shown: whether the maps mark the object, since no metric compares them with ground truth; a faithful map may well mark "
            "the background."
        )
    elif not scores.protocols:
        open_questions.append(
            "Not shown: whether the model relies on what the maps mark, since no cells were removed; add a protocol."
        )
    return open_questions


def _cost(scores: Scores, method: str) -> str:
    cost = scores.cost[method]
    passes = "one forward pass" if f"{cost.passes:.1f}" == "1.0" else f"{cost.passes:.1f} forward passes"
    return f"{passes} ({'roughly ' if cost.is_rough else ''}{cost.seconds * 1000:.3g} ms here)"


def _count(scores: Scores) -> str:
    return "1 image" if len(scores) == 1 else f"{len(scores):,} images"


def _measures(measures: Sequence[str]) -> str:
    return "1 measure" if len(measures) == 1 else f"{len(measures)} measures"


def _all_measures(measures: Sequence[str]) -> str:
    return {1: "the measure", 2: "both measures"}.get(len(measures), f"all {len(measures)} measures")
