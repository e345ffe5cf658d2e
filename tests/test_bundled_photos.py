"""The bundled models for real photos: small, fine-grained, and as accurate as their cards say."""

import re
import tarfile
from importlib.resources import files
from pathlib import Path

import pytest
from samples import noisy_photo

import vitrail
from vitrail.datasets.open import read_data
from vitrail.evaluation import evaluate

IMAGENETTE, PETS = ([name for name in vitrail.bundled_models() if name.endswith(end)] for end in ("-imagenette", "-pets"))
DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        *((name, {"tench", "English springer", "parachute"}) for name in IMAGENETTE),
        *((name, {"Abyssinian", "American Bulldog", "Bengal"}) for name in PETS),
    ],
)
def test_it_explains_photos_by_fine_cells(name, classes):
    classifier = vitrail.load(f"vitrail:{name}", device="cpu")
    assert classes <= set(classifier.class_names)
    explanation = vitrail.explain(classifier, noisy_photo(0, (150, 130)))
    assert min(explanation.relevance.shape[1:]) >= 14
    assert explanation.relevance.std() > 0


@pytest.fixture(scope="module")
def imagenette(tmp_path_factory):
    """Every twentieth validation photo of Imagenette."""
    root = tmp_path_factory.mktemp("imagenette")
    with open_archive("imagenette.tar", "Imagenette, class folders in train and val") as archive:
        names = sorted(name for name in archive.getnames() if name.startswith("val/") and name.endswith(".JPEG"))
        wanted = set(names[::20])
        archive.extractall(root, [member for member in archive if member.name in wanted], filter="data")
    (root / "train").mkdir()
    return root


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    """A sample of Oxford-IIIT Pet."""
    root = tmp_path_factory.mktemp("pets")
    with open_archive("pets-sample.tar.xz", "Oxford-IIIT Pet, images and annotations") as archive:
        archive.extractall(root, filter="data")
    return root / "pets-sample"


def open_archive(name, content):
    if not (DATA / name).exists():
        pytest.skip(f"the photos ({name}, {content}) are not here")
    return tarfile.open(DATA / name)


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGENETTE)
def test_it_is_as_accurate_on_imagenette_as_its_card_says(name, imagenette):
    """Three standard errors are 8%."""
    assert measure("imagenette", imagenette, "val", name) == pytest.approx(read_card(name, "3,925 validation"), abs=0.08)


@pytest.mark.slow
@pytest.mark.parametrize("name", PETS)
def test_it_is_as_accurate_on_pets_as_its_card_says(name, pets):
    assert measure("oxford-pets", pets, "test", name) == pytest.approx(read_card(name, "298 test"), abs=0.004)


def measure(data_set, root, split, name):
    classifier = vitrail.load(f"vitrail:{name}", device="cpu")
    return evaluate(classifier, read_data(data_set, root, split, classifier.preprocessing)).top1


def read_card(name, photos):
    """The accuracy that the card of a model states."""
    card = (files("vitrail") / "bundled" / name / "card.md").read_text(encoding="utf-8")
    (stated,) = re.findall(rf"top-1, {photos} photos \| ([\d.]+)%", card)
    return float(stated) / 100
