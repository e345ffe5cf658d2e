"""Run every comparison in a process of its own, and write the table and the plot of docs/performance.md.

    python benchmarks/peers/run_all.py --peers FOLDER

Options are those of every comparison; `--only rise captum` runs some of them. Without `--write`, only prints.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from side_by_side import Row, parser

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
PICTURE = "pictures/peers.png"
BEGIN, END = "<!-- table of peers -->\n", "<!-- end of the table -->\n"


def run(script: Path, options: Sequence[str], folder: str) -> list[Row]:
    """Run one comparison and return its rows."""
    file = Path(folder) / f"{script.stem}.json"
    subprocess.run([sys.executable, str(script), *options, "--json", str(file)], check=True)
    return [Row(**entry) for entry in json.loads(file.read_text(encoding="utf-8"))]


def format_table(rows: Sequence[Row]) -> str:
    """Format the rows as a table in Markdown."""
    lines = ["| implementation | task | time over vitrail's | range | largest difference |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        difference = "" if row.difference is None else f"{row.difference:.0e}"
        lines.append(f"| {row.peer} | {row.task} | {row.ratio:.2f} | {row.low:.2f} to {row.high:.2f} | {difference} |")
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw one bar per row, with its range; a ratio above 1 means that vitrail is faster."""
    from matplotlib.figure import Figure  # noqa: PLC0415 (heavy)

    figure = Figure(figsize=(9, 1.2 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots()
    ratios, places = [row.ratio for row in rows], range(len(rows))
    ranges = [[row.ratio - row.low for row in rows], [row.high - row.ratio for row in rows]]
    axes.barh(places, ratios, xerr=ranges, color=["#4477aa" if ratio >= 1 else "#cc6677" for ratio in ratios], capsize=3)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(places, [f"{row.peer}: {row.task}" for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("time over vitrail's; the line ends at the lowest and the highest of all pairs of runs")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run the comparisons and write their results."""
    options = parser(__doc__)
    scripts = {path.stem.removeprefix("against_"): path for path in sorted(HERE.glob("against_*.py"))}
    options.add_argument("--only", nargs="+", choices=list(scripts), default=list(scripts))
    options.add_argument("--write", action="store_true", help="write the table and the plot of docs/performance.md")
    chosen = options.parse_args()
    passed = [
        f"--{name}={value}"
        for name, value in vars(chosen).items()
        if name not in ("only", "write", "json") and value is not None
    ]
    with TemporaryDirectory() as folder:
        rows = [row for name in chosen.only for row in run(scripts[name], passed, folder)]
    print(format_table(rows))
    if chosen.json:
        Path(chosen.json).write_text(json.dumps([vars(row) for row in rows], indent=1), encoding="utf-8")
    if chosen.write:
        page = DOCS / "performance.md"
        text = page.read_text(encoding="utf-8")
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        picture = f"\n![Time of every implementation over vitrail's]({PICTURE})\n"
        page.write_text(before + BEGIN + format_table(rows) + picture + END + after, encoding="utf-8")
        plot(rows, DOCS / PICTURE)


if __name__ == "__main__":
    main()
