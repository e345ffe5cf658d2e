"""`vitrail demo`: the whole way on one real photo, offline."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the page and its pictures.")] = Path("vitrail-demo"),
) -> None:
    """Explain a cat by the bundled model, prove the explanation, and write a page that shows it all."""
    from vitrail.demo import run_demo  # noqa: PLC0415 (heavy)

    for line in run_demo(out):
        typer.echo(line)
