"""The model that comes with the package."""

import re
import tarfile
from importlib.resources import files
from pathlib import Path

import pytest
from samples import noisy_photo

import vitrail
from vitrail.adapters import load
from vitrail.datasets.folder import ImageFolder
from vitrail.evaluation import evaluate

NAME = "vitrail:hit-cifar10"
MAX_BYTES = 4 * 1000 * 1000


@pytest.fixture(scope="module")
def classifier():
    return load(NAME, device="cpu")


def test_it_is_listed_and_knows_its_classes(classifier):
    assert NAME.removeprefix("vitrail:") in vitrail.bundled_models()
    assert classifier.num_classes == 10
    assert len(set(classifier.class_names)) == 10
    assert {"cat", "dog", "ship"} <= set(classifier.class_names)


def test_its_explanations_are_exact(classifier):
    explanation = vitrail.explain(classifier, [noisy_photo(seed, (48, 40)) for seed in range(8)])
    rows, cols = explanation.relevance.shape[1:]
    assert rows == cols > 1
    total = explanation.relevance.double().sum((1, 2)) + explanation.bias.double()
    error = (total - explanation.target_logits()).abs().max() / explanation.logits.abs().max()
    assert float(error) < 1e-5
    assert explanation.completeness_error() < 1e-5


def test_it_is_small_enough_to_ship():
    assert (files("vitrail") / "bundled" / "hit-cifar10" / "model.safetensors").stat().st_size <= MAX_BYTES


def test_it_is_as_accurate_as_its_card_says(classifier, tmp_path):
    """On a thousand test images of CIFAR-10, where they are at hand; three standard errors are 4 %."""
    archive = Path(__file__).parents[2] / "shared" / "data" / "cifar10-test.tar.xz"
    if not archive.exists():
        pytest.skip("CIFAR-10's test images (cifar10-test.tar.xz, class folders of JPEG files) are not here")
    with tarfile.open(archive) as files_inside:
        wanted = [member for member in files_inside if member.name.endswith(("0.jpg",))]
        files_inside.extractall(tmp_path, members=wanted, filter="data")
    images = ImageFolder.scan(tmp_path / "test", classifier.preprocessing)
    assert len(images) == 1000
    card = (files("vitrail") / "bundled" / "hit-cifar10" / "card.md").read_text(encoding="utf-8")
    (stated,) = re.findall(r"top-1, CIFAR-10 test images \| ([\d.]+)%", card)
    assert evaluate(classifier, images).top1 == pytest.approx(float(stated) / 100, abs=0.04)
