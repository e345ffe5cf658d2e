"""Print the table of docs/evidence.md: how far methods get from the floor to the ceiling.

python scripts/tabulate_ceiling.py RUN[,RUN ...] [MEASURE ...]

RUN is a folder of `vitrail score --ceiling`, of one model; several are of the same images and methods. The columns are their curves, or
those that are named. Cells are shares in percent, with their 95% intervals; the last two rows are the areas of the floor and the ceiling
themselves.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def tabulate(summary: Mapping[str, Any], measures: Sequence[str] = ()) -> list[str]:
    """Return the lines of a Markdown table, methods with the largest mean share first."""
    ceiling, methods = summary["ceiling"], summary["methods"]
    ((_, best),) = ceiling["models"].items()
    shares = {name: row for name, row in ceiling["shares"].items() if name != "random"}
    # Divergences and blurred baselines rank methods like the other columns, and would not fit beside them.
    measures = measures or [name for name in shares[next(iter(shares))] if not name.endswith(("_kl", "_blur"))]
    order = sorted(shares, key=lambda name: -sum(shares[name][measure]["mean"] for measure in measures))
    rows = [
        ["method", "passes", *(f"`{measure}`" for measure in measures)],
        ["---"] * (2 + len(measures)),
        *([f"`{name}`", f"{methods[name]['passes']:.0f}", *(_share(shares[name][key]) for key in measures)] for name in order),
        ["floor: area of `random`", "", *(f"{methods['random']['measures'][key]['mean']:.3f}" for key in measures)],
        [
            "ceiling: area of `greedy`",
            f"{best['runs_per_image']:.0f}",
            *(f"{best['measures'][key]['mean']:.3f}" for key in measures),
        ],
    ]
    return [_line(row) for row in rows]


def merge(first: dict[str, Any], *others: Mapping[str, Any]) -> dict[str, Any]:
    """Add to a summary the measures of other runs, and what their search cost."""
    ((model, best),) = first["ceiling"]["models"].items()
    for other in others:
        for name, row in other["ceiling"]["shares"].items():
            first["ceiling"]["shares"][name] |= row
        for name, entry in other["methods"].items():
            first["methods"][name]["measures"] |= entry["measures"]
        best["measures"] |= other["ceiling"]["models"][model]["measures"]
        best["runs_per_image"] += other["ceiling"]["models"][model]["runs_per_image"]
    return first


def _share(share: Mapping[str, float]) -> str:
    return f"{100 * share['mean']:.0f} [{100 * share['low']:.0f}, {100 * share['high']:.0f}]".replace(" ", "\N{NO-BREAK SPACE}")


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    summary = merge(*(json.loads(Path(run, "summary.json").read_text()) for run in sys.argv[1].split(",")))
    sys.stdout.write("\n".join([*tabulate(summary, sys.argv[2:]), ""]))
