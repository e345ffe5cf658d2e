import subprocess
import sys

import pytest

import vitrail

HEAVY = ("torch", "timm", "matplotlib", "numpy", "lightning", "torchvision", "PIL")

HELP = """
import sys
sys.argv = ["vitrail", *{arguments!r}]
from vitrail.cli.main import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
"""


def modules_after(code: str) -> set[str]:
    ending = "\nimport sys\nprint('MODULES', *sys.modules)"
    run = subprocess.run([sys.executable, "-c", code + ending], capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.rpartition("MODULES")[2].split())


@pytest.mark.parametrize(
    "code",
    [
        "import vitrail",
        HELP.format(arguments=["--help"]),
        HELP.format(arguments=["explain", "--help"]),
        HELP.format(arguments=["--version"]),
    ],
    ids=["import", "help", "command-help", "version"],
)
def test_nothing_heavy_is_imported_before_there_is_work(code):
    loaded = modules_after(code)
    assert "vitrail" in loaded
    assert not loaded & set(HEAVY)


def test_python_m_vitrail_is_vitrail():
    run = subprocess.run(
        [sys.executable, "-m", "vitrail", "--version"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (run.returncode, run.stdout) == (0, f"vitrail {vitrail.__version__}\n")
