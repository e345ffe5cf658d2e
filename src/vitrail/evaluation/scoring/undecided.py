"""What a run that recommends no method still shows: who beats random on which measure, who is worse than it, and what to do next."""

from collections.abc import Iterator, Mapping, Sequence

from vitrail.core.listing import shorten_list
from vitrail.evaluation.scoring.table import Table
from vitrail.evaluation.scoring.text import MAX_NAMED, group_unproven


def describe_undecided(
    table: Table, measures: Sequence[str], unproven: Mapping[str, Sequence[str]], first: str
) -> Iterator[str]:
    """Yield what follows after the sentence that no method is recommended.

    Args:
        measures: The measures that count.
        unproven: By method, those on which it is not significantly better than random.
        first: The method with the best mean rank.
    """
    winners = {each: [name for name, missing in unproven.items() if each not in missing] for each in measures}
    none = [measure for measure, names in winners.items() if not names]
    if len(none) < len(measures):
        parts = [_count_winners(measure, names, len(unproven)) for measure, names in winners.items() if names][:MAX_NAMED]
        parts += [f"on {shorten_list(none, MAX_NAMED)}, none is"] if none else []
        sentence = "; ".join(parts)
        yield f"{sentence[0].upper()}{sentence[1:]}."
    worse = {name: [each for each in on if each in measures] for name, (on, _) in group_unproven(table.unproven).items()}
    named = [f"{name} on {shorten_list(on, MAX_NAMED)}" for name, on in worse.items() if on]
    if named:
        yield f"Significantly worse than random: {'; '.join(named)}."
    if not worse.get(first):
        rank = f"{first} has the best mean rank so far" if len(unproven) > 1 else f"{first} is not worse than random either"
        yield f"{rank}: score more images (a higher --limit) to find out whether it is better than random."


def _count_winners(measure: str, names: Sequence[str], num_methods: int) -> str:
    if num_methods == 1:
        return f"on {measure}, {names[0]} is"
    return f"on {measure}, {len(names)} of {num_methods} methods {'is' if len(names) == 1 else 'are'} ({shorten_list(names, MAX_NAMED)})"
