"""Lists, counts and long names in messages."""

from collections.abc import Sequence

MAX_LISTED = 6


def shorten_list(names: Sequence[str], limit: int = MAX_LISTED) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{', '.join(names[:limit])}{more}"


def count_nouns(count: int, noun: str) -> str:
    """Return a number with its noun, such as "1 photo" or "2,000 photos"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def shorten_middle(text: str, length: int) -> str:
    """Leave out the middle of a long text: names of files differ at their ends."""
    half = (length - 3) // 2
    return text if len(text) <= length else f"{text[: length - 3 - half]}...{text[-half:]}"
