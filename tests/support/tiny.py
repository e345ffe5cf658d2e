"""A tiny saved model, photos, and the program's entry point, as fixtures: `pytest_plugins = ("tiny",)`."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from samples import CLASS_NAMES, noisy_photo

from vitrail.adapters.preprocessing import Preprocessing
from vitrail.models.checkpoints import write_checkpoint
from vitrail.models.hit import HiT
from vitrail.runs.timing import TIMING_FILE


@pytest.fixture(scope="session")
def tiny_model_file(tmp_path_factory) -> Path:
    """A HiT of 16x16 pixels and 4x4 patches with 7 classes, as `vitrail train` writes it; different photos, different classes."""
    state = torch.random.get_rng_state()
    torch.manual_seed(3)
    module = HiT(image_size=(16, 16), patch_size=4, depths=(2,), widths=(12,), num_heads=2, num_classes=len(CLASS_NAMES))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    torch.random.set_rng_state(state)
    metadata = {
        "architecture": "hit",
        "config": module.config.to_dict(),
        "preprocessing": Preprocessing((16, 16)).to_dict(),
        "class_names": list(CLASS_NAMES),
    }
    path = tmp_path_factory.mktemp("tiny-model") / "tiny.safetensors"
    write_checkpoint(path, module, metadata)
    return path


@pytest.fixture
def make_photo():
    """A function that writes a photo of colored noise and returns its path; its folders are made."""

    def make(path: Path, seed: int = 0, size: tuple[int, int] = (20, 24)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        noisy_photo(seed, size).save(path)
        return path

    return make


@pytest.fixture
def make_classes(make_photo, tmp_path):
    """A function that writes so many photos of each class and returns their folder, tmp_path / "data"."""

    def make(names: Sequence[str], count: int) -> Path:
        for i, name in enumerate(names):
            for j in range(count):
                make_photo(tmp_path / "data" / name / f"{j}.png", seed=100 * i + j)
        return tmp_path / "data"

    return make


@pytest.fixture
def snapshot():
    """A function that returns the bytes of every file below a folder, except how long the run took."""

    def take(folder: Path) -> dict[str, bytes]:
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != TIMING_FILE]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    return take


@pytest.fixture
def run_vitrail(monkeypatch, capsys):
    """A function that runs the real entry point; returns exit code, standard output and standard error.

    An exception other than SystemExit, which a user would see as a traceback, fails the test.
    """
    from vitrail.cli.main import main

    log = logging.getLogger("vitrail")
    handlers, propagate, level = log.handlers[:], log.propagate, log.level

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:  # noqa: PT012
            patch.setattr("sys.argv", ["vitrail", *map(str, arguments)])
            main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    yield run
    log.handlers, log.propagate = handlers, propagate
    log.setLevel(level)
