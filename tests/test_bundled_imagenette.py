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

NAMES = [name for name in vitrail.bundled_models() if name.endswith("-imagenette")]
ARCHIVE = Path(__file__).parents[2] / "shared" / "data" / "imagenette.tar"


@pytest.mark.parametrize("name", NAMES)
def test_it_explains_photos_by_fine_cells(name):
    classifier = vitrail.load(f"vitrail:{name}", device="cpu")
    assert {"tench", "English springer", "parachute"} <= set(classifier.class_names)
    explanation = vitrail.explain(classifier, noisy_photo(0, (150, 130)))
    assert min(explanation.relevance.shape[1:]) >= 14
    assert explanation.relevance.std() > 0


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Every twentieth validation photo of Imagenette."""
    if not ARCHIVE.exists():
        pytest.skip("the photos of Imagenette (imagenette.tar, class folders in train and val) are not here")
    root = tmp_path_factory.mktemp("imagenette")
    with tarfile.open(ARCHIVE) as archive:
        names = sorted(name for name in archive.getnames() if name.startswith("val/") and name.endswith(".JPEG"))
        wanted = set(names[::20])
        archive.extractall(root, [member for member in archive if member.name in wanted], filter="data")
        (root / "train").mkdir()
    return root


@pytest.mark.parametrize("name", NAMES)
def test_it_is_as_accurate_as_its_card_says(name, photos):
    """Three standard errors are 8%."""
    classifier = vitrail.load(f"vitrail:{name}", device="cpu")
    card = (files("vitrail") / "bundled" / name / "card.md").read_text(encoding="utf-8")
    (stated,) = re.findall(r"top-1, 3,925 validation photos \| ([\d.]+)%", card)
    images = read_data("imagenette", photos, "val", classifier.preprocessing)
    assert evaluate(classifier, images).top1 == pytest.approx(float(stated) / 100, abs=0.08)
