"""Parameter groups become options; help stays short and is sorted into panels."""

import re
from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from vitrail.cli.groups import expand_groups
from vitrail.cli.main import app


@dataclass(frozen=True)
class Color:
    hue: Annotated[str, typer.Option("--hue", help="Hue.")] = "red"
    dark: Annotated[bool, typer.Option("--dark", help="Dark.")] = False


@dataclass(frozen=True)
class Paint(Color):
    coats: Annotated[int, typer.Option(min=1)] = 1


GREEN = Paint(hue="green")


@pytest.fixture
def program():
    """A program of one command, and what it was called with."""
    program, calls = typer.Typer(), []

    def paint(wall: Annotated[str, typer.Argument()], paint: Paint = GREEN, *, twice: bool = False) -> None:
        calls.append((wall, paint, twice))

    program.command()(expand_groups(paint))
    return program, calls


def test_fields_are_options_with_the_defaults_of_the_group(program):
    app, calls = program
    assert CliRunner().invoke(app, ["north"]).exit_code == 0
    assert CliRunner().invoke(app, ["south", "--dark", "--coats", "3", "--hue", "blue", "--twice"]).exit_code == 0
    assert calls == [("north", GREEN, False), ("south", Paint("blue", True, 3), True)]


def test_limits_of_fields_are_checked(program):
    app, calls = program
    assert CliRunner().invoke(app, ["north", "--coats", "0"]).exit_code == 2
    assert not calls


@pytest.mark.parametrize("command", ["explain", "score", "compare", "test", "layers", "queries"])
def test_help_fits_two_screens_in_panels(command):
    result = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "120", "TERMINAL_WIDTH": "120"})
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) < 90
    panels = re.findall(r"╭─ (\w+)", result.stdout)
    assert {"Model", "Data", "Output", "Speed"} <= set(panels)
    assert len(set(panels)) == len(panels)
