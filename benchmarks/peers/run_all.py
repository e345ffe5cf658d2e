"""Run every comparison in a process of its own; write rows as JSON, a table in Markdown and a plot of the ratios.

    python benchmarks/peers/run_all.py --peers FOLDER

Options are those of every comparison; `--only rise captum` runs some of them, and `--depth 1 --repeats 1` shows quickly whether they run.
`--write` also updates docs/performance.md.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from rows import Row, Spread, format_table, plot
from side_by_side import parser

from measuring import write_section

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
PICTURE = "pictures/peers.png"


def run(script: Path, options: Sequence[str], folder: str) -> list[Row]:
    """Run one comparison and return its rows; one that stops early leaves those that it has, and a row that says so."""
    file = Path(folder) / f"{script.stem}.json"
    code = subprocess.run([sys.executable, str(script), *options, "--json", str(file)], check=False).returncode
    rows = read_rows(file) if file.exists() else []
    name = script.stem.removeprefix("against_")
    return rows if rows and not code else [*rows, Row(name, "", problem=f"stopped early, with exit code {code}")]


def read_rows(file: Path) -> list[Row]:
    """Read the rows that a comparison wrote."""
    return [
        Row(**{name: Spread(*value) if isinstance(value, list) else value for name, value in entry.items()})
        for entry in json.loads(file.read_text(encoding="utf-8"))
    ]


def write_page(rows: Sequence[Row], earlier: Sequence[Row]) -> None:
    """Write the table and the plot of docs/performance.md."""
    picture = f"\n![Time of every implementation over vitrail's]({PICTURE})\n"
    write_section(DOCS / "performance.md", "peers", format_table(rows, earlier) + picture)
    plot(rows, DOCS / PICTURE)


def main() -> None:
    """Run the comparisons and write their results."""
    options = parser(__doc__)
    scripts = {path.stem.removeprefix("against_"): path for path in sorted(HERE.glob("against_*.py"))}
    options.add_argument("--only", nargs="+", choices=list(scripts), default=list(scripts))
    options.add_argument("--out", type=Path, default=Path("build/peers"), help="folder of peers.json, peers.md and peers.png")
    options.add_argument("--earlier", type=Path, help="peers.json of another day, for a column of the table")
    options.add_argument("--write", action="store_true", help="also write the table and the plot of docs/performance.md")
    chosen = options.parse_args()
    passed = [
        f"--{name}={value}"
        for name, value in vars(chosen).items()
        if name not in ("only", "out", "earlier", "write", "json") and value is not None
    ]
    chosen.out.mkdir(parents=True, exist_ok=True)
    earlier = read_rows(chosen.earlier) if chosen.earlier else []
    rows = list[Row]()
    with TemporaryDirectory() as folder:
        for name in chosen.only:
            rows += run(scripts[name], passed, folder)
            # After each, so that an interrupted run is not lost.
            (chosen.out / "peers.json").write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")
            (chosen.out / "peers.md").write_text(format_table(rows, earlier), encoding="utf-8")
    plot(rows, chosen.out / "peers.png")
    print(format_table(rows, earlier))
    if chosen.write:
        write_page(rows, earlier)


if __name__ == "__main__":
    main()
