"""The command at the end of reports."""

import shlex

import pytest

from vitrail.core.command import running, running_command
from vitrail.viz.report import write_report


def test_options_that_change_no_number_are_left_out():
    arguments = shlex.split(
        "score 'my photos' --out x --workers 4 --batch-size=8 --method chefer,random --overwrite -o y --limit 5"
    )
    with running(arguments):
        assert running_command() == "vitrail score 'my photos' --batch-size=8 --method chefer,random --limit 5"
    assert running_command() is None


def test_it_is_forgotten_after_an_error():
    with pytest.raises(KeyError), running(["test"]):
        raise KeyError
    assert running_command() is None


def test_a_page_that_the_server_makes_names_no_command(tmp_path):
    """Pages that `vitrail serve` offers for download do not reveal how the server was started."""
    with running(["serve", "--model", "secret.safetensors"]):
        write_report(tmp_path / "page.html", "title", "lead", [])
        write_report(tmp_path / "own.html", "title", "lead", [], running_command())
    assert "secret" not in (tmp_path / "page.html").read_text()
    assert "<pre>vitrail serve --model secret.safetensors</pre>" in (tmp_path / "own.html").read_text()
