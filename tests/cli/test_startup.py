import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

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


def modules_after(code: str, timeout: float = 60) -> set[str]:
    ending = "\nimport sys\nprint('MODULES', *sys.modules)"
    run = subprocess.run([sys.executable, "-c", code + ending], capture_output=True, text=True, check=False, timeout=timeout)
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


NEEDLESS = {"captum", "jinja2", "lightning", "open_clip", "pandas", "scipy", "skimage", "torchmetrics", "transformers"}
"""Libraries that explaining a photo with a bundled model needs nothing of; together they take as long to import as torch."""


TIMMS = {"timm", "torchvision", "torch._dynamo", "torch._inductor", "sympy"}
"""Libraries that timm needs; they take twice as long to import as torch."""


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vitrail:vit-cifar10", "vitrail:hit-cifar10"])
def test_explaining_a_photo_imports_no_more_than_it_needs(model, tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    arguments = ["explain", str(tmp_path / "photo.png"), "--model", model, "--out", str(tmp_path / "out")]
    loaded = modules_after(HELP.format(arguments=arguments), timeout=300)
    assert (tmp_path / "out" / "photo.png").exists()
    assert loaded & TIMMS == (TIMMS if model.startswith("vitrail:vit") else set())
    assert not loaded & NEEDLESS
    assert not {name for name in loaded if name.startswith(("vitrail.evaluation", "vitrail.metrics", "vitrail.training"))}


FIRST_GRADIENTS = """
import warnings
warnings.simplefilter("error")
import torch
from vitrail.adapters import adapt, Preprocessing
from vitrail.explainers import make_explainer
convolution = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 8), torch.nn.Flatten(), torch.nn.Linear(4 * 81, 2))
model = adapt(convolution, preprocessing=Preprocessing.unnormalized(3, size=(16, 16)))
make_explainer("input-x-gradient", model).explain(torch.rand(1, 3, 16, 16))
"""


def test_gradients_are_checked_without_warnings():
    """torch warns when forward derivatives are used for the first time."""
    run = subprocess.run([sys.executable, "-c", FIRST_GRADIENTS], capture_output=True, text=True, check=False, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")


def test_python_m_vitrail_is_vitrail():
    run = subprocess.run(
        [sys.executable, "-m", "vitrail", "--version"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (run.returncode, run.stdout) == (0, f"vitrail {vitrail.__version__}\n")
