"""`vitrail demo`: a tour on one photo, offline."""

from pathlib import Path
from typing import Annotated

import typer

from vitrail.cli.results import print_result


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder.")] = Path("vitrail-demo"),
) -> None:
    """Explain photos by bundled models, score the explanations of one, and write a page."""
    from vitrail.demo import run_demo  # noqa: PLC0415 (heavy)

    lines = list(run_demo(out))
    print_result(lambda: {"out": str(out), "lines": lines}, lambda: typer.echo("\n".join(lines)))
