"""Values complete by tab, from names that are found without importing the registries."""

import os
import subprocess
import sys

import pytest

from vitrail.adapters import bundled_models
from vitrail.adapters.libraries import ENTRIES
from vitrail.cli.bash_words import TYPED, join_bash_words
from vitrail.cli.completion import (
    SOURCES,
    bundled_names,
    complete_kinds,
    complete_methods,
    complete_models,
    registered_names,
)
from vitrail.cli.listing import SECTIONS
from vitrail.datasets.named import DATA
from vitrail.datasets.synthetic.names import SYNTHETIC
from vitrail.explainers import EXPLAINERS
from vitrail.metrics import METRICS, PROTOCOLS


@pytest.mark.parametrize(
    ("registry", "name", "folder"),
    [
        (EXPLAINERS, "EXPLAINERS", "explainers"),
        (METRICS, "METRICS", "metrics"),
        (PROTOCOLS, "PROTOCOLS", "metrics"),
        (SYNTHETIC, "SYNTHETIC", "datasets/synthetic"),
        (DATA, "DATA", "datasets/named"),
    ],
)
def test_names_in_the_code_are_those_of_the_registry(registry, name, folder):
    # The years of iNaturalist are registered in a loop.
    assert registered_names(name, folder) == sorted(entry for entry in registry if not entry.startswith("inaturalist"))


def test_models_are_those_of_the_package_and_its_libraries():
    assert bundled_names() == [f"vitrail:{name}" for name in bundled_models()]
    assert set(SOURCES) <= set(ENTRIES)
    assert complete_kinds("") == list(SECTIONS)


def test_several_names_complete_one_after_the_other():
    assert complete_methods("chefer,roll") == ["chefer,rollout"]
    assert "hit,hit" not in complete_methods("hit,")


def test_models_complete_to_files_too(tmp_path, monkeypatch):
    (tmp_path / "runs" / "a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert complete_models("ru") == ["runs/"]
    assert complete_models("runs/") == ["runs/a/"]
    assert complete_models("vitrail:hit-c") == ["vitrail:hit-cifar10"]


COMPLETE = """
import os, sys
os.environ.update(_VITRAIL_COMPLETE="complete_bash", _TYPER_COMPLETE_ARGS={line!r}, COMP_WORDS={line!r}, COMP_CWORD={index!r})
sys.argv = ["vitrail"]
from vitrail.cli.main import app
try:
    app(prog_name="vitrail")
except SystemExit:
    pass
assert "torch" not in sys.modules and "numpy" not in sys.modules, "heavy"
"""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("vitrail explain --method che", "chefer"),
        ("vitrail score --protocol tok", "tokens"),
        ("vitrail score --metric spars", "sparseness"),
        ("vitrail train --recipe cifar10-h", "cifar10-hit"),
        ("vitrail compare --model vitrail:vit-c", "vitrail:vit-cifar10"),
        ("vitrail generate bir", "birds"),
    ],
)
def test_completion_of_the_shell_imports_nothing_heavy(line, expected):
    code = COMPLETE.format(line=line, index=str(len(line.split()) - 1))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stderr
    assert expected in run.stdout.split()


@pytest.mark.parametrize(
    ("words", "joined", "names"),
    [
        (["explain", "-m", "vitrail", ":", "hit-c"], "explain -m vitrail:hit-c", ["hit-cifar10"]),
        (["explain", "-m", "vitrail", ":"], "explain -m vitrail:", [name.removeprefix("vitrail:") for name in bundled_names()]),
        (["compare", "--model", "=", "vitrail", ":", "hit-birds,vitrail", ":", "vit-b"], None, ["vit-birds"]),
        (
            ["explain", "-m", "vitrail:hit-c"],
            "explain -m vitrail:hit-c",
            ["vitrail:hit-cifar10"],
        ),  # In quotes, bash leaves it whole.
    ],
)
def test_words_that_bash_splits_at_colons_are_put_together(words, joined, names, monkeypatch):
    """Bash replaces what stands behind the last colon, so that completions are the rest."""
    monkeypatch.setenv("_VITRAIL_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "\n".join(words))
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    monkeypatch.setenv(TYPED, "")
    join_bash_words()
    line = os.environ["COMP_WORDS"].split("\n")
    assert int(os.environ["COMP_CWORD"]) == len(line) - 1
    assert joined is None or " ".join(line) == joined
    assert complete_models(line[-1].removeprefix("--model=")) == names
