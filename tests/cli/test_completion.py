"""Values complete by tab, from names that are found without importing the registries."""

import subprocess
import sys

import pytest

from vitrail.adapters import bundled_models
from vitrail.adapters.libraries import ENTRIES
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
from vitrail.datasets.synthetic.base import SYNTHETIC
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
