"""`vitrail demo`: a tour on one photo, offline."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder.")] = Path("vitrail-demo"),
) -> None:
    """Explain a photo of a cat by the bundled model, score the explanation, and write a page."""
    from vitrail.demo import run_demo  # noqa: PLC0415 (heavy)

    for line in run_demo(out):
        typer.echo(line)
