"""Print a table of docs/evidence.md: means of methods with their 95% intervals.

python scripts/tabulate_scores.py RUN [MEASURE ...]

RUN is a folder of `vitrail score` or `vitrail compare`. Without measures, all of them are columns. Rows are sorted by the first one.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def tabulate(summary: Mapping[str, Any], measures: Sequence[str]) -> list[str]:
    """Return the lines of a Markdown table, the best method first."""
    measures = measures or list(summary["measures"])
    methods = summary["methods"]
    first = measures[0]
    sign = -1 if summary["measures"][first]["better"] == "higher" else 1
    order = sorted(methods, key=lambda name: sign * methods[name]["measures"].get(first, {"mean": sign * float("inf")})["mean"])
    rows = [
        ["method", "passes", *(f"`{measure}`" for measure in measures)],
        ["---"] * (2 + len(measures)),
        *(
            [
                f"`{name}`",
                f"{methods[name]['passes']:.0f}",
                *(_interval(methods[name]["measures"].get(measure)) for measure in measures),
            ]
            for name in order
        ),
    ]
    return [_line(row) for row in rows]


def _interval(numbers: Mapping[str, float] | None) -> str:
    if numbers is None:
        return "-"
    return f"{numbers['mean']:.3f} [{numbers['low']:.3f}, {numbers['high']:.3f}]".replace(" ", "\N{NO-BREAK SPACE}")


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.stdout.write("\n".join([*tabulate(json.loads(Path(sys.argv[1], "summary.json").read_text()), sys.argv[2:]), ""]))
