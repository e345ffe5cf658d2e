"""Numbers that a page of the documentation shows, against those that its commands print."""

import math
import re

_NUMBER = re.compile(r"(?<![\w.])[-+±]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.]*\w)")


def numbers(text: str) -> list[str]:
    return _NUMBER.findall(text)


def same(shown: str, printed: str, tolerance: float = 0.0) -> bool:
    """Tell whether a printed number is the shown one, up to a tolerance and one unit of its last digit.

    Numbers with an exponent are rounding errors, which differ between machines: of them, the magnitude counts.
    """
    first, second = (float(number.strip("±").replace(",", "")) for number in (shown, printed))
    if "e" in shown:
        return first * second > 0 and abs(math.log10(first / second)) < 1.5
    digits = len(shown.partition(".")[2])
    return abs(first - second) < (tolerance + 1.01 * 10**-digits if digits else 0.5)


def check_output(shown: str, printed: str, ignored: list[str], tolerance: float = 0.0) -> int:
    """Find the lines of an output block among printed ones, in order, and return how many numbers were compared.

    Args:
        shown: The block; a line `...` stands for any number of lines.
        printed: What the commands printed.
        ignored: Heads of right-aligned columns whose numbers are not compared, such as times.
        tolerance: Largest difference of numbers with decimals.
    """
    lines, compared, columns = iter(printed.splitlines()), 0, set()
    for line in filter(str.strip, shown.splitlines()):
        if line.strip() == "...":
            continue
        found, heads = numbers(line), re.split(r"\s{2,}", line.strip())
        if set(ignored) & set(heads):
            columns = {len(heads) - place for place, head in enumerate(heads) if head in ignored}  # from the right
        elif not found:
            columns = set()
        counted = [len(found) - place not in columns for place in range(len(found))]
        if not any(_matches(line, candidate, counted, tolerance) for candidate in lines):
            raise AssertionError(f"the page shows\n{line}\nwhich is not printed, or not in this order; printed is\n{printed}")
        compared += sum(counted)
    return compared


def _matches(line: str, candidate: str, counted: list[bool], tolerance: float) -> bool:
    if _NUMBER.sub("0", line).split() != _NUMBER.sub("0", candidate).split():
        return False
    return all(
        same(*pair, tolerance)
        for pair, counts in zip(zip(numbers(line), numbers(candidate), strict=True), counted, strict=True)
        if counts
    )


def check_comment(comment: str, printed: str) -> int:
    """Find the numbers of a comment such as `# (1, 7, 7)` among those printed by its line, in order; return how many there are."""
    remaining, wanted = iter(numbers(printed)), numbers(comment)
    missing = [number for number in wanted if not any(same(number, other) for other in remaining)]
    assert not missing, f"the comment {comment!r} has {', '.join(missing)}, which are not in {printed!r}"
    return len(wanted)
